/// @file
/// The stage that learns: Z = W A + b 1', with W [m f, in] and b [m f] for a head of width f.
///   up      Z = W A + b                          down    D = W' Del          (Del = dl/dZ)
///   answer  Y = a (W B + b) + sum_j (X_j B + x_j) diag(read_j) - Del M
///           M = E . (A'B + 1) on and above the diagonal                     ("+ 1" is the bias)
///   carry   X <- X + Del diag(e) A',  x <- x + Del e
/// The per-token gradients Del_s A_s' are never formed: that is the dual form.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.5 and appendix A.
#pragma once

#include <algorithm>

#include "ttt/inner/stages/stage.hpp"

namespace ttt {

namespace detail {

/// What all affine stages have in common, whatever their width: compiled once for a model.
template <bool Bias>
struct AffineSweeps {
  static constexpr std::size_t weight_count = 1;

  static constexpr bool passes_gradient_down(std::size_t, bool learns_below) {
    return learns_below;
  }

  template <Scalar S>
  struct Trace {
    Matrix<S> P, M;    // A'B + 1 on and above the diagonal, and E . P; both [n, n]
    Matrix<S> scaled;  // scratch [out, n]
    // Where a step's tokens enter: k and q side by side, and W times both, so that W is read once.
    Matrix<S> kq, W_kq;  // [in, 2], [out, 2]
  };

  /// dA and dDel collect what all sweeps before the last owe to A and Del.
  template <Scalar S>
  struct Scratch {
    Matrix<S> dA, dDel, dB, dM, dP, scaled, product;
  };

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>& at, MatrixIn<S> A, Matrix<S>& Z, Trace<S>& trace) {
    ensure_shape(Z, at.W().rows(), A.cols());
    if (at.steps() && A.data() == at.chunk.K.data()) {
      ensure_shape(trace.kq, A.rows(), 2);
      ensure_shape(trace.W_kq, Z.rows(), 2);
      std::copy_n(A.data(), A.rows(), column(trace.kq, 0));
      std::copy_n(at.chunk.Q.data(), A.rows(), column(trace.kq, 1));
      SmallProduct<S>::affine(at.W(), trace.kq, at.b(), trace.W_kq);
      std::copy_n(column(trace.W_kq, 0), Z.rows(), Z.data());
    } else {
      SmallProduct<S>::affine(at.W(), A, at.b(), Z);
    }
  }

  /// `D` is null where nothing learns below.
  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>& at, MatrixIn<S> Del, Matrix<S>* D, Trace<S>&) {
    if (!D) return;
    ensure_shape(*D, at.W().cols(), Del.cols());
    SmallProduct<S>::atb(at.W(), Del, *D);
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>& at, const StageInputs<S>& in, Matrix<S>& Y,
                     Trace<S>& trace) {
    const Index n = in.B.cols();
    ensure_shape(Y, at.W().rows(), n);
    if (!at.chunk.reads_anchor) {
      Y.setZero();
    } else if (at.steps() && in.B.data() == at.chunk.Q.data()) {
      std::copy_n(column(trace.W_kq, 1), Y.rows(), Y.data());
    } else {
      SmallProduct<S>::affine(at.W(), in.B, at.b(), Y);
    }
    for (const auto& carried : at.chunk.carried) {
      ensure_shape(trace.scaled, Y.rows(), n);
      SmallProduct<S>::affine(carried.X.W[at.first], in.B, carried.X.b[at.first], trace.scaled);
      add_scaled<S>(trace.scaled, carried.read, Y);
    }
    if (at.chunk.E.size() == 0) return;
    ensure_shape(trace.P, n, n);
    SmallProduct<S>::atb(in.A, in.B, trace.P);
    select_upper(at.chunk.E, trace.P, trace.M);
    SmallProduct<S>::subtract_ab(in.D_next, trace.M, Y);
  }

  template <Scalar S>
  static void carry(std::size_t first, const StageInputs<S>& in, Trace<S>& trace, VectorIn<S> e,
                    auto& X) {
    scale<S>(in.D_next, e, trace.scaled);
    add_to_weights(trace.scaled, in.A, first, X);
  }

