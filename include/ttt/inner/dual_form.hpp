/// @file
/// The dual form of a stack of stages: the outputs of n tokens that learn from one another, and the
/// weights that they leave behind, by matrix products, without any per-token gradient; and its
/// exact adjoint, second order included. Each is a few sweeps over the stages (stages/stage.hpp):
///   forward   up with K, the loss's gradient at the top, down, answer with Q;  carry
///   backward  1 answer, top down   2 down, bottom up   3 the loss's gradient   4 up, top down
/// All products have one side of width n or f; the adjoint costs about twice an inner forward and
/// backward. W, X are per head; K, Q, V are [f, n].
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.5 and appendix A, here for any stack; the
/// adjoint derived by hand. Tests compare both with the official code and with differences.
#pragma once

#include <limits>

#include "ttt/inner/stack.hpp"

namespace ttt {

template <Scalar S, StackModel M>
struct DualForm {
  using Stages = typename M::Stages;
  using Weights = HeadWeights<S, M::weight_count>;
  using ConstWeights = HeadWeights<const S, M::weight_count>;

  /// What one chunk leaves in memory: scratch for a forward, input of the adjoint. Reused.
  struct Trace {
    typename Stages::template Trace<S> stages;
    Matrix<S> Z, Y, Del;      // [f, n] tops of training and test view, gradient of the loss at Z
    Index finite_tokens = 0;  // tokens before the first one that is not finite
  };

  /// Scratch of the adjoint. Reused.
  struct Scratch {
    typename Stages::template Scratch<S> stages;
    Matrix<S> dY, dZ;
  };

  /// Writes the outputs O [f, n].
  static void forward(const Chunk<S, M>& chunk, MatrixOut<S> O, Trace& trace) {
    learn(chunk, trace);
    set_poisoned_tokens_aside(trace);
    answer(chunk, O, trace);
  }

  /// One token of a stream: its gradient, times `rate`, is added to R, and the output reads R as
  /// the only carried weights of `chunk`, whose E is empty: the same numbers, fewer products.
  static void step(const Chunk<S, M>& chunk, VectorIn<S> rate, Weights R, MatrixOut<S> z,
                   Trace& trace) {
    eigen_assert(chunk.K.cols() == 1 && chunk.E.size() == 0);
    learn(chunk, trace);
    set_poisoned_tokens_aside(trace);
    carry(trace, chunk.K, rate, R);
    answer(chunk, z, trace);
  }

  /// X <- X + sum_s e(s) G_s: into the weights at a border, else into the carried sums.
  static void carry(Trace& trace, MatrixIn<S> K, VectorIn<S> e, Weights X) {
    Stages::carry(0, StageInputs<S>{K, trace.Del, K}, trace.stages, e, X);
    if (trace.finite_tokens == e.size()) return;
    for (auto& W : X.W) W.setConstant(std::numeric_limits<S>::quiet_NaN());
    for (auto& b : X.b) b.setConstant(std::numeric_limits<S>::quiet_NaN());
  }

  /// Adjoint of the forward that has just filled `trace`, and of the carries that followed it.
  static void backward(const Chunk<S, M>& chunk, std::span<const WrittenWeights<S, M>> written,
                       const Trace& trace, MatrixIn<S> dO, ChunkGradient<S, M>& out,
                       Scratch& scratch) {
    out.dE.setZero();
    for (auto& carried : out.carried) carried.d_read.setZero();
    for (auto& carry : written) VectorOut<S>(carry.d_e).setZero();
    const StageChunk<S, M> at{chunk, 0};
    const StageInputs<S> in{chunk.K, trace.Del, chunk.Q};
    StageGradient<S, M> grad{written, out};

    ensure_shape(scratch.dY, dO.rows(), dO.cols());
    M::Output::template output_backward<S>(trace.Y, chunk.norm, dO, scratch.dY, out.dQ, out.norm);
    out.dQ +=
        Stages::template answer_backward<S>(at, in, trace.stages, scratch.dY, grad, scratch.stages);
    const Matrix<S>& dDel =
        Stages::template down_backward<S>(at, in, trace.stages, nullptr, grad, scratch.stages);
    ensure_shape(scratch.dZ, dO.rows(), dO.cols());
    out.dK.setZero();
    out.dV.setZero();
    M::Output::template gradient_backward<S>(trace.Z, chunk.K, chunk.V, chunk.norm, dDel,
                                             scratch.dZ, out.dK, out.dV, out.norm);
    out.dK +=
        Stages::template up_backward<S>(at, in, trace.stages, scratch.dZ, grad, scratch.stages);
  }

