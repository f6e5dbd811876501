/// @file
/// Two chains of the same input, multiplied: A_next = l(A) . r(A), and with one of them SwiGLU:
///   SwiGLUStage<m>: A_next = silu(W_1 A) . (W_2 A)           (Shazeer 2020, arXiv 2002.05202)
///   down    D_l = r(A) . D_next,  D_r = l(A) . D_next,  D = J_l' D_l + J_r' D_r
///   adjoint of down:  dD_next = r . dD_l + l . dD_r,  dl = D_next . dD_r,  dr = D_next . dD_l
#pragma once

#include "ttt/inner/stages/affine.hpp"
#include "ttt/inner/stages/chain.hpp"

namespace ttt {

template <StageOrActivation LeftPart, StageOrActivation RightPart>
struct Gated {
  using Left = StageOf<LeftPart>;
  using Right = StageOf<RightPart>;
  static constexpr std::size_t weight_count = Left::weight_count + Right::weight_count;

  /// -1 where the two parts differ: `StackOf` refuses that.
  static constexpr Index width(Index in, Index head_width) {
    const Index left = Left::width(in, head_width), right = Right::width(in, head_width);
    return left == right ? left : -1;
  }
  static constexpr WeightShape weight_shape(std::size_t l, Index in, Index head_width) {
    if (l < Left::weight_count) return Left::weight_shape(l, in, head_width);
    return Right::weight_shape(l - Left::weight_count, in, head_width);
  }

  static constexpr bool passes_gradient_down(std::size_t l, bool below) {
    if (l < Left::weight_count) return Left::passes_gradient_down(l, below);
    return Right::passes_gradient_down(l - Left::weight_count, below);
  }

  template <Scalar S>
  struct Trace {
    typename Left::template Trace<S> left;
    typename Right::template Trace<S> right;
    Matrix<S> l, r, D_l, D_r, l_answer, r_answer, D;  // [out, n], D [in, n]
  };

  template <Scalar S>
  struct Scratch {
    typename Left::template Scratch<S> left;
    typename Right::template Scratch<S> right;
    Matrix<S> dl, dr, dB_l, dB_r, dD_next;
  };

  template <Scalar S, InnerModel Model>
  static void up(const StageChunk<S, Model>& at, MatrixIn<S> A, Matrix<S>& A_next,
                 Trace<S>& trace) {
    Left::template up<S>(at, A, trace.l, trace.left);
    Right::template up<S>(right(at), A, trace.r, trace.right);
    multiply(trace.l, trace.r, A_next);
  }

  template <Scalar S, InnerModel Model>
  static void down(const StageChunk<S, Model>& at, MatrixIn<S> D_next, Matrix<S>* D,
                   Trace<S>& trace) {
    multiply(trace.r, D_next, trace.D_l);
    multiply(trace.l, D_next, trace.D_r);
    Left::template down<S>(at, trace.D_l, D, trace.left);
    Right::template down<S>(right(at), trace.D_r, D ? &trace.D : nullptr, trace.right);
    if (D) *D += trace.D;
  }

  template <Scalar S, InnerModel Model>
  static void answer(const StageChunk<S, Model>& at, const StageInputs<S>& in, Matrix<S>& B_next,
                     Trace<S>& trace) {
    Left::template answer<S>(at, {in.A, trace.D_l, in.B}, trace.l_answer, trace.left);
    Right::template answer<S>(right(at), {in.A, trace.D_r, in.B}, trace.r_answer, trace.right);
    multiply(trace.l_answer, trace.r_answer, B_next);
  }

  template <Scalar S>
  static void carry(std::size_t first, const StageInputs<S>& in, Trace<S>& trace, VectorIn<S> e,
                    auto& X) {
    Left::carry(first, StageInputs<S>{in.A, trace.D_l, in.B}, trace.left, e, X);
    Right::carry(first + Left::weight_count, StageInputs<S>{in.A, trace.D_r, in.B}, trace.right, e,
                 X);
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& answer_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                    const Trace<S>& trace, const Matrix<S>& dB_next,
                                    StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    multiply(trace.r_answer, dB_next, scratch.dB_l);
    multiply(trace.l_answer, dB_next, scratch.dB_r);
    Matrix<S>& dB = Left::template answer_backward<S>(at, {in.A, trace.D_l, in.B}, trace.left,
                                                      scratch.dB_l, grad, scratch.left);
    return dB += Right::template answer_backward<S>(right(at), {in.A, trace.D_r, in.B}, trace.right,
                                                    scratch.dB_r, grad, scratch.right);
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& down_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                  const Trace<S>& trace, const Matrix<S>* dD,
                                  StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    const Matrix<S>& dD_l = Left::template down_backward<S>(at, {in.A, trace.D_l, in.B}, trace.left,
                                                            dD, grad, scratch.left);
    const Matrix<S>& dD_r = Right::template down_backward<S>(right(at), {in.A, trace.D_r, in.B},
                                                             trace.right, dD, grad, scratch.right);
    multiply(in.D_next, dD_r, scratch.dl);
    multiply(in.D_next, dD_l, scratch.dr);
    multiply(trace.r, dD_l, scratch.dD_next);
    scratch.dD_next += trace.l.cwiseProduct(dD_r);
    return scratch.dD_next;
  }

  template <Scalar S, InnerModel Model>
  static Matrix<S>& up_backward(const StageChunk<S, Model>& at, const StageInputs<S>& in,
                                const Trace<S>& trace, const Matrix<S>& dA_next,
                                StageGradient<S, Model>& grad, Scratch<S>& scratch) {
    scratch.dl += trace.r.cwiseProduct(dA_next);
    scratch.dr += trace.l.cwiseProduct(dA_next);
    Matrix<S>& dA = Left::template up_backward<S>(at, {in.A, trace.D_l, in.B}, trace.left,
                                                  scratch.dl, grad, scratch.left);
    return dA += Right::template up_backward<S>(right(at), {in.A, trace.D_r, in.B}, trace.right,
                                                scratch.dr, grad, scratch.right);
  }

  template <Scalar S>
  static void each_learning_gradient(Matrix<S>&, Trace<S>& trace, auto&& fn) {
    Left::each_learning_gradient(trace.D_l, trace.left, fn);
    Right::each_learning_gradient(trace.D_r, trace.right, fn);
  }

 private:
  template <Scalar S, InnerModel Model>
  static StageChunk<S, Model> right(const StageChunk<S, Model>& at) {
    return at.later(Left::weight_count);
  }

  template <Scalar S>
  static void multiply(const auto& a, const auto& b, Matrix<S>& product) {
    ensure_shape(product, a.rows(), a.cols());
    product = a.cwiseProduct(b);
  }
};

/// silu(W_1 A) . (W_2 A), both [m f, in], without biases.
template <int Multiple = 1>
using SwiGLUStage = Gated<Chain<LinearMap<Multiple>, SiLU>, LinearMap<Multiple>>;

}  // namespace ttt
