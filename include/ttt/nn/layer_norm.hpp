/// @file
/// Layer norm (Ba, Kiros, Hinton 2016, arXiv 1607.06450) over the D rows of every token:
///   m = mean(x)    r = 1 / sqrt(mean((x - m)^2) + epsilon)    n = (x - m) r    y = w o n + b
/// (biased variance). Differentiates, with g = w o dy, to
///   dx = r (g - mean(g) - n mean(g o n))     dw = dy o n,  db = dy  (summed over the tokens)
#pragma once

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/moments.hpp"
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
      for (Index t = begin; t < begin + size; ++t)
        token_backward(dy.col(t), x.col(t), weight, epsilon, dx.col(t), sums);
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
    const Moments<S> moments(x_t.data(), x_t.size(), epsilon, true);
    const S *x = x_t.data(), *w = weight.data(), *b = bias.data();
    S *const y = y_t.data();
    each_lane<S>(x_t.size(),
                 [&](auto at) { at.store(y, moments.normalize(at(x)) * at(w) + at(b)); });
  }

 private:
  /// Adds into the columns of `sums`: dw and db.
  static void token_backward(VectorIn<S> dy_t, VectorIn<S> x_t, VectorIn<S> weight, double epsilon,
                             VectorOut<S> dx_t, MatrixOut<S> &sums) {
    const Index rows = x_t.size();
    const Moments<S> moments(x_t.data(), rows, epsilon, true);
    const S *dy = dy_t.data(), *x = x_t.data(), *w = weight.data();
    S *dx = dx_t.data(), *dw = sums.col(0).data(), *db = sums.col(1).data();
    Sum<S> sum_g, sum_gn;
    each_lane<S>(rows, [&](auto at) {
      const auto n = moments.normalize(at(x)), g = at(w) * at(dy);
      sum_g += g;
      sum_gn += g * n;
      at.add(dw, at(dy) * n);
      at.add(db, at(dy));
    });
    const S mean_g = moments.mean_of(sum_g), mean_gn = moments.share * sum_gn.total();
    each_lane<S>(rows, [&](auto at) {
      const auto n = moments.normalize(at(x)), g = at(w) * at(dy);
      at.store(dx, moments.inverse_s * (g - mean_g - n * mean_gn));
    });
  }
};

}  // namespace ttt
