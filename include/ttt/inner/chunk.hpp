/// @file
/// The interface of a chunk: n tokens that learn from one another, all gradients taken at one
/// point, the anchor W. For token t
///   W_t = a W + sum_j read_j(t) X_j - sum_{s<=t} E(s,t) G_s,   G_s = grad l(W; k_s, v_s)
///   z_t = f(q_t; W_t)
/// and what it leaves behind for later tokens: X_j <- X_j + sum_s e_j(s) G_s. The X_j are weights
/// that earlier tokens left: the sum of gradients of an unfinished mini-batch (read with -tau_t),
/// momentum, decayed weights. What E holds below its diagonal is not read. Rates, momentum and
/// forgetting are all of this form (update rules); the dual form (dual_form.hpp) and first-order
/// models (first_order.hpp) both compute it, and its adjoint.
#pragma once

#include <span>

#include "ttt/inner/inner_model.hpp"

namespace ttt {

/// Weights that earlier tokens left, and how token t reads them.
template <Scalar S, InnerModel M>
struct CarriedWeights {
  HeadWeights<const S, M::weight_count> X;
  VectorView<S> read;  // [n]
};

/// What the chunk of one head reads.
template <Scalar S, InnerModel M>
struct Chunk {
  HeadWeights<const S, M::weight_count> W;  // the anchor
  bool reads_anchor;                        // a = 1, or a = 0
  std::span<const CarriedWeights<S, M>> carried;
  HeadNorm<S> norm;
  MatrixView<S> K, Q, V;  // [f, n]
  /// [n, n]; empty where the answers read nothing that the chunk itself has learned.
  MatrixView<S> E;
};

/// A carry that the forward did, X <- X + sum_s e(s) G_s, and its adjoint's arguments.
template <Scalar S, InnerModel M>
struct WrittenWeights {
  HeadWeights<const S, M::weight_count> dX;  // given
  VectorView<S> e;                           // [n], as in the forward
  VectorOut<S> d_e;                          // [n], overwritten
};

/// Adjoints of one `CarriedWeights`. dX may be the memory of a `WrittenWeights::dX`, as dW may.
template <Scalar S, InnerModel M>
struct CarriedGradient {
  HeadWeights<S, M::weight_count> dX;  // added into
  VectorOut<S> d_read;                 // [n], overwritten
};

/// Adjoints of a chunk. dW may be the memory of a `WrittenWeights::dX`: that is read first.
template <Scalar S, InnerModel M>
struct ChunkGradient {
  HeadWeights<S, M::weight_count> dW;  // added into
  std::span<CarriedGradient<S, M>> carried;
  HeadNormGradient<S> norm;  // added into
  MatrixOut<S> dK, dQ, dV;   // [f, n], overwritten
  MatrixOut<S> dE;           // [n, n], overwritten: zero below the diagonal
};

/// How an inner model runs over a chunk: `DualForm` for a stack, `FirstOrderForm` for a user's own
/// function. Both have forward, step, carry, backward, predict and add_gradient, with the same
/// meaning.
template <Scalar S, InnerModel M>
struct ChunkFormOf;
template <Scalar S, InnerModel M>
using ChunkForm = typename ChunkFormOf<S, M>::type;
template <class S, class M>
concept HasChunkForm = requires {
  typename ChunkFormOf<S, M>::type;
};

}  // namespace ttt
