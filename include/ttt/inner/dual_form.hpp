/// @file
/// The dual form: the outputs of n tokens that learn from one another, and the weights that they
/// leave behind, by matrix products, without any per-token gradient. For a stack of any depth:
///   up     Z_l = W_l A_l + b_l,  A_{l+1} = s(Z_l)                             (A_1 = K)
///   down   Del_N = dl/dZ_N,  D_l = W_{l+1}' Del_{l+1},  Del_l = s'(Z_l) . D_l
///   answer Y_l = W_l B_l + b_l - (R_l B_l + r_l) diag(read) - Del_l M_l,  B_{l+1} = s(Y_l)
///          M_l = E . (A_l' B_l + 1)  on and above the diagonal                (B_1 = Q)
///   carry  X_l += Del_l diag(e) A_l',  x_l += Del_l e
/// E(s, t) is the weight of token s's gradient at token t >= s. R, r hold the gradients of earlier
/// tokens of an unfinished mini-batch. W, R, X are per head; K, Q, V are [f, n].
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.5 and appendix A, here for any depth.
#pragma once

#include <limits>
#include <utility>

#include "ttt/core/small_product.hpp"
#include "ttt/inner/stack.hpp"

namespace ttt {

/// What one chunk leaves in memory: scratch for a forward, input of the adjoint. Reused.
template <Scalar S, InnerModel M>
struct DualFormTrace {
  static constexpr std::size_t depth = stack_depth<M>;
  std::array<Matrix<S>, depth> A, B;       // [in, n]; A[0] and B[0], which are K and Q, stay empty
  std::array<Matrix<S>, depth> Z, Del, Y;  // [out, n]
  std::array<Matrix<S>, depth> P, mask;    // A'B + 1 and E . P, both [n, n]
  std::array<Matrix<S>, depth> g, D;       // [out, n], all levels but the last
  Matrix<S> scaled;                        // scratch [out, n]
  Index finite_tokens = 0;                 // tokens before the first one that is not finite
};

template <Scalar S, InnerModel M>
struct DualForm {
  static constexpr std::size_t depth = stack_depth<M>;
  using Weights = HeadWeights<S, depth>;
  using ConstWeights = HeadWeights<const S, depth>;
  using Trace = DualFormTrace<S, M>;

  /// Sums of gradients that earlier tokens of the mini-batch left, and how token t reads them.
  struct Carried {
    ConstWeights sums;                 // R, r
    Eigen::Ref<const Vector<S>> read;  // [n]
  };

  /// Writes the outputs O [f, n]; `carried` may be null: the chunk starts at a border.
  static void forward(const ConstWeights& W, const Carried* carried, const HeadNorm<S>& norm,
                      MatrixIn<S> K, MatrixIn<S> Q, MatrixIn<S> V, MatrixIn<S> E, MatrixOut<S> O,
                      Trace& trace) {
    learn(W, norm, K, V, trace);
    answer(W, carried, K, Q, E, trace);
    M::Output::template output<S>(trace.Y[depth - 1], Q, norm, O);
    const Index poisoned = K.cols() - trace.finite_tokens;
    O.rightCols(poisoned).setConstant(std::numeric_limits<S>::quiet_NaN());
  }

  /// X_l += Del_l diag(e) A_l', x_l += Del_l e: into the weights at a border, else into the sums.
  static void carry(Trace& trace, MatrixIn<S> K, VectorIn<S> e, Weights X) {
    for (std::size_t l = 0; l < depth; ++l) {
      trace.scaled.noalias() = trace.Del[l] * e.asDiagonal();
      SmallProduct<S>::add_abt(trace.scaled, level(K, trace.A, l), X.W[l]);
      if (M::has_bias) X.b[l] += trace.scaled.rowwise().sum();
      if (trace.finite_tokens < e.size()) X.W[l].setConstant(std::numeric_limits<S>::quiet_NaN());
    }
  }

  /// What enters level l: the chunk's own tokens, or what the level below made of them.
  static Eigen::Ref<const Matrix<S>> level(MatrixIn<S> tokens,
                                           const std::array<Matrix<S>, depth>& hidden,
                                           std::size_t l) {
    if (l == 0) return tokens;
    return hidden[l];
  }

