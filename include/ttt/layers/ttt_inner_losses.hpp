/// @file
/// The inner losses (inner/inner_losses.hpp) of every head and token that a forward of a TTT layer
/// read: whether, and how fast, its hidden state learns. Recomputed from the forward's cache, by
/// the primal form, which is slow by design; the forward itself does not change.
#pragma once

#include "ttt/inner/inner_losses.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

/// Of a layer with the published rule. Four matrices [H, T], the sequences of a batch side by side
/// as in the forward that filled `cache`. `initial` is taken at the W_0 that the layer has now, the
/// rest at what the cache holds, so ask before the parameters change. Throws
/// `std::invalid_argument` where the cache is of a layer with other sizes.
template <Scalar S, InnerModel M>
InnerLosses<S> inner_losses(const TTTLayer<S, M>& layer, const TTTCache<S, M>& cache) {
  const Index H = layer.config().heads, f = layer.config().head_width(), T = cache.x.cols();
  const TTTActivations<S>& a = cache.activations;
  require_shape("inner_losses: the cache's k", a.k, layer.width(), T);
  require_shape("inner_losses: the cache's rate", a.rate, H, T);
  require_shape("inner_losses: the cache's tau", cache.tau, layer.config().mini_batch, 1);

  const Matrix<S> empty(H, T);
  InnerLosses<S> losses{empty, empty, empty, empty};
  const InnerWeights<S, M> W_0 = layer.initial_weights();
  for (std::size_t i = 0; i < cache.pieces.size(); ++i) {
    const TTTPiece& piece = cache.pieces[i];
    for (Index h = 0; h < H; ++h) {
      InnerLossWalk<S, M> walk(W_0.head(h), cache.weights[i].head(h), layer.parameters().norm(h),
                               f);
      if (piece.offset > 0) walk.resume(cache.carried[i].sums.head(h), cache.tau[piece.offset - 1]);
      for (Index n = 0; n < piece.size; ++n) {
        const Index t = piece.begin + n;
        const auto token = walk.token(a.k.col(t).segment(h * f, f), a.v.col(t).segment(h * f, f),
                                      a.rate(h, t), cache.tau[piece.offset + n]);
        losses.initial(h, t) = token.initial;
        losses.border(h, t) = token.border;
        losses.before(h, t) = token.before;
        losses.after(h, t) = token.after;
      }
    }
  }
  return losses;
}

}  // namespace ttt
