/// @file
/// Layer norm (Ba, Kiros, Hinton 2016, arXiv 1607.06450) over the D rows of every token:
///   m = mean(x)    r = 1 / sqrt(mean((x - m)^2) + epsilon)    n = (x - m) r    y = w o n + b
/// (biased variance). Differentiates, with g = w o dy, to
///   dx = r (g - mean(g) - n mean(g o n))     dw = dy o n,  db = dy  (summed over the tokens)
#pragma once

#include <cmath>

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"
#include "ttt/nn/token_sums.hpp"

namespace ttt {

/// Shapes: x, y, dx, dy [D, T]; weight, bias, d_weight, d_bias [D].
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct LayerNorm {
  /// y = w o n + b; y may not overlap x.
  static void forward(MatrixIn<S> x, VectorIn<S> weight, VectorIn<S> bias, double epsilon,
                      MatrixOut<S> y) {
    require_shape("LayerNorm.forward: weight", weight, x.rows(), 1);
    require_shape("LayerNorm.forward: bias", bias, x.rows(), 1);
    require_shape("LayerNorm.forward: y", y, x.rows(), x.cols());
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) step(x.col(t), weight, bias, epsilon, y.col(t));
    });
  }

  /// Overwrites dx, which may not overlap dy or x; ADDS into d_weight and d_bias.
  static void backward(MatrixIn<S> dy, MatrixIn<S> x, VectorIn<S> weight, double epsilon,
                       MatrixOut<S> dx, VectorOut<S> d_weight, VectorOut<S> d_bias) {
    require_shape("LayerNorm.backward: weight", weight, x.rows(), 1);
    require_shape("LayerNorm.backward: dy", dy, x.rows(), x.cols());
    require_shape("LayerNorm.backward: dx", dx, x.rows(), x.cols());
    require_shape("LayerNorm.backward: d_weight", d_weight, x.rows(), 1);
    require_shape("LayerNorm.backward: d_bias", d_bias, x.rows(), 1);
    const auto block = [&](Index begin, Index size, MatrixOut<S> sums) {
      for (Index t = begin; t < begin + size; ++t) {
        const Moments moments(x.col(t), epsilon);
        const auto n = (x.col(t).array() - moments.mean) * moments.inverse_deviation;
        const auto g = weight.array() * dy.col(t).array();
        const S mean_g = g.sum() / S(x.rows());
        const S mean_gn = (g * n).sum() / S(x.rows());
        dx.col(t).array() = moments.inverse_deviation * (g - mean_g - n * mean_gn);
        sums.col(0).array() += dy.col(t).array() * n;
        sums.col(1) += dy.col(t);
      }
    };
    const Matrix<S> sums = sum_over_tokens<S>(x.cols(), x.rows(), 2, block);
    d_weight += sums.col(0);
    d_bias += sums.col(1);
  }

  /// One token: x_t, y_t [D]. Allocates nothing.
  static void step(VectorIn<S> x_t, VectorIn<S> weight, VectorIn<S> bias, double epsilon,
                   VectorOut<S> y_t) {
    eigen_assert(weight.size() == x_t.size() && bias.size() == x_t.size());
    eigen_assert(y_t.size() == x_t.size());
    const Moments moments(x_t, epsilon);
    y_t.array() =
        (x_t.array() - moments.mean) * moments.inverse_deviation * weight.array() + bias.array();
  }

 private:
  struct Moments {
    S mean;
    S inverse_deviation;

    /// The mean is summed as an expression and not as `x_t.sum()`, which begins at an aligned
    /// address and so would round differently in different places of memory.
    Moments(VectorIn<S> x_t, double epsilon) {
      using std::sqrt;
      const S share = S(1) / S(x_t.size());
      mean = (share * x_t.array()).sum();
      const S variance = share * (x_t.array() - mean).square().sum();
      inverse_deviation = S(1) / sqrt(variance + S(epsilon));
    }
  };
};

}  // namespace ttt
