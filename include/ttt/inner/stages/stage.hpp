/// @file
/// What a stage of an inner model is. A stage maps tokens A [in, n] to A_next [out, n] and takes
/// part in the dual form by what it does in each of its sweeps:
///   up      A_next = s(A; W)                     the training view at the anchor
///   down    D = J' D_next, J = ds/dA             the loss's gradient, from the top down
///   answer  B_next = s(B; W_t)                   the test view; W_t differs from token to token
///   carry   X <- X + sum_s e(s) G_s              (stages with weights)
/// and in those of the adjoint (dX is dLoss/dX):
///   1 answer_backward, top down    dB from dB_next; what the answer owes to A, D_next, W, E
///   2 down_backward, bottom up     dD_next from dD, second order included
///   3 the loss, between the sweeps
///   4 up_backward, top down        dA from dA_next
/// The first stage has a null D and dD where nothing learns below it. The adjoint's sweeps return a
/// matrix of the stage's scratch, which lasts until the next chunk; the caller may change it.
/// pointwise.hpp is the shortest example of a whole stage.
#pragma once

#include "ttt/core/small_product.hpp"
#include "ttt/inner/chunk.hpp"

namespace ttt {

/// What a stage did in the forward: its inputs A and B, the gradient D_next at its output.
template <Scalar S>
struct StageInputs {
  MatrixView<S> A, D_next, B;  // [in, n], [out, n], [in, n]
};

/// A chunk as one stage sees it: the weights that belong to the stage begin with number `first`.
template <Scalar S, InnerModel M>
struct StageChunk {
  const Chunk<S, M>& chunk;
  std::size_t first;

  const auto& W() const { return chunk.W.W[first]; }
  const auto& b() const { return chunk.W.b[first]; }
  /// Whether this is one token of a stream (`DualForm::step`), whose gradient the carried weights
  /// have already when it is answered.
  bool steps() const { return chunk.E.size() == 0 && chunk.K.cols() == 1; }
  StageChunk later(std::size_t weights) const { return {chunk, first + weights}; }
};

/// Where the adjoint's sweeps add what a chunk owes to its weights and rates.
template <Scalar S, InnerModel M>
struct StageGradient {
  std::span<const WrittenWeights<S, M>> written;
  ChunkGradient<S, M>& out;
};

/// The parts of a stage that a compiler can name; see above for the sweeps.
template <class St>
concept Stage = requires(std::size_t l, Index in, Index head_width) {
  { St::weight_count } -> std::convertible_to<std::size_t>;
  { St::width(in, head_width) } -> std::same_as<Index>;
  { St::weight_shape(l, in, head_width) } -> std::same_as<WeightShape>;
  { St::passes_gradient_down(l, true) } -> std::same_as<bool>;
  typename St::template Trace<double>;
  typename St::template Scratch<double>;
};

/// A stage without weights has none to carry into.
struct WithoutWeights {
  static constexpr std::size_t weight_count = 0;
  static constexpr WeightShape weight_shape(std::size_t, Index, Index) { return {}; }
  static constexpr bool passes_gradient_down(std::size_t, bool) { return false; }
  static void carry(std::size_t, const auto&, auto&, const auto&, auto&) {}
  static void each_learning_gradient(auto&, auto&, auto&&) {}
};

}  // namespace ttt
