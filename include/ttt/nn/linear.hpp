/// @file
/// Linear map without bias: y = W' x for every token, with W [in, out] (the bytes of a PyTorch
/// weight [out, in]). Differentiates to
///   dx = W dy        dW = x dy'  (summed over the tokens)
#pragma once

#include "ttt/core/check.hpp"
#include "ttt/core/product.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

/// Shapes: x, dx [in, T]; y, dy [out, T]; weight, d_weight [in, out].
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct Linear {
  /// y = W' x
  static void forward(MatrixIn<S> x, MatrixIn<S> weight, MatrixOut<S> y) {
    require_shape("Linear.forward: x", x, weight.rows(), x.cols());
    require_shape("Linear.forward: y", y, weight.cols(), x.cols());
    Product<S>::atb(weight, x, y);
  }

  /// dx = W dy
  static void backward_input(MatrixIn<S> dy, MatrixIn<S> weight, MatrixOut<S> dx) {
    require_shape("Linear.backward_input: dy", dy, weight.cols(), dy.cols());
    require_shape("Linear.backward_input: dx", dx, weight.rows(), dy.cols());
    Product<S>::ab(weight, dy, dx);
  }

  /// dx += W dy
  static void add_backward_input(MatrixIn<S> dy, MatrixIn<S> weight, MatrixOut<S> dx) {
    require_shape("Linear.add_backward_input: dy", dy, weight.cols(), dy.cols());
    require_shape("Linear.add_backward_input: dx", dx, weight.rows(), dy.cols());
    Product<S>::add_ab(weight, dy, dx);
  }

  /// dW += x dy'
  static void backward_weight(MatrixIn<S> dy, MatrixIn<S> x, MatrixOut<S> d_weight) {
    require_shape("Linear.backward_weight: x", x, x.rows(), dy.cols());
    require_shape("Linear.backward_weight: d_weight", d_weight, x.rows(), dy.rows());
    Product<S>::add_abt(x, dy, d_weight);
  }

  /// One token: x_t [in], y_t [out], which may not overlap. Allocates nothing.
  static void step(VectorIn<S> x_t, MatrixIn<S> weight, VectorOut<S> y_t) {
    eigen_assert(x_t.size() == weight.rows() && y_t.size() == weight.cols());
    y_t.noalias() = weight.transpose() * x_t;
  }
};

}  // namespace ttt
