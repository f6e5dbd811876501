/// @file
/// One token of the inner loop for streaming: the same numbers as the dual form with n = 1, by
/// matrix-vector products, on scratch of fixed shape: no allocation.
///   R <- R + rate grad l(W; k, v),   z = f(q; W - tau R)
#pragma once

#include "ttt/core/small_product.hpp"
#include "ttt/inner/stack.hpp"

namespace ttt {

/// Scratch for one head.
template <Scalar S, InnerModel M>
struct OnlineStepScratch {
  static constexpr std::size_t depth = stack_depth<M>;
  Matrix<S> kq, Wkq;                    // k and q side by side, [f, 2], and W_1 of both, [out, 2]
  std::array<Vector<S>, depth> A, Z;    // [in], [out]
  std::array<Vector<S>, depth> B, Y;    // [in], [out]
  std::array<Vector<S>, depth> g, Del;  // [out]

  explicit OnlineStepScratch(Index head_width)
      : kq(head_width, 2), Wkq(level_width<M>(1, head_width), 2) {
    for (std::size_t l = 0; l < depth; ++l) {
      for (auto* level : {&A[l], &B[l]}) level->resize(level_width<M>(l, head_width));
      for (auto* level : {&Z[l], &Y[l], &g[l], &Del[l]})
        level->resize(level_width<M>(l + 1, head_width));
    }
  }
};

template <Scalar S, InnerModel M>
struct OnlineStep {
  static constexpr std::size_t depth = stack_depth<M>;
  using Weights = HeadWeights<S, depth>;
  using ConstWeights = HeadWeights<const S, depth>;
  using Scratch = OnlineStepScratch<S, M>;

  /// k, q, v, z [f]; R is the sum of rate times gradient since the last border, W the weights
  /// there.
  static void step(const ConstWeights& W, Weights R, const HeadNorm<S>& norm, VectorIn<S> k,
                   VectorIn<S> q, VectorIn<S> v, S rate, S tau, VectorOut<S> z, Scratch& scratch) {
    scratch.kq.col(0) = k;
    scratch.kq.col(1) = q;
    SmallProduct<S>::affine(W.W[0], scratch.kq, W.b[0], scratch.Wkq);
    learn(W, R, norm, k, v, rate, scratch);
    answer(W, R, q, tau, scratch);
    M::Output::template output<S>(scratch.Y[depth - 1], q, norm, z);
  }

  /// At a border: W <- W - tau R, R <- 0.
  static void finish_mini_batch(Weights W, Weights R, S tau) {
    for (std::size_t l = 0; l < depth; ++l) {
      W.W[l] -= tau * R.W[l];
      W.b[l] -= tau * R.b[l];
      R.W[l].setZero();
      R.b[l].setZero();
    }
  }

 private:
  static void learn(const ConstWeights& W, Weights& R, const HeadNorm<S>& norm, VectorIn<S> k,
                    VectorIn<S> v, S rate, Scratch& scratch) {
    scratch.A[0] = k;
    scratch.Z[0] = scratch.Wkq.col(0);
    for (std::size_t l = 0; l < depth; ++l) {
      if (l > 0) affine(W, l, scratch.A[l], scratch.Z[l]);
      if (l + 1 < depth)
        M::Activation::template inner_gradient<S>(scratch.Z[l], scratch.A[l + 1], scratch.g[l]);
    }
    M::Output::template gradient<S>(scratch.Z[depth - 1], k, v, norm, scratch.Del[depth - 1]);
    for (std::size_t l = depth - 1; l-- > 0;) {
      scratch.Del[l].noalias() = W.W[l + 1].transpose() * scratch.Del[l + 1];
      scratch.Del[l].array() *= scratch.g[l].array();
    }
    for (std::size_t l = 0; l < depth; ++l) {
      scratch.Del[l] *= rate;
      R.W[l].noalias() += scratch.Del[l] * scratch.A[l].transpose();
      if (M::has_bias) R.b[l] += scratch.Del[l];
    }
  }

  static void answer(const ConstWeights& W, const Weights& R, VectorIn<S> q, S tau,
                     Scratch& scratch) {
    scratch.B[0] = q;
    scratch.Y[0] = scratch.Wkq.col(1);
    for (std::size_t l = 0; l < depth; ++l) {
      Vector<S>&Y = scratch.Y[l], &RB = scratch.Z[l];
      if (l > 0) affine(W, l, scratch.B[l], Y);
      affine(R, l, scratch.B[l], RB);
      Y -= tau * RB;
      if (l + 1 < depth) M::Activation::template value<S>(Y, scratch.B[l + 1]);
    }
  }

  static void affine(const auto& W, std::size_t l, const Vector<S>& in, Vector<S>& out) {
    out.noalias() = W.W[l] * in;
    if (M::has_bias) out += W.b[l];
  }
};

}  // namespace ttt