  /// Z = what the stages make of the tokens X, both [f, n], at the weights W.
  static void predict(const ConstWeights& W, const HeadNorm<S>& norm, MatrixIn<S> X, Matrix<S>& Z,
                      Trace& trace) {
    const Chunk<S, M> chunk{W, true, {}, norm, X, X, X, X};
    Stages::template up<S>(StageChunk<S, M>{chunk, 0}, X, Z, trace.stages);
  }

  /// Adds the gradient of the loss of one token k, v [f], in every weight, to G.
  static void add_gradient(const ConstWeights& W, const HeadNorm<S>& norm, VectorIn<S> k,
                           VectorIn<S> v, Weights G, Trace& trace) {
    learn({W, true, {}, norm, k, k, v, k}, trace);
    trace.finite_tokens = 1;
    carry(trace, k, Vector<S>::Ones(1), G);
  }

 private:
  static void answer(const Chunk<S, M>& chunk, MatrixOut<S> O, Trace& trace) {
    Stages::template answer<S>(StageChunk<S, M>{chunk, 0}, {chunk.K, trace.Del, chunk.Q}, trace.Y,
                               trace.stages);
    M::Output::template output<S>(trace.Y, chunk.Q, chunk.norm, O);
    if (chunk.E.size() == 0) return;  // what a poisoned token taught is not among what was read
    const Index poisoned = O.cols() - trace.finite_tokens;
    O.rightCols(poisoned).setConstant(std::numeric_limits<S>::quiet_NaN());
  }

  static void learn(const Chunk<S, M>& chunk, Trace& trace) {
    const StageChunk<S, M> at{chunk, 0};
    Stages::template up<S>(at, chunk.K, trace.Z, trace.stages);
    ensure_shape(trace.Del, chunk.K.rows(), chunk.K.cols());
    M::Output::template gradient<S>(trace.Z, chunk.K, chunk.V, chunk.norm, trace.Del);
    Stages::template down<S>(at, trace.Del, nullptr, trace.stages);
  }

  /// A token that is not finite must not reach earlier ones, but in the product Del M its NaN
  /// would meet their zeros, and 0 * NaN is NaN. So its column is zero here, and `forward` and
  /// `carry` put the NaN back where it belongs: from that token on, and into the state.
  static void set_poisoned_tokens_aside(Trace& trace) {
    const Index n = trace.Del.cols();
    trace.finite_tokens = n;
    Stages::template each_learning_gradient<S>(trace.Del, trace.stages, [&](const Matrix<S>& Del) {
      if (all_finite(Del.data(), Del.size())) return;
      for (Index t = 0; t < trace.finite_tokens; ++t)
        if (!all_finite(Del.col(t).data(), Del.rows())) trace.finite_tokens = t;
    });
    if (trace.finite_tokens == n) return;
    Stages::template each_learning_gradient<S>(trace.Del, trace.stages, [&](Matrix<S>& Del) {
      Del.rightCols(n - trace.finite_tokens).setZero();
    });
  }

  /// One pass: 0 * x is 0 only where x is finite.
  static bool all_finite(const S* numbers, Index count) {
    Sum<S> zero;
    each_lane<S>(count, [&](auto at) { zero += at(numbers) * S(0); });
    return zero.total() == S(0);
  }
};

/// How a stack runs.
template <Scalar S, StackModel M>
struct ChunkFormOf<S, M> {
  using type = DualForm<S, M>;
};

}  // namespace ttt
