/// @file
/// A stage that applies an activation to every number: A_next = s(A).
///   down    D = g(A) . D_next, g = s'           answer  B_next = s(B)
///   adjoint dD_next = g . dD;  dA = g'(A) . D_next . dD + s'(A) . dA_next;  dB = s'(B) . dB_next
/// The only stage kind where the second derivative of the inner model enters.
#pragma once

#include "ttt/inner/stages/stage.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

template <class Activation>
struct Pointwise : WithoutWeights {
  static constexpr Index width(Index in, Index) { return in; }

  template <Scalar S>
  struct Trace {
    Matrix<S> g;  // s'(A) as the inner gradient uses it
  };

  template <Scalar S>
  struct Scratch {
    Matrix<S> dA, dB, dD_next;
  };

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>&, MatrixIn<S> A, Matrix<S>& A_next, Trace<S>& trace) {
    ensure_shape(A_next, A.rows(), A.cols());
    ensure_shape(trace.g, A.rows(), A.cols());
    Activation::template inner_gradient<S>(A, A_next, trace.g);
  }

  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>&, MatrixIn<S> D_next, Matrix<S>* D, Trace<S>& trace) {
    if (!D) return;
    ensure_shape(*D, D_next.rows(), D_next.cols());
    *D = trace.g.cwiseProduct(D_next);
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>&, const StageInputs<S>& in, Matrix<S>& B_next,
                     Trace<S>&) {
    ensure_shape(B_next, in.B.rows(), in.B.cols());
    Activation::template value<S>(in.B, B_next);
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>&, const StageInputs<S>& in,
                                    const Trace<S>&, const Matrix<S>& dB_next,
                                    StageGradient<S, Model>&, Scratch<S>& scratch) {
    ensure_shape(scratch.dB, in.B.rows(), in.B.cols());
    Activation::template derivative<S>(in.B, scratch.dB);
    scratch.dB.array() *= dB_next.array();
    return scratch.dB;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>&, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>* dD,
                                  StageGradient<S, Model>&, Scratch<S>& scratch) {
    for (auto* matrix : {&scratch.dA, &scratch.dD_next})
      ensure_shape(*matrix, in.A.rows(), in.A.cols());
    Matrix<S>&d = scratch.dB, &h = scratch.dA;
    Activation::template outer_gradients<S>(in.A, d, h);
    if (dD) {
      scratch.dD_next = trace.g.cwiseProduct(*dD);
      scratch.dA = h.cwiseProduct(in.D_next).cwiseProduct(*dD);
    } else {
      scratch.dD_next.setZero();
      scratch.dA.setZero();
    }
    return scratch.dD_next;
  }

  /// scratch.dB holds s'(A) from the sweep before.
  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>&, const StageInputs<S>&, const Trace<S>&,
                                const Matrix<S>& dA_next, StageGradient<S, Model>&,
                                Scratch<S>& scratch) {
    scratch.dA += scratch.dB.cwiseProduct(dA_next);
    return scratch.dA;
  }
};

}  // namespace ttt