  /// Forward: Y = a (W B + b) + sum_j (X_j B + x_j) diag(read_j) - Del M, M = E . P, P = A'B + 1.
  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                    const Trace<S>& trace, const Matrix<S>& dY,
                                    StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    carry_backward(at, in, grad, scratch);  // first: a dX may be dW, which changes below
    ensure_shape(scratch.dB, in.B.rows(), in.B.cols());
    if (at.chunk.reads_anchor) {
      SmallProduct<S>::atb(at.W(), dY, scratch.dB);
      add_to_weights(dY, in.B, at.first, grad.out.dW);
    } else {
      scratch.dB.setZero();
    }
    if (at.chunk.E.size() > 0) own_tokens_backward(at, in, trace, dY, grad, scratch);
    for (std::size_t j = 0; j < at.chunk.carried.size(); ++j)
      carried_backward(at, j, in, dY, grad, scratch);
    return scratch.dB;
  }

  /// Forward: D = W' Del. `dD` is null where nothing learns below.
  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                  const Trace<S>&, const Matrix<S>* dD,
                                  StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    if (dD) {
      SmallProduct<S>::add_ab(at.W(), *dD, scratch.dDel);
      SmallProduct<S>::add_abt(in.D_next, *dD, grad.out.dW.W[at.first]);
    }
    return scratch.dDel;
  }

  /// Forward: Z = W A + b.
  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                const Trace<S>&, const Matrix<S>& dZ, StageGradient<S, Model>& grad,
                                Scratch<S>& scratch) {
    add_to_weights(dZ, in.A, at.first, grad.out.dW);
    SmallProduct<S>::add_atb(at.W(), dZ, scratch.dA);
    return scratch.dA;
  }

  /// The gradients that the weights learn from: those at the stage's output.
  template <Scalar S>
  static void each_learning_gradient(Matrix<S>& D_next, Trace<S>&, auto&& fn) {
    fn(D_next);
  }

 private:
  /// P = A'B + 1, where A'B is in P, and M = E . P: on and above the diagonal. Below M is 0:
  /// selected, since P may hold NaN there.
  template <Scalar S>
  static void select_upper(MatrixIn<S> E, Matrix<S>& P, Matrix<S>& M) {
    ensure_shape(M, P.rows(), P.cols());
    for (Index t = 0; t < P.cols(); ++t) {
      const S* const E_t = column(E, t);
      S *const P_t = column(P, t), *const M_t = column(M, t);
      each_lane<S>(t + 1, [&](auto at) {
        if (Bias) at.store(P_t, at(P_t) + S(1));
        at.store(M_t, at(E_t) * at(P_t));
      });
      std::fill(M_t + t + 1, M_t + P.rows(), S(0));
    }
  }

  /// Forward: Y -= Del M, M = E . P, P = A'B + 1.
  template <Scalar S, InnerModel Model>
  static void own_tokens_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>& dY,
                                  StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    ensure_shape(scratch.dM, in.A.cols(), in.A.cols());
    SmallProduct<S>::atb(in.D_next, dY, scratch.dM);  // -dM
    mask_backward(at.chunk.E, trace.P, scratch, grad.out.dE);
    SmallProduct<S>::subtract_abt(dY, trace.M, scratch.dDel);
    SmallProduct<S>::add_ab(in.A, scratch.dP, scratch.dB);
    SmallProduct<S>::add_abt(in.B, scratch.dP, scratch.dA);
  }

  /// Forward: M = E . P above the diagonal. In: scratch.dM, which is -dM. Adds into dE.
  template <Scalar S>
  static void mask_backward(MatrixIn<S> E, const Matrix<S>& P, Scratch<S>& scratch,
                            MatrixOut<S>& dE) {
    ensure_shape(scratch.dP, P.rows(), P.cols());
    for (Index t = 0; t < P.cols(); ++t) {
      const S *E_t = column(E, t), *P_t = column(P, t), *minus_dM = column(scratch.dM, t);
      S *dE_t = column(dE, t), *dP_t = column(scratch.dP, t);
      each_lane<S>(t + 1, [&](auto at) {
        const auto dM = S(0) - at(minus_dM);
        at.add(dE_t, dM * at(P_t));
        at.store(dP_t, dM * at(E_t));
      });
      std::fill(dP_t + t + 1, dP_t + P.rows(), S(0));
    }
  }

  /// Forward: X += Del diag(e) A', x += Del e.  Overwrites dDel and dA, and adds into d_e.
  template <Scalar S, InnerModel Model>
  static void carry_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                             StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    ensure_shape(scratch.dDel, in.D_next.rows(), in.D_next.cols());
    ensure_shape(scratch.dA, in.A.rows(), in.A.cols());
    ensure_shape(scratch.product, in.D_next.rows(), in.D_next.cols());
    scratch.dDel.setZero();
    scratch.dA.setZero();
    for (const auto& written : grad.written) {
      const auto& dX = written.dX.W[at.first];
      SmallProduct<S>::affine(dX, in.A, written.dX.b[at.first], scratch.product);
      add_column_dots<S>(in.D_next, scratch.product, written.d_e);
      add_scaled<S>(scratch.product, written.e, scratch.dDel);
      scale<S>(in.D_next, written.e, scratch.scaled);
      SmallProduct<S>::add_atb(dX, scratch.scaled, scratch.dA);
    }
  }

  /// Forward: Y += (X_j B + x_j) diag(read_j).
  template <Scalar S, InnerModel Model>
  static void carried_backward(const StageChunk<S, Model>& at, std::size_t j,
                               const StageInputs<S>& in, const Matrix<S>& dY,
                               StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    const auto& carried = at.chunk.carried[j];
    auto& out = grad.out.carried[j];
    const auto& X = carried.X.W[at.first];
    ensure_shape(scratch.product, X.rows(), in.B.cols());
    SmallProduct<S>::affine(X, in.B, carried.X.b[at.first], scratch.product);
    add_column_dots<S>(dY, scratch.product, out.d_read);
    scale<S>(dY, carried.read, scratch.scaled);
    SmallProduct<S>::add_atb(X, scratch.scaled, scratch.dB);
    add_to_weights(scratch.scaled, in.B, at.first, out.dX);
  }

  /// The gradient of Z = W A + b in W and b.
  template <Scalar S>
  static void add_to_weights(const Matrix<S>& dZ, MatrixIn<S> A, std::size_t first, auto& dW) {
    SmallProduct<S>::add_abt(dZ, A, dW.W[first]);
    S* const db = dW.b[first].data();
    for (Index t = 0; Bias && t < dZ.cols(); ++t)
      each_lane<S>(dZ.rows(), [&](auto at) { at.add(db, at(column(dZ, t))); });
  }

  /// scaled = X diag(e)
  template <Scalar S>
  static void scale(MatrixIn<S> X, VectorIn<S> e, Matrix<S>& scaled) {
    ensure_shape(scaled, X.rows(), X.cols());
    each_entry<S>(scaled, [&](auto at) { at.store(scaled, at(X) * e[at.column]); });
  }
  /// Y += X diag(e)
  template <Scalar S>
  static void add_scaled(MatrixIn<S> X, VectorIn<S> e, Matrix<S>& Y) {
    each_entry<S>(Y, [&](auto at) { at.store(Y, at(Y) + at(X) * e[at.column]); });
  }
  /// d(t) += A(:, t) . B(:, t)
  template <Scalar S>
  static void add_column_dots(MatrixIn<S> A, MatrixIn<S> B, VectorOut<S> d) {
    for (Index t = 0; t < d.size(); ++t) {
      Sum<S> dot;
      each_lane<S>(A.rows(), [&](auto at) { dot += at(column(A, t)) * at(column(B, t)); });
      d[t] += dot.total();
    }
  }

  static auto column(auto& tokens, Index t) { return tokens.data() + t * tokens.outerStride(); }
};

}  // namespace detail

template <int Multiple = 1, bool Bias = true>
struct Affine : detail::AffineSweeps<Bias> {
  static_assert(Multiple > 0, "Affine<m>: the width of a stage is m times that of the head, m > 0");
  static constexpr Index width(Index, Index head_width) { return Multiple * head_width; }
  static constexpr WeightShape weight_shape(std::size_t, Index in, Index head_width) {
    return {width(in, head_width), in, Bias};
  }
};

/// Z = W A: an affine map without a bias.
template <int Multiple = 1>
using LinearMap = Affine<Multiple, false>;

}  // namespace ttt
