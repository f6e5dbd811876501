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
#include "ttt/nn/activation.hpp"

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

  /// gate = sigma(a' x + c): x [D, T], a [D, H], c [1, H], gate [H, T].
  static void gate(MatrixIn<S> x, MatrixIn<S> a, MatrixIn<S> c, MatrixOut<S> gate) {
    Product<S>::atb(a, x, gate);
    gate.colwise() += c.transpose().col(0);
    SiLU::sigmoid<S>(gate, gate);
  }

  /// Given d_gate [H, T], which it overwrites: adds into dx, d_a and d_c.
  static void gate_backward(MatrixIn<S> x, MatrixIn<S> a, MatrixIn<S> gate, MatrixOut<S> d_gate,
                            MatrixOut<S> dx, MatrixOut<S> d_a, MatrixOut<S> d_c) {
    if (d_gate.cols() == 0) return;  // a row of no columns has no address
    d_gate.array() *= gate.array() * (S(1) - gate.array());
    Product<S>::add_abt(x, d_gate, d_a);
    d_c += d_gate.rowwise().sum().transpose();
    Product<S>::add_ab(a, d_gate, dx);
  }
};

}  // namespace ttt
