/// @file
/// The inner learning rate of the published layers. For the token at place i of its mini-batch
///   lr  = scale * base / f * sigma(a . x + c)     per head, from the layer's input x
///   tau = max(0, 1/(i+1) + token_idx_i)           per place, shared by all heads
/// and the gradient of token s enters the weights of token t >= s with E(s, t) = lr_s tau_t.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7, and the official code (TTT layers).
#pragma once

#include <algorithm>

#include "ttt/core/product.hpp"
#include "ttt/core/scalar.hpp"

namespace ttt {

template <Scalar S>
struct InnerRate {
  /// tau [b] from the learned offsets token_idx [b].
  static void token_factors(VectorIn<S> token_idx, VectorOut<S> tau) {
    for (Index i = 0; i < tau.size(); ++i)
      tau[i] = std::max(S(0), S(1) / static_cast<S>(i + 1) + token_idx[i]);
  }

  /// Adds into d_token_idx; a clamped factor passes nothing on.
  static void token_factors_backward(VectorIn<S> tau, VectorIn<S> d_tau, VectorOut<S> d_token_idx) {
    for (Index i = 0; i < tau.size(); ++i)
      if (tau[i] > S(0)) d_token_idx[i] += d_tau[i];
  }

  /// r = a' x + c, what a rate policy reads (rate_policies.hpp): x [D, T], a [D, H], c [1, H],
  /// r [H, T].
  static void project(MatrixIn<S> x, MatrixIn<S> a, MatrixIn<S> c, MatrixOut<S> r) {
    Product<S>::atb(a, x, r);
    for (Index t = 0; t < r.cols(); ++t)
      for (Index h = 0; h < r.rows(); ++h) r(h, t) += c(0, h);
  }

  /// Given dr [H, T]: adds into dx, d_a and d_c.
  static void project_backward(MatrixIn<S> x, MatrixIn<S> a, MatrixIn<S> dr, MatrixOut<S> dx,
                               MatrixOut<S> d_a, MatrixOut<S> d_c) {
    if (dr.cols() == 0) return;  // a row of no columns has no address
    Product<S>::add_abt(x, dr, d_a);
    d_c += dr.rowwise().sum().transpose();
    Product<S>::add_ab(a, dr, dx);
  }

  /// One token: x_t [D], r_t [H].
  static void step(VectorIn<S> x_t, MatrixIn<S> a, MatrixIn<S> c, VectorOut<S> r_t) {
    Product<S>::atb_column(a, x_t, r_t);
    for (Index h = 0; h < r_t.size(); ++h) r_t[h] += c(0, h);
  }
};

}  // namespace ttt
