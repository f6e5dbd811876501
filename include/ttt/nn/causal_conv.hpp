/// @file
/// Depthwise causal convolution over time, with a state. With the inputs u = [tail, x], where the
/// tail is the last K-1 inputs before x (zero at the start of a stream), and taps w_j [D]:
///   y_t = b + sum_j w_j o u_(t+j),  j = 0..K-1        tail after = the last K-1 columns of u
/// (TTT paper's code: the convolutions of the Mamba backbone.) Differentiates to
///   du_s = sum_j w_j o dy_(s-j) + d(tail after)_(s-T)     dw_j = sum_t dy_t o u_(t+j)
/// whose first K-1 columns are the adjoint of the tail before, the rest dx. Sums run from late to
/// early tokens, so that cutting T into pieces adds the same numbers in the same order.
#pragma once

#include <algorithm>

#include "ttt/core/check.hpp"
#include "ttt/core/lanes.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/transpose.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/token_sums.hpp"

namespace ttt {

/// Shapes: x, y, dx, dy [D, T], any T >= 0; weight, d_weight [K, D], K >= 1; bias, d_bias [D], or
/// empty: no bias; tail, d_tail [D, K-1], oldest token first.
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct CausalConv {
  /// Writes y, which may not overlap x, and advances `tail` by the T tokens.
  static void forward(MatrixIn<S> x, MatrixIn<S> weight, VectorIn<S> bias, MatrixOut<S> tail,
                      MatrixOut<S> y) {
    require_shapes("CausalConv.forward", x, weight, bias, tail);
    require_shape("CausalConv.forward: y", y, x.rows(), x.cols());
    const Matrix<S> taps = transposed(weight);
    const MatrixView<S> before(tail);
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) {
        start(bias, y.col(t));
        for (Index j = 0; j < taps.cols(); ++j)
          add_product(x.rows(), taps.col(j).data(), input(before, x, t + j), y.col(t).data());
      }
    });
    // Ascending: a column is read before it is overwritten.
    for (Index s = 0; s < tail.cols(); ++s)
      std::copy_n(input(before, x, s + x.cols()), x.rows(), tail.col(s).data());
  }

  /// `tail_before`: as forward found it. d_tail: adjoint of the tail after in, of the tail before
  /// out. Overwrites dx, which may not overlap dy; ADDS into d_weight and d_bias.
  static void backward(MatrixIn<S> dy, MatrixIn<S> x, MatrixIn<S> tail_before, MatrixIn<S> weight,
                       MatrixOut<S> d_tail, MatrixOut<S> dx, MatrixOut<S> d_weight,
                       VectorOut<S> d_bias) {
    require_shapes("CausalConv.backward", x, weight, d_bias, tail_before);
    require_shape("CausalConv.backward: dy", dy, x.rows(), x.cols());
    require_shape("CausalConv.backward: dx", dx, x.rows(), x.cols());
    require_shape("CausalConv.backward: d_tail", d_tail, x.rows(), tail_before.cols());
    require_shape("CausalConv.backward: d_weight", d_weight, weight.rows(), weight.cols());
    const Matrix<S> taps = transposed(weight);
    const Index past = d_tail.cols();
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t)
        input_adjoint(dy, taps, d_tail, past + t, dx.col(t));
    });
    // After dx, which reads d_tail; descending: a column is read before it is overwritten.
    for (Index s = past - 1; s >= 0; --s) input_adjoint(dy, taps, d_tail, s, d_tail.col(s));
    add_parameter_gradients(dy, x, tail_before, d_weight, d_bias);
  }

  /// One token: x_t, y_t [D], which may not overlap. Allocates nothing.
  static void step(VectorIn<S> x_t, MatrixIn<S> weight, VectorIn<S> bias, MatrixOut<S> tail,
                   VectorOut<S> y_t) {
    const Index past = tail.cols();
    eigen_assert(weight.rows() == past + 1 && weight.cols() == x_t.size());
    eigen_assert(tail.rows() == x_t.size() && y_t.size() == x_t.size());
    start(bias, y_t);
    for (Index i = 0; i < x_t.size(); ++i) {
      for (Index j = 0; j < past; ++j) y_t[i] += weight(j, i) * tail(i, j);
      y_t[i] += weight(past, i) * x_t[i];
    }
    for (Index s = 0; s < past; ++s)
      std::copy_n(s + 1 < past ? &tail(0, s + 1) : x_t.data(), x_t.size(), &tail(0, s));
  }

 private:
  static void require_shapes(const char* what, MatrixIn<S> x, MatrixIn<S> weight, VectorIn<S> bias,
                             MatrixIn<S> tail) {
    require(weight.rows() >= 1 && weight.cols() == x.rows(), what, ": weight has shape ",
            weight.rows(), " x ", weight.cols(), ", expected K x ", x.rows(), " with K >= 1");
    require(bias.size() == 0 || bias.size() == x.rows(), what, ": bias has ", bias.size(),
            " elements, expected ", x.rows(), " or none");
    require(tail.rows() == x.rows() && tail.cols() == weight.rows() - 1, what, ": tail has shape ",
            tail.rows(), " x ", tail.cols(), ", expected ", x.rows(), " x ", weight.rows() - 1);
  }

  /// [D, K]: a tap of all channels lies together.
  static Matrix<S> transposed(MatrixIn<S> weight) {
    Matrix<S> taps(weight.cols(), weight.rows());
    detail::transpose<S>(weight, taps.data());
    return taps;
  }

  /// u_s: column s of [tail, x].
  static const S* input(MatrixIn<S> tail, MatrixIn<S> x, Index s) {
    return s < tail.cols() ? tail.col(s).data() : x.col(s - tail.cols()).data();
  }

  /// y += a o b
  static void add_product(Index rows, const S* a, const S* b, S* y) {
    each_lane<S>(rows, [&](auto at) { at.add(y, at(a) * at(b)); });
  }

  static void start(VectorIn<S> bias, VectorOut<S> y_t) {
    if (bias.size() == 0) {
      y_t.setZero();
    } else {
      std::copy_n(bias.data(), bias.size(), y_t.data());
    }
  }

  /// du_s = d_tail_(s-T) + sum_j w_j o dy_(s-j), as far as these exist; du_s may be column s of
  /// d_tail.
  static void input_adjoint(MatrixIn<S> dy, MatrixIn<S> taps, MatrixIn<S> d_tail, Index s,
                            VectorOut<S> du_s) {
    if (s >= dy.cols()) {
      du_s = d_tail.col(s - dy.cols());
    } else {
      du_s.setZero();
    }
    for (Index j = std::max<Index>(0, s - dy.cols() + 1); j <= std::min(s, taps.cols() - 1); ++j)
      add_product(du_s.size(), taps.col(j).data(), dy.col(s - j).data(), du_s.data());
  }

  static void add_parameter_gradients(MatrixIn<S> dy, MatrixIn<S> x, MatrixIn<S> tail,
                                      MatrixOut<S> d_weight, VectorOut<S> d_bias) {
    const Index taps = d_weight.rows();
    const bool has_bias = d_bias.size() > 0;
    const auto block = [&](Index begin, Index size, MatrixOut<S> sums) {
      for (Index t = begin; t < begin + size; ++t) {
        for (Index j = 0; j < taps; ++j)
          add_product(x.rows(), dy.col(t).data(), input(tail, x, t + j), sums.col(j).data());
        if (has_bias) sums.col(taps) += dy.col(t);
      }
    };
    const Matrix<S> sums = sum_over_tokens<S>(x.cols(), x.rows(), taps + has_bias, block);
    d_weight += sums.leftCols(taps).transpose();
    if (has_bias) d_bias += sums.col(taps);
  }
};

}  // namespace ttt
