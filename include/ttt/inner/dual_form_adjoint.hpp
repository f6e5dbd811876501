/// @file
/// The exact adjoint of the dual form (dual_form.hpp): gradients of the outer loss in the weights
/// before the chunk, keys, queries, targets, rates and norm, second order included, for a stack of
/// any depth. dX is dLoss/dX. Four sweeps over the levels:
///   1 answer, top down      dY_l from dB_{l+1};  what the carry and Y_l owe to Del, A, B, W, E
///   2 gradient, bottom up   dDel_l through Del_l = s'(Z_l) . D_l and D_l = W' Del_{l+1}
///   3 loss                  dDel_N through Del_N = dl/dZ_N
///   4 up-pass, top down     dZ_l through A_{l+1} = s(Z_l) and Z_l = W_l A_l + b_l
/// All products have one side of width n or f; the cost is about twice a forward and a backward of
/// the inner model. Derived by hand; tests compare it with the official code and with differences.
#pragma once

#include "ttt/inner/dual_form.hpp"

namespace ttt {

template <Scalar S, InnerModel M>
struct DualFormAdjoint {
  static constexpr std::size_t depth = stack_depth<M>;
  using Forward = DualForm<S, M>;
  using Weights = HeadWeights<S, depth>;
  using ConstWeights = HeadWeights<const S, depth>;
  using Carried = typename Forward::Carried;
  using Trace = DualFormTrace<S, M>;

  /// The inputs of the chunk's forward, which has just filled `trace`.
  struct Inputs {
    ConstWeights W;
    const Carried* carried;  // null: the chunk starts at a border
    HeadNorm<S> norm;
    Eigen::Ref<const Matrix<S>> K, Q, V;  // [f, n]
    Eigen::Ref<const Matrix<S>> E;        // [n, n]
    Eigen::Ref<const Vector<S>> e;        // [n], the weights of `carry`
  };

  /// Adjoints. dX belongs to what `carry` added into, and may be dW itself. dW, dR, d_norm are
  /// added into; dK, dQ, dV [f, n], dE [n, n], d_read and d_e [n] are overwritten.
  struct Outputs {
    ConstWeights dX;
    Weights dW;
    Weights* dR;  // null: the chunk starts at a border
    HeadNormGradient<S> d_norm;
    MatrixOut<S> dK, dQ, dV;
    MatrixOut<S> dE;
    VectorOut<S> d_read, d_e;
  };

  /// Scratch, reused from chunk to chunk.
  struct Scratch {
    std::array<Matrix<S>, depth> dA, dDel, dZ;
    Matrix<S> dY, dB, dM, dP, scaled, product, d, h;
  };

  static void backward(const Inputs& in, Trace& trace, MatrixIn<S> dO, Outputs& out,
                       Scratch& scratch) {
    const Index n = dO.cols();
    out.dE.setZero();
    out.d_read.setZero();
    out.d_e.setZero();
    ensure_shape(scratch.dY, dO.rows(), n);
    M::Output::template output_backward<S>(trace.Y[depth - 1], in.norm, dO, scratch.dY, out.dQ,
                                           out.d_norm);
    for (std::size_t l = depth; l-- > 0;) answer_backward(l, in, trace, out, scratch);
    out.dQ += scratch.dB;
    for (std::size_t l = 0; l + 1 < depth; ++l) gradient_backward(l, in, trace, out, scratch);
    out.dK.setZero();
    out.dV.setZero();
    ensure_shape(scratch.dZ[depth - 1], dO.rows(), n);
    M::Output::template gradient_backward<S>(trace.Z[depth - 1], in.K, in.V, in.norm,
                                             scratch.dDel[depth - 1], scratch.dZ[depth - 1], out.dK,
                                             out.dV, out.d_norm);
    for (std::size_t l = depth; l-- > 0;) up_backward(l, in, trace, out, scratch);
    out.dK += scratch.dA[0];
  }

 private:
  /// Forward: Y = W B + b - (R B + r) diag(read) - Del M, M = E . P, P = A'B + 1,
  ///          X += Del diag(e) A', x += Del e.  In: scratch.dY. Out: scratch.dB, then the dY below.
  static void answer_backward(std::size_t l, const Inputs& in, const Trace& trace, Outputs& out,
                              Scratch& scratch) {
    const auto A = Forward::level(in.K, trace.A, l), B = Forward::level(in.Q, trace.B, l);
    const Matrix<S>&Del = trace.Del[l], &dY = scratch.dY;
    carry_backward(l, in, trace, out, scratch);  // first: dX may be dW, which changes below

    ensure_shape(scratch.dM, A.cols(), A.cols());
    SmallProduct<S>::atb(Del, dY, scratch.dM);  // -dM
    scratch.dP.resizeLike(scratch.dM);
    for (Index t = 0; t < A.cols(); ++t) {
      const auto dM = -scratch.dM.col(t).head(t + 1);
      out.dE.col(t).head(t + 1) += dM.cwiseProduct(trace.P[l].col(t).head(t + 1));
      scratch.dP.col(t).head(t + 1) = dM.cwiseProduct(in.E.col(t).head(t + 1));
      scratch.dP.col(t).tail(A.cols() - t - 1).setZero();
    }
    SmallProduct<S>::subtract_abt(dY, trace.mask[l], scratch.dDel[l]);

    ensure_shape(scratch.dB, B.rows(), B.cols());
    SmallProduct<S>::atb(in.W.W[l], dY, scratch.dB);
    SmallProduct<S>::add_ab(A, scratch.dP, scratch.dB);
    SmallProduct<S>::add_abt(B, scratch.dP, scratch.dA[l]);
    SmallProduct<S>::add_abt(dY, B, out.dW.W[l]);
    if (M::has_bias) out.dW.b[l] += dY.rowwise().sum();
    if (in.carried) carried_backward(l, in, trace, out, scratch);

    if (l == 0) return;
    ensure_shape(scratch.d, B.rows(), B.cols());
    M::Activation::template derivative<S>(trace.Y[l - 1], scratch.d);
    scratch.dY = scratch.d.cwiseProduct(scratch.dB);
  }

