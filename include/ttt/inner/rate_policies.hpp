/// @file
/// From a token's raw projection r_t = a.x_t + c to its inner learning rate, for one head:
///   ConstantRate   theta = 1
///   SigmoidRate    theta = sigma(r)                    Sun et al. 2024 (arXiv 2407.04620), 2.7
///   SoftplusRate   theta = softplus(r)                 as Mamba's step size (arXiv 2312.00752)
///   ProximalRate   theta = beta / (1 + beta k.k), beta = sigma(r)   Longhorn (arXiv 2407.14207)
/// Shapes: r, theta and their adjoints [n]; K, dK [f, n]. A policy of one's own is a struct with
/// these two functions and two constants.
#pragma once

#include <concepts>

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

/// One interface, so that a layer knows by two constants which projections it must have.
/// `reads_input`: r is read. `reads_keys`: K is read. What is not read may be empty.
/// `backward` takes theta as `forward` left it, overwrites d_r and adds into dK.
template <class P, class S>
concept RatePolicy = requires(VectorIn<S> in, MatrixIn<S> K, VectorOut<S> out, MatrixOut<S> dK) {
  { P::reads_input } -> std::convertible_to<bool>;
  { P::reads_keys } -> std::convertible_to<bool>;
  P::template forward<S>(in, K, out);
  P::template backward<S>(in, K, in, in, out, dK);
};

/// theta = 1: the scale of the layer's rate is all there is.
struct ConstantRate {
  static constexpr bool reads_input = false, reads_keys = false;

  template <Scalar S>
  static void forward(VectorIn<S>, MatrixIn<S>, VectorOut<S> theta) {
    theta.setOnes();
  }
  template <Scalar S>
  static void backward(VectorIn<S>, MatrixIn<S>, VectorIn<S>, VectorIn<S>, VectorOut<S> d_r,
                       MatrixOut<S>) {
    d_r.setZero();
  }
};

/// theta = sigma(r): what the published layers use.
struct SigmoidRate {
  static constexpr bool reads_input = true, reads_keys = false;

  template <Scalar S>
  static void forward(VectorIn<S> r, MatrixIn<S>, VectorOut<S> theta) {
    SiLU::sigmoid<S>(r, theta);
  }
  template <Scalar S>
  static void backward(VectorIn<S>, MatrixIn<S>, VectorIn<S> theta, VectorIn<S> d_theta,
                       VectorOut<S> d_r, MatrixOut<S>) {
    d_r.array() = d_theta.array() * theta.array() * (S(1) - theta.array());
  }
};

/// theta = log(1 + e^r), computed without overflow.
struct SoftplusRate {
  static constexpr bool reads_input = true, reads_keys = false;

  template <Scalar S>
  static void forward(VectorIn<S> r, MatrixIn<S>, VectorOut<S> theta) {
    theta.array() = (-r.array().abs()).exp().log1p() + r.array().max(S(0));
  }
  /// softplus' = sigma
  template <Scalar S>
  static void backward(VectorIn<S> r, MatrixIn<S>, VectorIn<S>, VectorIn<S> d_theta,
                       VectorOut<S> d_r, MatrixOut<S>) {
    SiLU::sigmoid<S>(r, d_r);
    d_r.array() *= d_theta.array();
  }
};

/// The rate with which one step of gradient descent on |W k - v|^2 / 2 lands where the proximal
/// step does, at the minimum over W' of |W' - W|^2 + beta |W' k - v|^2: never too long a step.
struct ProximalRate {
  static constexpr bool reads_input = true, reads_keys = true;

  template <Scalar S>
  static void forward(VectorIn<S> r, MatrixIn<S> K, VectorOut<S> theta) {
    SiLU::sigmoid<S>(r, theta);
    for (Index t = 0; t < theta.size(); ++t) theta[t] /= S(1) + theta[t] * K.col(t).squaredNorm();
  }
  /// dtheta/dr = beta (1 - beta) / (1 + beta k.k)^2,  dtheta/dk = -2 theta^2 k
  template <Scalar S>
  static void backward(VectorIn<S> r, MatrixIn<S> K, VectorIn<S> theta, VectorIn<S> d_theta,
                       VectorOut<S> d_r, MatrixOut<S> dK) {
    SiLU::sigmoid<S>(r, d_r);
    for (Index t = 0; t < theta.size(); ++t) {
      const S beta = d_r[t], divisor = S(1) + beta * K.col(t).squaredNorm();
      d_r[t] = d_theta[t] * beta * (S(1) - beta) / (divisor * divisor);
      dK.col(t) -= S(2) * d_theta[t] * theta[t] * theta[t] * K.col(t);
    }
  }
};

}  // namespace ttt
