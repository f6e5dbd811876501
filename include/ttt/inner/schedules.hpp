/// @file
/// At which weights gradients are taken, and which tokens an answer has learned from. With W the
/// weights at the start of token t's mini-batch of b tokens, where all its gradients are taken:
///   LearnThenAnswer   z_t = f(q_t; W_t): W_t has learned from the mini-batch's tokens up to t
///   AnswerThenLearn   z_t = f(q_t; W): the mini-batch moves W when it is complete
///   Online            b = 1: every gradient is taken at W_{t-1}
///   WholeSequence     one mini-batch without end: every gradient is taken at W_0
/// The last two do not read the configuration's mini_batch. Training keeps W once a mini-batch, so
/// Online takes the memory of W for every token, where WholeSequence takes it every 256.
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.2 and 2.4; answer first: LaCT (Zhang et
/// al. 2025, arXiv 2505.23884), "apply then update".
#pragma once

#include <limits>

#include "ttt/core/types.hpp"

namespace ttt {

struct LearnThenAnswer {
  static constexpr bool learns_first = true;
  static constexpr Index mini_batch(Index configured) { return configured; }
};

struct AnswerThenLearn {
  static constexpr bool learns_first = false;
  static constexpr Index mini_batch(Index configured) { return configured; }
};

struct Online {
  static constexpr bool learns_first = true;
  static constexpr Index mini_batch(Index) { return 1; }
};

struct WholeSequence {
  static constexpr bool learns_first = true;
  static constexpr Index mini_batch(Index) { return std::numeric_limits<Index>::max(); }
};

}  // namespace ttt
