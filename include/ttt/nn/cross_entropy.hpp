/// @file
/// Cross entropy of next-token predictions, for one tile of logits l [V, n]:
///   nats_t = log sum_v exp(l_vt) - l_(target_t, t)      dl_t = scale (softmax(l_t) - onehot_t)
/// A model walks over its tokens in tiles, so that the logits of all tokens are never held at once.
/// The largest logit is subtracted before exponentials are taken: none of them overflows.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// Shapes: logits [V, n]; targets [n], each in {0, ..., V-1}; nats [n].
/// Throws `std::invalid_argument` where a shape is wrong or a target out of range.
template <Scalar S>
struct CrossEntropy {
  using Targets = std::span<const std::int32_t>;

  /// Tokens in a tile: wide enough for the product that makes the logits to run at full speed; a
  /// vocabulary of 32000 takes 32 MB in float.
  static constexpr Index tile_tokens = 256;

  /// nats_t = -log softmax(l_t)[target_t]
  static void forward(MatrixIn<S> logits, Targets targets, VectorOut<S> nats) {
    require_targets("CrossEntropy.forward", logits, targets);
    require_shape("CrossEntropy.forward: nats", nats, logits.cols(), 1);
    parallel_blocks(logits.cols(), tokens_per_task, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t)
        nats(t) = log_sum_exp(logits.col(t)) - logits(target(targets, t), t);
    });
  }

  /// Replaces the logits by `scale` times the gradient of the sum of their nats.
  static void backward_in_place(MatrixOut<S> logits, Targets targets, double scale) {
    require_targets("CrossEntropy.backward_in_place", logits, targets);
    parallel_blocks(logits.cols(), tokens_per_task, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) {
        auto l = logits.col(t).array();
        l = (l - l.maxCoeff()).exp();
        l *= S(scale) / l.sum();
        l(target(targets, t)) -= S(scale);
      }
    });
  }

  /// log sum_v exp(l_v) of the logits l [V] of one token.
  static S log_sum_exp(VectorIn<S> logits_t) {
    using std::log;
    const S largest = logits_t.maxCoeff();
    return largest + log((logits_t.array() - largest).exp().sum());
  }

 private:
  /// A tile is small, and a token of it is V exponentials: tasks are finer than elsewhere.
  static constexpr Index tokens_per_task = 16;

  static Index target(Targets targets, Index t) { return targets[static_cast<std::size_t>(t)]; }

  static void require_targets(const char* what, MatrixIn<S> logits, Targets targets) {
    require(static_cast<Index>(targets.size()) == logits.cols(), what, ": ", targets.size(),
            " targets for ", logits.cols(), " columns of logits");
    for (Index t = 0; t < logits.cols(); ++t)
      require(target(targets, t) >= 0 && target(targets, t) < logits.rows(), what,
              ": the target at position ", t, " is ", target(targets, t),
              ", expected 0 to V - 1 with V = ", logits.rows());
  }
};

}  // namespace ttt
