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

#include "ttt/inner/stages/stage.hpp"
#include "ttt/nn/moments.hpp"

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
    for (Index t = 0; t < in.A.cols(); ++t)
      token_down_backward<S>(trace.x.col(t), trace.inverse_s[t], in.D_next.col(t), dD->col(t),
                             scratch.dD_next.col(t), scratch.dA.col(t));
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
    ensure_shape(x, A.rows(), A.cols());
    if (inverse_s.size() != A.cols()) inverse_s.resize(A.cols());
    for (Index t = 0; t < A.cols(); ++t) {
      const S* const a = A.col(t).data();
      S* const x_t = x.col(t).data();
      const Moments<S> moments(a, A.rows(), epsilon, Centred);
      each_lane<S>(A.rows(), [&](auto at) { at.store(x_t, moments.normalize(at(a))); });
      inverse_s[t] = moments.inverse_s;
    }
  }

  /// mean(d), 0 where nothing is centred, and mean(x . d), for P(d) = d - mean(d) - x mean(x . d).
  template <Scalar S>
  struct Projection {
    S mean = S(0), along;

    Projection(Index rows, const S* x, const S* d) {
      const S share = S(1) / static_cast<S>(rows);
      Sum<S> sum, sum_xd;
      each_lane<S>(rows, [&](auto at) {
        sum += at(d);
        sum_xd += at(x) * at(d);
      });
      if (Centred) mean = share * sum.total();
      along = share * sum_xd.total();
    }
    auto operator()(const auto& x, const auto& d) const { return d - mean - x * along; }
  };

  /// Column by column J d = P(d) / s.
  template <Scalar S>
  static void jacobian(const Matrix<S>& x, const Vector<S>& inverse_s, MatrixIn<S> d,
                       Matrix<S>& result) {
    ensure_shape(result, d.rows(), d.cols());
    for (Index t = 0; t < d.cols(); ++t) {
      const S *x_t = x.col(t).data(), *d_t = d.col(t).data();
      S* const result_t = result.col(t).data();
      const Projection<S> P(d.rows(), x_t, d_t);
      each_lane<S>(d.rows(),
                   [&](auto at) { at.store(result_t, P(at(x_t), at(d_t)) * inverse_s[t]); });
    }
  }

  /// dA of one token, from dD and from dD_next = J dD.
  template <Scalar S>
  static void token_down_backward(VectorIn<S> x_t, S inverse_s, VectorIn<S> D_next, VectorIn<S> dD,
                                  VectorIn<S> dD_next, VectorOut<S> dA_t) {
    const Index rows = x_t.size();
    const S *x = x_t.data(), *d = D_next.data(), *g = dD.data(), *jg = dD_next.data();
    S* const dA = dA_t.data();
    const S share = S(1) / static_cast<S>(rows);
    Sum<S> sum_xd, sum_xg, sum_jgd;
    each_lane<S>(rows, [&](auto at) {
      sum_xd += at(x) * at(d);
      sum_xg += at(x) * at(g);
      sum_jgd += at(jg) * at(d);
    });
    const S m = share * sum_xd.total(), mean_xg = share * sum_xg.total();
    const S ds = -inverse_s * sum_jgd.total();
    each_lane<S>(rows,
                 [&](auto at) { at.store(dA, (at(g) * m + at(d) * mean_xg) * -inverse_s); });  // dx
    const Projection<S> P(rows, x, dA);
    each_lane<S>(
        rows, [&](auto at) { at.store(dA, P(at(x), at(dA)) * inverse_s + at(x) * (share * ds)); });
  }
};

using LayerNormStage = NormStage<true>;
using RMSNormStage = NormStage<false>;

}  // namespace ttt
