/// @file
/// How long to train: one number of bytes for all models that are compared, so that they see the
/// same text.
#pragma once

#include <filesystem>
#include <vector>

#include "perplexity/training.hpp"

namespace ttt::examples {

/// Bytes that each of `runs` is to be trained on under the budget of `options`; with `--steps` each
/// run takes as many steps, whatever its context. A budget of minutes is a mean over the runs: 20
/// steps of each are measured. It is stored in `file` and found there again by `--resume`.
std::int64_t plan_training(const std::vector<Run>& runs, const Options& options,
                           const std::vector<Document>& text, const std::filesystem::path& file);

/// Steps of a run on so many bytes; at least one.
Index planned_steps(const Options& options, Index context, std::int64_t bytes);

}  // namespace ttt::examples
