/// @file
/// What is applied to a head's q and k before the inner loop, token by token:
///   NoFeatureMap     y = x
///   L2Normalized     y = x / sqrt(|x|^2 + 1e-6)        Gated DeltaNet, arXiv 2412.06464
///   EluPlusOne       y = x + 1 where x > 0, else e^x   Katharopoulos, arXiv 2006.16236
///   SiLUNormalized   y = L2Normalized(silu(x))         DeltaNet, arXiv 2406.06484
///   ReLUFeatures     y = max(0, x)
/// Shapes: x, y, dx, dy [f, n]; dx is overwritten; no argument may be the memory of another.
#pragma once

#include <cmath>

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

/// One interface, a column at a time, so that any split of a stream gives the same features.
template <class F, class S>
concept FeatureMap = requires(MatrixIn<S> in, MatrixOut<S> out) {
  F::template forward<S>(in, out);
  F::template backward<S>(in, in, out);
};

struct NoFeatureMap {
  template <Scalar S>
  static void forward(MatrixIn<S> x, MatrixOut<S> y) {
    y = x;
  }
  template <Scalar S>
  static void backward(MatrixIn<S>, MatrixIn<S> dy, MatrixOut<S> dx) {
    dx = dy;
  }
};

struct L2Normalized {
  static constexpr double epsilon = 1e-6;

  template <Scalar S>
  static void forward(MatrixIn<S> x, MatrixOut<S> y) {
    for (Index t = 0; t < x.cols(); ++t)
      y.col(t) = inverse_norm(S(x.col(t).squaredNorm())) * x.col(t);
  }
  /// With r = 1 / sqrt(|x|^2 + epsilon): dx = r (dy - r^2 <x, dy> x)
  template <Scalar S>
  static void backward(MatrixIn<S> x, MatrixIn<S> dy, MatrixOut<S> dx) {
    for (Index t = 0; t < x.cols(); ++t) {
      const S r = inverse_norm(S(x.col(t).squaredNorm()));
      const S along = r * r * x.col(t).dot(dy.col(t));
      dx.col(t) = r * (dy.col(t) - along * x.col(t));
    }
  }

  template <Scalar S>
  static S inverse_norm(S squares) {
    using std::sqrt;
    return S(1) / sqrt(squares + S(epsilon));
  }
};

struct EluPlusOne {
  template <Scalar S>
  static void forward(MatrixIn<S> x, MatrixOut<S> y) {
    y = (x.array() > S(0)).select(x.array() + S(1), x.array().exp());
  }
  template <Scalar S>
  static void backward(MatrixIn<S> x, MatrixIn<S> dy, MatrixOut<S> dx) {
    dx = (x.array() > S(0)).select(dy.array(), dy.array() * x.array().exp());
  }
};

struct SiLUNormalized {
  template <Scalar S>
  static void forward(MatrixIn<S> x, MatrixOut<S> y) {
    SiLU::value<S>(x, y);
    for (Index t = 0; t < x.cols(); ++t)
      y.col(t) *= L2Normalized::inverse_norm(S(y.col(t).squaredNorm()));
  }
  /// z = x sigma, then as L2Normalized in z, then silu' = sigma (1 + x (1 - sigma))
  template <Scalar S>
  static void backward(MatrixIn<S> x, MatrixIn<S> dy, MatrixOut<S> dx) {
    SiLU::sigmoid<S>(x, dx);
    for (Index t = 0; t < x.cols(); ++t) {
      const auto x_t = x.col(t).array(), dy_t = dy.col(t).array();
      auto sigma = dx.col(t).array();  // each element is read before it becomes dx
      const S r = L2Normalized::inverse_norm(S((x_t * sigma).square().sum()));
      const S along = r * r * (x_t * sigma * dy_t).sum();
      sigma = r * (dy_t - along * x_t * sigma) * sigma * (S(1) + x_t * (S(1) - sigma));
    }
  }
};

/// The derivative at 0 is 0.
struct ReLUFeatures {
  template <Scalar S>
  static void forward(MatrixIn<S> x, MatrixOut<S> y) {
    ReLU::value<S>(x, y);
  }
  template <Scalar S>
  static void backward(MatrixIn<S> x, MatrixIn<S> dy, MatrixOut<S> dx) {
    dx = (x.array() > S(0)).select(dy.array(), S(0));
  }
};

}  // namespace ttt
