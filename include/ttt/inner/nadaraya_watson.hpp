/// @file
/// The nonparametric learner of the paper's Theorem 2: the Nadaraya-Watson estimator with kernel
/// exp(k . q) over the tokens so far, which is softmax attention without a scale:
///   z_t = sum_{s<=t} exp(k_s . q_t) v_s / sum_{s<=t} exp(k_s . q_t)
/// Source: Sun et al. 2024 (arXiv 2407.04620), Theorem 2.
#pragma once

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// K, Q, V, Z [f, T].
template <Scalar S>
void nadaraya_watson(MatrixIn<S> K, MatrixIn<S> Q, MatrixIn<S> V, MatrixOut<S> Z) {
  for (Index t = 0; t < Q.cols(); ++t) {
    Vector<S> weights = K.leftCols(t + 1).transpose() * Q.col(t);
    weights = (weights.array() - weights.maxCoeff()).exp();  // the maximum cancels in the quotient
    Z.col(t).noalias() = V.leftCols(t + 1) * weights;
    Z.col(t) /= weights.sum();
  }
}

}  // namespace ttt
