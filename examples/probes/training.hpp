/// @file
/// One row of the table: a model trained on the text and tested on text that it never saw.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "probes/rows.hpp"

namespace ttt::examples::probes {

struct Budget {
  Index tokens = 0;        // of training, in whole steps
  Index batch_tokens = 0;  // of a step
  double learning_rate = 4e-3;
  std::uint64_t seed = 1;
};

struct Texts {
  std::vector<std::string_view> train;
  std::vector<std::string_view> test;  // windows of context + 1 bytes
};

struct Result {
  Index parameters = 0;
  double nats = 0;  // a byte of the test text; NaN where the row diverged
  double tokens_per_second = 0;
  std::optional<Index> diverged_at;  // step of training
};

/// All rows read the same windows in the same order. A loss or gradient that is not finite ends
/// the row, not the program. Shows its progress, under `label`, on standard error.
Result run(const Row& row, const Sizes& sizes, const Budget& budget, const Texts& texts,
           const std::string& label);

}  // namespace ttt::examples::probes