  /// Forward: X += Del diag(e) A', x += Del e.  Overwrites dDel and dA of the level.
  static void carry_backward(std::size_t l, const Inputs& in, const Trace& trace, Outputs& out,
                             Scratch& scratch) {
    const auto A = Forward::level(in.K, trace.A, l);
    const Matrix<S>& Del = trace.Del[l];
    Matrix<S>& C = scratch.dDel[l];
    ensure_shape(C, Del.rows(), Del.cols());
    SmallProduct<S>::affine(out.dX.W[l], A, out.dX.b[l], C);
    out.d_e += Del.cwiseProduct(C).colwise().sum().transpose();
    C = C * in.e.asDiagonal();
    scratch.scaled.noalias() = Del * in.e.asDiagonal();
    ensure_shape(scratch.dA[l], A.rows(), A.cols());
    SmallProduct<S>::atb(out.dX.W[l], scratch.scaled, scratch.dA[l]);
  }

  /// Forward: Y -= (R B + r) diag(read).
  static void carried_backward(std::size_t l, const Inputs& in, const Trace& trace, Outputs& out,
                               Scratch& scratch) {
    const auto B = Forward::level(in.Q, trace.B, l);
    const ConstWeights& R = in.carried->sums;
    ensure_shape(scratch.product, R.W[l].rows(), B.cols());
    SmallProduct<S>::affine(R.W[l], B, R.b[l], scratch.product);
    out.d_read -= scratch.dY.cwiseProduct(scratch.product).colwise().sum().transpose();
    scratch.scaled.noalias() = -(scratch.dY * in.carried->read.asDiagonal());
    SmallProduct<S>::add_atb(R.W[l], scratch.scaled, scratch.dB);
    SmallProduct<S>::add_abt(scratch.scaled, B, out.dR->W[l]);
    if (M::has_bias) out.dR->b[l] += scratch.scaled.rowwise().sum();
  }

  /// Forward: D_l = W_{l+1}' Del_{l+1}, Del_l = g(Z_l) . D_l.  In: dDel_l, complete.
  static void gradient_backward(std::size_t l, const Inputs& in, const Trace& trace, Outputs& out,
                                Scratch& scratch) {
    const Index rows = trace.Z[l].rows(), n = trace.Z[l].cols();
    ensure_shape(scratch.d, rows, n);
    ensure_shape(scratch.h, rows, n);
    M::Activation::template outer_gradients<S>(trace.Z[l], scratch.d, scratch.h);
    scratch.dZ[l] = scratch.h.cwiseProduct(trace.D[l]).cwiseProduct(scratch.dDel[l]);
    scratch.h = trace.g[l].cwiseProduct(scratch.dDel[l]);  // dD_l
    SmallProduct<S>::add_ab(in.W.W[l + 1], scratch.h, scratch.dDel[l + 1]);
    SmallProduct<S>::add_abt(trace.Del[l + 1], scratch.h, out.dW.W[l + 1]);
  }

  /// Forward: Z_l = W_l A_l + b_l, A_{l+1} = s(Z_l).  In: dA_{l+1}; dZ_l from the other sweeps.
  static void up_backward(std::size_t l, const Inputs& in, const Trace& trace, Outputs& out,
                          Scratch& scratch) {
    Matrix<S>& dZ = scratch.dZ[l];
    if (l + 1 < depth) {
      ensure_shape(scratch.d, dZ.rows(), dZ.cols());
      M::Activation::template derivative<S>(trace.Z[l], scratch.d);
      dZ += scratch.d.cwiseProduct(scratch.dA[l + 1]);
    }
    SmallProduct<S>::add_abt(dZ, Forward::level(in.K, trace.A, l), out.dW.W[l]);
    if (M::has_bias) out.dW.b[l] += dZ.rowwise().sum();
    SmallProduct<S>::add_atb(in.W.W[l], dZ, scratch.dA[l]);
  }
};

}  // namespace ttt
