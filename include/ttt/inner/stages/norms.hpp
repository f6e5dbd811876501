/// @file
/// Stages that normalise a token A [w]; without gain or offset, which the affine map above a norm
/// has anyway.
///   LayerNormStage  x = (a - mean(a)) / s,  s = sqrt(var(a) + 1e-6)
///   RMSNormStage    x = a / s,              s = sqrt(mean(a^2) + 1e-6)
/// The Jacobian is symmetric: J d = P(d) / s, P(d) = d - mean(d) - x mean(x . d) (RMSNorm: without
/// mean(d)). So down is D = J D_next, and its adjoint, with m = mean(x . d), given dD:
///   dD_next = J dD;  dx = -(m dD + mean(x . dD) D_next) / s,  ds = -(D . dD) / s
///   dA = P(dx) / s + x ds / w
#pragma once

#include <cmath>

#include "ttt/inner/stages/stage.hpp"

namespace ttt {

template <bool Centred>
struct NormStage : WithoutWeights {
  static constexpr double epsilon = 1e-6;
  static constexpr Index width(Index in, Index) { return in; }

  template <Scalar S>
  struct Trace {
    Matrix<S> x, y;                         // of the training and the test view, [w, n]
    Vector<S> inverse_s, inverse_s_answer;  // [n]
  };

  template <Scalar S>
  struct Scratch {
    Matrix<S> dA, dB, dD_next;
  };

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>&, MatrixIn<S> A, Matrix<S>& A_next, Trace<S>& trace) {
    normalize<S>(A, trace.x, trace.inverse_s);
    A_next = trace.x;
  }

  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>&, MatrixIn<S> D_next, Matrix<S>* D, Trace<S>& trace) {
    if (D) jacobian<S>(trace.x, trace.inverse_s, D_next, *D);
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>&, const StageInputs<S>& in, Matrix<S>& B_next,
                     Trace<S>& trace) {
    normalize<S>(in.B, trace.y, trace.inverse_s_answer);
    B_next = trace.y;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>&, const StageInputs<S>&,
                                    const Trace<S>& trace, const Matrix<S>& dB_next,
                                    StageGradient<S, Model>&, Scratch<S>& scratch) {
    jacobian<S>(trace.y, trace.inverse_s_answer, dB_next, scratch.dB);
    return scratch.dB;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>&, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>* dD,
                                  StageGradient<S, Model>&, Scratch<S>& scratch) {
    ensure_shape(scratch.dA, in.A.rows(), in.A.cols());
    ensure_shape(scratch.dD_next, in.A.rows(), in.A.cols());
    if (!dD) {
      scratch.dA.setZero();
      scratch.dD_next.setZero();
      return scratch.dD_next;
    }
    jacobian<S>(trace.x, trace.inverse_s, *dD, scratch.dD_next);
    const S share = S(1) / static_cast<S>(in.A.rows());
    for (Index t = 0; t < in.A.cols(); ++t) {
      const auto x = trace.x.col(t), g = dD->col(t);
      const auto d = in.D_next.col(t);
      const S inverse_s = trace.inverse_s[t];
      const S ds = -inverse_s * scratch.dD_next.col(t).dot(d);
      scratch.dB = -inverse_s * (share * x.dot(d) * g + share * x.dot(g) * d);  // dx
      scratch.dA.col(t) = inverse_s * project<S>(x, scratch.dB.col(0)) + share * ds * x;
    }
    return scratch.dD_next;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>&, const StageInputs<S>&,
                                const Trace<S>& trace, const Matrix<S>& dA_next,
                                StageGradient<S, Model>&, Scratch<S>& scratch) {
    jacobian<S>(trace.x, trace.inverse_s, dA_next, scratch.dB);
    scratch.dA += scratch.dB;
    return scratch.dA;
  }

 private:
  template <Scalar S>
  static void normalize(MatrixIn<S> A, Matrix<S>& x, Vector<S>& inverse_s) {
    using std::sqrt;
    ensure_shape(x, A.rows(), A.cols());
    if (inverse_s.size() != A.cols()) inverse_s.resize(A.cols());
    for (Index t = 0; t < A.cols(); ++t) {
      const S mean = Centred ? A.col(t).mean() : S(0);
      x.col(t) = A.col(t).array() - mean;
      inverse_s[t] = S(1) / sqrt(x.col(t).squaredNorm() / static_cast<S>(A.rows()) + S(epsilon));
      x.col(t) *= inverse_s[t];
    }
  }

  /// P(d) = d - mean(d) - x mean(x . d), without mean(d) where nothing is centred.
  template <Scalar S>
  static auto project(const auto& x, const auto& d) {
    const S share = S(1) / static_cast<S>(x.size());
    const S mean = Centred ? share * d.sum() : S(0), along = share * x.dot(d);
    return (d.array() - mean - x.array() * along).matrix();
  }

  /// Column by column J d = P(d) / s.
  template <Scalar S>
  static void jacobian(const Matrix<S>& x, const Vector<S>& inverse_s, MatrixIn<S> d,
                       Matrix<S>& result) {
    ensure_shape(result, d.rows(), d.cols());
    for (Index t = 0; t < d.cols(); ++t)
      result.col(t) = inverse_s[t] * project<S>(x.col(t), d.col(t));
  }
};

using LayerNormStage = NormStage<true>;
using RMSNormStage = NormStage<false>;

}  // namespace ttt
