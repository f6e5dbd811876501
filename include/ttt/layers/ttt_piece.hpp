/// @file
/// A piece: a run of tokens inside one mini-batch of one sequence, and what its tokens say of their
/// update. A stream may stop and go on at any token, so a mini-batch is any number of pieces.
#pragma once

#include <algorithm>
#include <vector>

#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

/// Columns [begin, begin + size) of the batch.
struct TTTPiece {
  Index sequence, begin, size;
  Index offset;  // place of the first token in its mini-batch
  bool ends_mini_batch;
  bool answers = true;  // false: an inner step of a token that takes another one
};

/// Longer pieces are cut: their products grow with the square.
inline constexpr Index largest_piece = 256;

/// Cuts `length` tokens whose first has the place `position` of its mini-batch into pieces, each
/// `inner_steps` times.
inline void append_pieces(Index sequence, Index begin, Index length, Index position,
                          Index mini_batch, std::vector<TTTPiece>& pieces, int inner_steps = 1) {
  for (Index done = 0; done < length;) {
    const Index size = std::min({mini_batch - position, length - done, largest_piece});
    for (int step = 1; step <= inner_steps; ++step)
      pieces.push_back({sequence, begin + done, size, position, size == mini_batch - position,
                        step == inner_steps});
    done += size;
    position = (position + size) % mini_batch;
  }
}

/// Of one head. Token s of the piece moves the weights by theta_s times its gradient.
template <Scalar S>
struct PieceRates {
  Vector<S> theta;      // [n]
  Vector<S> mu, alpha;  // [n]; empty where the rule has none
  Vector<S> tau;        // [n] token factors, 1 without
  S last_tau = 1;       // that of the mini-batch's last token
};

/// Adjoints of `PieceRates`; those of tau are empty without token factors.
template <Scalar S>
struct PieceRateGradients {
  Vector<S> d_theta, d_mu, d_alpha, d_tau;  // [n]
  S d_last_tau = 0;

  void set_zero(const PieceRates<S>& rates) {
    d_theta.setZero(rates.theta.size());
    d_mu.setZero(rates.mu.size());
    d_alpha.setZero(rates.alpha.size());
    d_tau.setZero(rates.tau.size());
    d_last_tau = 0;
  }
};

}  // namespace ttt
