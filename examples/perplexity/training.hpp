/// @file
/// Trains one language model of bytes under a budget, with checkpoints to resume from.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "perplexity/models.hpp"
#include "perplexity/results.hpp"
#include "support/text.hpp"

namespace ttt::examples {

/// Throws `std::runtime_error` where the last write to metrics.jsonl failed.
void require_written(const std::ostream& metrics);

/// One model to train: a layer at a training context with a seed.
struct Run {
  LayerKind kind;
  Index context = 1024;
  std::uint64_t seed = 1;
  double learning_rate = 0;
  std::filesystem::path folder;  // DIR/<layer>-<context>[-<seed>]
  Index steps = 0;               // planned
};

/// Windows of a training step, all together `batch_tokens` long, but at least one.
Index sequences_per_step(const Options& options, Index context);

/// Seconds of a training step: the mean of 20, after a few that are not measured. The model that
/// is trained meanwhile is thrown away.
double measure_step(const Run& run, const Options& options, const std::vector<Document>& text);

struct TrainedModel {
  Model model;
  Index steps = 0, tokens = 0;
  double seconds = 0, flops = 0;
  std::vector<TrainingPoint> curve;
};

/// Trains, or goes on from the run's checkpoint where `options.resume` is set and there is one:
/// then to the end that was planned for it. Appends JSON lines to `metrics`. Throws
/// `std::runtime_error` where a value is not finite, the last checkpoint stays; where
/// `options.memory` is too little for one window; and `Interrupted`, after saving a checkpoint.
TrainedModel train(const Run& run, const Options& options, const std::vector<Document>& text,
                   std::ostream& metrics);

}  // namespace ttt::examples
