/// @file
/// The inner loop as the paper writes it, one token at a time, every gradient explicit:
///   loss      l(W; k, v) = 1/2 |f(k; W) - v|^2              self-supervised loss
///   gradient  G = grad_W l(W; k, v)
///   update    W <- W - eta G                                update rule
///   output    z = f(q; W)                                   output rule
/// and the primal form of a chunk, W_t = W_0 - sum_{s<=t} E[s,t] G_s, G_s taken at W_0.
/// With a `PlainStack`, k a corrupted token and v = q = x the token itself, these are the paper's
/// introductory form without projections: l = |f(x~; W) - x|^2 (which has no factor 1/2: use half
/// the rate). Readable first; dual_form.hpp computes the same numbers fast.
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.1 to 2.4.
#pragma once

#include "ttt/inner/stack.hpp"

namespace ttt {

template <Scalar S, InnerModel M>
struct InnerLoop {
  static constexpr std::size_t depth = stack_depth<M>;
  using Weights = HeadWeights<S, depth>;
  using ConstWeights = HeadWeights<const S, depth>;
  using Levels = std::array<Vector<S>, depth>;

  /// l(W; k, v); k, v [f].
  static S loss(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k, VectorIn<S> v) {
    Levels A, Z, g;
    evaluate(W, k, A, Z, g);
    return M::Output::template loss<S>(Z[depth - 1], k, v, norm);
  }

  /// Overwrites G with the gradient of `loss` in every weight.
  static void gradient(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k, VectorIn<S> v,
                       Weights G) {
    Levels A, Z, g;
    evaluate(W, k, A, Z, g);
    Vector<S> delta(k.size());  // dl/dZ of the level, from the top down
    M::Output::template gradient<S>(Z[depth - 1], k, v, norm, delta);
    for (std::size_t l = depth; l-- > 0;) {
      G.W[l].noalias() = delta * A[l].transpose();
      if (M::has_bias) G.b[l] = delta;
      if (l > 0) delta = (W.W[l].transpose() * delta).cwiseProduct(g[l - 1]).eval();
    }
  }

  /// W <- W - eta G
  static void update(Weights W, S eta, const ConstWeights& G) {
    for (std::size_t l = 0; l < depth; ++l) {
      W.W[l] -= eta * G.W[l];
      if (M::has_bias) W.b[l] -= eta * G.b[l];
    }
  }

  /// z = f(q; W); q, z [f].
  static void output(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> q,
                     VectorOut<S> z) {
    Levels A, Z, g;
    evaluate(W, q, A, Z, g);
    M::Output::template output<S>(Z[depth - 1], q, norm, z);
  }

  /// The primal form of one chunk of n tokens: K, Q, V [f, n]; E [n, n], E(s, t) the weight of
  /// token s's gradient at token t >= s. Writes the outputs O [f, n] and leaves W_n, the weights
  /// after the last token, in W.
  static void primal_form(Weights W, const HeadNorm<S>& norm, MatrixIn<S> K, MatrixIn<S> Q,
                          MatrixIn<S> V, MatrixIn<S> E, MatrixOut<S> O) {
    const Index n = K.cols(), head_width = K.rows();
    StackWeights<S, M> W_0 = StackWeights<S, M>::zero(1, head_width), W_t = W_0;
    copy_weights(W, W_0.head(0));
    std::vector<StackWeights<S, M>> G(static_cast<std::size_t>(n), W_t);
    for (Index t = 0; t < n; ++t) {
      gradient(as_const(W_0).head(0), norm, K.col(t), V.col(t), G[t].head(0));
      copy_weights(W_0.head(0), W_t.head(0));
      for (Index s = 0; s <= t; ++s) update(W_t.head(0), E(s, t), as_const(G[s]).head(0));
      output(as_const(W_t).head(0), norm, Q.col(t), O.col(t));
    }
    copy_weights(W_t.head(0), W);
  }

 private:
  static const StackWeights<S, M>& as_const(const StackWeights<S, M>& weights) { return weights; }

  /// A_1 = a, Z_l = W_l A_l + b_l, A_{l+1} = s(Z_l), g_l = s'(Z_l).
  static void evaluate(const ConstWeights& W, VectorIn<S> a, Levels& A, Levels& Z, Levels& g) {
    A[0] = a;
    for (std::size_t l = 0; l < depth; ++l) {
      Z[l] = W.W[l] * A[l];
      if (M::has_bias) Z[l] += W.b[l];
      if (l + 1 == depth) return;
      A[l + 1].resize(Z[l].size());
      g[l].resize(Z[l].size());
      M::Activation::template inner_gradient<S>(Z[l], A[l + 1], g[l]);
    }
  }
};

}  // namespace ttt
