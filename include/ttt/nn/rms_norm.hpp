/// @file
/// Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4), for every token:
///   r = 1 / sqrt(mean(x^2) + epsilon)        y = w o x r
/// Differentiates, with g = w o dy, to
///   dx = r g - x r^3 mean(g o x)             dw = dy o x r  (summed over the tokens)
#pragma once

#include <cmath>

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/token_sums.hpp"

namespace ttt {

/// Shapes: x, y, dx, dy [D, T]; weight, d_weight [D].
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct RMSNorm {
  /// y = w o x r; y may not overlap x.
  static void forward(MatrixIn<S> x, VectorIn<S> weight, double epsilon, MatrixOut<S> y) {
    require_shape("RMSNorm.forward: weight", weight, x.rows(), 1);
    require_shape("RMSNorm.forward: y", y, x.rows(), x.cols());
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) step(x.col(t), weight, epsilon, y.col(t));
    });
  }

  /// ADDS into dx, because the norm stands beside a residual path, and into d_weight.
  static void add_backward(MatrixIn<S> dy, MatrixIn<S> x, VectorIn<S> weight, double epsilon,
                           MatrixOut<S> dx, VectorOut<S> d_weight) {
    require_shape("RMSNorm.add_backward: weight", weight, x.rows(), 1);
    require_shape("RMSNorm.add_backward: dy", dy, x.rows(), x.cols());
    require_shape("RMSNorm.add_backward: dx", dx, x.rows(), x.cols());
    require_shape("RMSNorm.add_backward: d_weight", d_weight, x.rows(), 1);
    const auto block = [&](Index begin, Index size, MatrixOut<S> sums) {
      for (Index t = begin; t < begin + size; ++t) {
        const auto x_t = x.col(t).array();
        const auto dy_t = dy.col(t).array();
        const S r = inverse_rms(x.col(t), epsilon);
        const S projection = r * r * r * (weight.array() * dy_t * x_t).sum() / S(x.rows());
        dx.col(t).array() += r * weight.array() * dy_t - projection * x_t;
        sums.col(0).array() += r * dy_t * x_t;
      }
    };
    d_weight += sum_over_tokens<S>(x.cols(), x.rows(), 1, block);
  }

  /// One token: x_t, y_t [D]. Allocates nothing.
  static void step(VectorIn<S> x_t, VectorIn<S> weight, double epsilon, VectorOut<S> y_t) {
    eigen_assert(weight.size() == x_t.size() && y_t.size() == x_t.size());
    y_t.array() = inverse_rms(x_t, epsilon) * weight.array() * x_t.array();
  }

 private:
  static S inverse_rms(VectorIn<S> x_t, double epsilon) {
    using std::sqrt;
    return S(1) / sqrt(x_t.squaredNorm() / S(x_t.size()) + S(epsilon));
  }
};

}  // namespace ttt
