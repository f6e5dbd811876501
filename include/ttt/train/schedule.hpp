/// @file
/// Learning rates as functions of the update's number: linear warm-up and cosine decay for the
/// outer loop (the recipe of the TTT paper, arXiv 2407.04620, appendix C), and the warm-up of
/// TTT-MLP's inner learning rate. Updates are counted from 1.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

struct ScheduleConfig {
  double peak = 3e-3;
  double final_rate = 1e-5;
  Index warmup_steps = 0;
  Index total_steps = 1;

  /// Throws `std::invalid_argument` where a number is out of its range.
  void validate() const {
    require(std::isfinite(peak) && std::isfinite(final_rate) && peak >= 0 && final_rate >= 0,
            "ScheduleConfig: peak is ", peak, " and final_rate ", final_rate,
            ", expected finite numbers, 0 or more");
    require(warmup_steps >= 0 && total_steps >= warmup_steps, "ScheduleConfig: warmup_steps is ",
            warmup_steps, " of total_steps ", total_steps, ", expected 0 to total_steps");
  }
};

/// Rises linearly from 0 at step 0 to `peak` at `warmup_steps`, falls along half a cosine to
/// `final_rate` at `total_steps`, and stays there. (Optax's warmup_cosine_decay_schedule counts
/// from 0, so that its first update has rate 0.)
inline double learning_rate(Index step, const ScheduleConfig& config) {
  config.validate();
  require(step >= 0, "learning_rate: step is ", step, ", expected 0 or more");
  const auto ratio = [](Index a, Index b) {
    return static_cast<double>(a) / static_cast<double>(b);
  };
  if (step < config.warmup_steps) return config.peak * ratio(step, config.warmup_steps);
  if (step == config.warmup_steps) return config.peak;
  if (step >= config.total_steps) return config.final_rate;
  const double progress =
      ratio(step - config.warmup_steps, config.total_steps - config.warmup_steps);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return config.final_rate + (config.peak - config.final_rate) * cosine;
}

/// Inner learning rates, before the division by the head's width: TTT-MLP's recipe is 0.01 to 0.1
/// over as many steps as the outer warm-up, TTT-Linear's has no warm-up.
struct InnerRateWarmup {
  double initial = 0.01;
  double peak = 0.1;
  Index warmup_steps = 0;
};

/// What multiplies the inner learning rate (`RunOptions::inner_rate_scale`) at an update:
///   [initial + min(1, (step - 1) / warmup_steps) (peak - initial)] / peak,
/// and 1 where `initial` or `warmup_steps` is 0. Evaluation uses 1. The official JAX program casts
/// the result to bfloat16; here it is exact.
inline double inner_rate_scale(Index step, const InnerRateWarmup& config) {
  require(step >= 1, "inner_rate_scale: step is ", step, ", expected 1 or more");
  require(config.initial >= 0 && config.peak > 0 && config.warmup_steps >= 0,
          "InnerRateWarmup: initial is ", config.initial, ", peak ", config.peak, ", warmup_steps ",
          config.warmup_steps, ", expected a peak above 0, the others 0 or more");
  if (config.initial == 0 || config.warmup_steps == 0) return 1;
  const double progress =
      std::min(1.0, static_cast<double>(step - 1) / static_cast<double>(config.warmup_steps));
  return (config.initial + progress * (config.peak - config.initial)) / config.peak;
}

}  // namespace ttt
