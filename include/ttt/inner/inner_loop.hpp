/// @file
/// The inner loop as the paper writes it, one token at a time, every gradient explicit:
///   loss      l(W; k, v) = 1/2 |f(k; W) - v|^2              self-supervised loss
///   gradient  G = grad_W l(W; k, v)
///   update    W <- W - eta G                                update rule
///   output    z = f(q; W)                                   output rule
/// and the primal form of a chunk, W_t = W_0 - sum_{s<=t} E[s,t] G_s, G_s taken at W_0.
/// With a `PlainStack`, k a corrupted token and v = q = x the token itself, these are the paper's
/// introductory form without projections: l = |f(x~; W) - x|^2 (which has no factor 1/2: use half
/// the rate). For every inner model; the dual form (dual_form.hpp) computes a stack's numbers fast.
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.1 to 2.4.
#pragma once

#include <vector>

#include "ttt/inner/dual_form.hpp"

namespace ttt {

template <Scalar S, InnerModel M>
struct InnerLoop {
  static constexpr std::size_t count = M::weight_count;
  using Form = ChunkForm<S, M>;
  using Weights = HeadWeights<S, count>;
  using ConstWeights = HeadWeights<const S, count>;

  /// l(W; k, v); k, v [f].
  static S loss(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k, VectorIn<S> v) {
    return M::Output::template loss<S>(top(W, norm, k), k, v, norm);
  }

  /// Overwrites G with the gradient of `loss` in every weight.
  static void gradient(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k, VectorIn<S> v,
                       Weights G) {
    typename Form::Trace trace;
    set_zero(G);
    Form::add_gradient(W, norm, k, v, G, trace);
  }

  /// W <- W - eta G
  static void update(Weights W, S eta, const ConstWeights& G) {
    for (std::size_t l = 0; l < count; ++l) {
      W.W[l] -= eta * G.W[l];
      W.b[l] -= eta * G.b[l];
    }
  }

  /// z = f(q; W); q, z [f].
  static void output(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> q,
                     VectorOut<S> z) {
    M::Output::template output<S>(top(W, norm, q), q, norm, z);
  }

  /// The primal form of one chunk of n tokens: K, Q, V [f, n]; E [n, n], E(s, t) the weight of
  /// token s's gradient at token t >= s. Writes the outputs O [f, n] and leaves W_n, the weights
  /// after the last token, in W.
  static void primal_form(Weights W, const HeadNorm<S>& norm, MatrixIn<S> K, MatrixIn<S> Q,
                          MatrixIn<S> V, MatrixIn<S> E, MatrixOut<S> O) {
    const Index n = K.cols(), head_width = K.rows();
    InnerWeights<S, M> W_0 = InnerWeights<S, M>::zero(1, head_width), W_t = W_0;
    copy_weights(W, W_0.head(0));
    std::vector<InnerWeights<S, M>> G(static_cast<std::size_t>(n), W_t);
    for (Index t = 0; t < n; ++t) {
      gradient(std::as_const(W_0).head(0), norm, K.col(t), V.col(t), G[t].head(0));
      copy_weights(W_0.head(0), W_t.head(0));
      for (Index s = 0; s <= t; ++s) update(W_t.head(0), E(s, t), std::as_const(G[s]).head(0));
      output(std::as_const(W_t).head(0), norm, Q.col(t), O.col(t));
    }
    copy_weights(W_t.head(0), W);
  }

 private:
  /// What the model makes of one token, before the output rule.
  static Vector<S> top(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> x) {
    typename Form::Trace trace;
    Matrix<S> z;
    Form::predict(W, norm, x, z, trace);
    return z;
  }
};

}  // namespace ttt
