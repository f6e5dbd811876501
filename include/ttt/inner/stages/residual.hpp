/// @file
/// A chain of stages with its input added: A_next = A + s(A). Input and output have equal width.
#pragma once

#include "ttt/inner/stages/chain.hpp"

namespace ttt {

template <StageOrActivation... Parts>
struct Residual : Chain<Parts...> {
  using Inner = Chain<Parts...>;
  template <Scalar S>
  using Trace = typename Inner::template Trace<S>;
  template <Scalar S>
  using Scratch = typename Inner::template Scratch<S>;

  /// -1 where the stages change the width: `StackOf` refuses that.
  static constexpr Index width(Index in, Index head_width) {
    return Inner::width(in, head_width) == in ? in : -1;
  }

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>& at, MatrixIn<S> A, Matrix<S>& A_next,
                 Trace<S>& trace) {
    Inner::template up<S>(at, A, A_next, trace);
    A_next += A;
  }

  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>& at, MatrixIn<S> D_next, Matrix<S>* D,
                   Trace<S>& trace) {
    Inner::template down<S>(at, D_next, D, trace);
    if (D) *D += D_next;
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>& at, const StageInputs<S>& in, Matrix<S>& B_next,
                     Trace<S>& trace) {
    Inner::template answer<S>(at, in, B_next, trace);
    B_next += in.B;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                    const Trace<S>& trace, const Matrix<S>& dB_next,
                                    StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    return Inner::template answer_backward<S>(at, in, trace, dB_next, grad, scratch) += dB_next;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>* dD,
                                  StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    Matrix<S>& dD_next = Inner::template down_backward<S>(at, in, trace, dD, grad, scratch);
    if (dD) dD_next += *dD;
    return dD_next;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                const Trace<S>& trace, const Matrix<S>& dA_next,
                                StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    return Inner::template up_backward<S>(at, in, trace, dA_next, grad, scratch) += dA_next;
  }
};

}  // namespace ttt
