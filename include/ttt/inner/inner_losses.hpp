/// @file
/// How well the inner model knows each token: its self-supervised loss l(W; k_t, v_t), on request,
/// at four weights. W is what the mini-batch of token t starts from, and
///   W_t = W - tau_t sum_{s<=t} lr_s G_s,   G_s = grad l(W; k_s, v_s)    (of the mini-batch)
///   initial  l(W_0)      what the outer loop gave
///   border   l(W)        at the last border
///   before   l(W_{t-1})  after the token before
///   after    l(W_t)      after learning from t
/// W_{t-1} is W for the first token of a mini-batch. The primal form (inner_loop.hpp): readable and
/// slow, some ten times a forward; for studies, never part of running.
/// Source: Sun et al. 2024 (arXiv 2407.04620), the losses of figure 4.
#pragma once

#include "ttt/inner/inner_loop.hpp"

namespace ttt {

/// A row for each head, a column for each token: [H, T].
template <Scalar S>
struct InnerLosses {
  Matrix<S> initial, border, before, after;

  static auto fields(auto& self) {
    return std::tuple(field("initial", self.initial), field("border", self.border),
                      field("before", self.before), field("after", self.after));
  }
};

/// The mini-batch of one head, walked token by token. A walk may begin inside it.
template <Scalar S, InnerModel M>
class InnerLossWalk {
 public:
  using Loop = InnerLoop<S, M>;
  using ConstWeights = typename Loop::ConstWeights;

  /// The four losses of one token.
  struct Losses {
    S initial, border, before, after;
  };

  /// `W_0` and `W` must outlive the walk.
  InnerLossWalk(const ConstWeights& W_0, const ConstWeights& W, const HeadNorm<S>& norm,
                Index head_width)
      : W_0_(W_0),
        W_(W),
        norm_(norm),
        G_(InnerWeights<S, M>::zero(1, head_width)),
        R_(G_),
        W_t_(G_) {
    assign(W_t_, W);
  }

  /// Continues after earlier tokens of the mini-batch, the last of which had the factor `tau`;
  /// `sums` is what they added up to, sum_s lr_s G_s.
  void resume(const ConstWeights& sums, S tau) {
    assign(R_, sums);
    move(tau);
  }

  /// Learns from the next token: k, v [f], its rate lr_t and factor tau_t.
  Losses token(VectorIn<S> k, VectorIn<S> v, S rate, S tau) {
    Losses losses;
    losses.initial = Loop::loss(W_0_, norm_, k, v);
    losses.border = Loop::loss(W_, norm_, k, v);
    losses.before = Loop::loss(weights(), norm_, k, v);
    Loop::gradient(W_, norm_, k, v, G_.head(0));
    Loop::update(R_.head(0), -rate, std::as_const(G_).head(0));  // R <- R + lr_t G_t
    move(tau);
    losses.after = Loop::loss(weights(), norm_, k, v);
    return losses;
  }

  /// W_t, the weights after the last token.
  ConstWeights weights() const { return W_t_.head(0); }

 private:
  /// W_t = W - tau R
  void move(S tau) {
    assign(W_t_, W_);
    Loop::update(W_t_.head(0), tau, std::as_const(R_).head(0));
  }

  static void assign(InnerWeights<S, M>& to, const ConstWeights& from) {
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      to.W[l] = from.W[l];
      to.b[l] = from.b[l];
    }
  }

  const ConstWeights W_0_, W_;
  const HeadNorm<S> norm_;
  InnerWeights<S, M> G_, R_, W_t_;
};

}  // namespace ttt