 private:
  static void learn(const ConstWeights& W, const HeadNorm<S>& norm, MatrixIn<S> K, MatrixIn<S> V,
                    Trace& trace) {
    const Index n = K.cols();
    for (std::size_t l = 0; l < depth; ++l) {
      affine(W, l, level(K, trace.A, l), trace.Z[l]);
      ensure_shape(trace.Del[l], trace.Z[l].rows(), n);
      if (l + 1 == depth) break;
      for (auto* level : {&trace.A[l + 1], &trace.g[l], &trace.D[l]})
        ensure_shape(*level, trace.Z[l].rows(), n);
      M::Activation::template inner_gradient<S>(trace.Z[l], trace.A[l + 1], trace.g[l]);
    }
    M::Output::template gradient<S>(trace.Z[depth - 1], K, V, norm, trace.Del[depth - 1]);
    for (std::size_t l = depth - 1; l-- > 0;) {
      SmallProduct<S>::atb(W.W[l + 1], trace.Del[l + 1], trace.D[l]);
      trace.Del[l] = trace.g[l].cwiseProduct(trace.D[l]);
    }
    set_poisoned_tokens_aside(trace);
  }

  static void answer(const ConstWeights& W, const Carried* carried, MatrixIn<S> K, MatrixIn<S> Q,
                     MatrixIn<S> E, Trace& trace) {
    const Index n = Q.cols();
    for (std::size_t l = 0; l < depth; ++l) {
      const auto B = level(Q, trace.B, l);
      ensure_shape(trace.P[l], n, n);
      SmallProduct<S>::atb(level(K, trace.A, l), B, trace.P[l]);
      if (M::has_bias) trace.P[l].array() += S(1);
      select_upper(E, trace.P[l], trace.mask[l]);
      affine(W, l, B, trace.Y[l]);
      if (carried) {
        ensure_shape(trace.scaled, trace.Y[l].rows(), n);
        affine(carried->sums, l, B, trace.scaled);
        trace.Y[l] -= trace.scaled * carried->read.asDiagonal();
      }
      SmallProduct<S>::subtract_ab(trace.Del[l], trace.mask[l], trace.Y[l]);
      if (l + 1 == depth) break;
      ensure_shape(trace.B[l + 1], trace.Y[l].rows(), n);
      M::Activation::template value<S>(trace.Y[l], trace.B[l + 1]);
    }
  }

  static void affine(const ConstWeights& W, std::size_t l, MatrixIn<S> in, Matrix<S>& out) {
    ensure_shape(out, W.W[l].rows(), in.cols());
    SmallProduct<S>::affine(W.W[l], in, W.b[l], out);
  }

  /// mask = E . P on and above the diagonal, 0 below: selected, since P may hold NaN there.
  static void select_upper(MatrixIn<S> E, const Matrix<S>& P, Matrix<S>& mask) {
    ensure_shape(mask, P.rows(), P.cols());
    for (Index t = 0; t < P.cols(); ++t) {
      mask.col(t).head(t + 1) = E.col(t).head(t + 1).cwiseProduct(P.col(t).head(t + 1));
      mask.col(t).tail(P.rows() - t - 1).setZero();
    }
  }

  /// A token that is not finite must not reach earlier ones, but in the product Del M its NaN
  /// would meet their zeros, and 0 * NaN is NaN. So its column is zero here, and `forward` and
  /// `carry` put the NaN back where it belongs: from that token on, and into the state.
  static void set_poisoned_tokens_aside(Trace& trace) {
    const Index n = trace.Del[0].cols();
    trace.finite_tokens = n;
    for (const Matrix<S>& Del : trace.Del) {
      if ((Del.array() * S(0)).sum() == S(0)) continue;  // one pass: every entry is finite
      for (Index t = 0; t < trace.finite_tokens; ++t)
        if (!Del.col(t).allFinite()) trace.finite_tokens = t;
    }
    if (trace.finite_tokens == n) return;
    for (Matrix<S>& Del : trace.Del) Del.rightCols(n - trace.finite_tokens).setZero();
  }
};

}  // namespace ttt
