/// @file
/// The update of gradient descent without memory, the published one among its rules: within a
/// mini-batch that starts with the weights W
///   W_t = W - tau_t R_t      R_t = R_{t-1} + theta_t G_t,  R = 0 at a border
/// and at the border W <- W - tau_{b-1} R. Without token factors tau = 1; a rule that answers
/// before it learns reads W alone.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.4, and the official code.
#pragma once

#include "ttt/core/product.hpp"
#include "ttt/inner/chunk.hpp"
#include "ttt/inner/online_step.hpp"
#include "ttt/layers/ttt_piece.hpp"

namespace ttt {

template <Scalar S, InnerModel M, class Rule>
struct RunningSum {
  using Weights = InnerWeights<S, M>;
  using Form = ChunkForm<S, M>;
  static constexpr std::size_t carried_count = 1;
  static constexpr bool learns_first = Rule::schedule.learns_first;

  struct Carried {
    Weights sums;  // R
    static auto fields(auto& self) { return std::tuple(field("sums", self.sums)); }
  };
  struct Scratch {
    Matrix<S> E;                     // [n, n]; empty where answers come first
    Vector<S> read, e, d_read, d_e;  // [n]
  };

  static Carried initial(const Weights& W_0) { return {zeros_like(W_0)}; }
  static void add_initial(const Carried&, Weights&) {}
  static void check(const Carried& carried, Index, auto&& require_weights) {
    require_weights(carried.sums);
  }
  static auto current(auto& weights, auto&, Index h) { return std::array{weights.head(h)}; }

  /// Tokens at the start of a mini-batch read nothing but W: no earlier one left a gradient.
  static bool keeps(const TTTPiece& piece) { return piece.offset > 0; }
  static bool reads_anchor() { return true; }
  static bool reads_carried(const TTTPiece& piece) { return learns_first && piece.offset > 0; }

  /// E(s, t) = theta_s tau_t, how the answers read R, and the weights e with which the piece's
  /// gradients are carried on: into W where it ends the mini-batch, else into R.
  static void prepare(const TTTPiece& piece, const PieceRates<S>& rates, Scratch& scratch) {
    if constexpr (learns_first) {
      ensure_shape(scratch.E, piece.size, piece.size);
      for (Index t = 0; t < piece.size; ++t)
        each_lane<S>(piece.size, [&](auto at) {
          at.store(scratch.E.col(t).data(), at(rates.theta.data()) * rates.tau[t]);
        });
    }
    scratch.read.resize(piece.size);
    scratch.e.resize(piece.size);
    for (Index t = 0; t < piece.size; ++t) {
      scratch.read[t] = -rates.tau[t];
      scratch.e[t] = piece.ends_mini_batch ? -rates.last_tau * rates.theta[t] : rates.theta[t];
    }
  }

  static const Matrix<S>& kernel(const Scratch& scratch) { return scratch.E; }

  /// A piece that keeps nothing reads nothing: its views are never looked at.
  static std::array<CarriedWeights<S, M>, 1> read(const Weights& weights, const Carried& carried,
                                                  Index h, const TTTPiece& piece,
                                                  const Scratch& scratch) {
    const Weights& R = keeps(piece) ? carried.sums : weights;
    return {CarriedWeights<S, M>{R.head(h), scratch.read}};
  }

  static void carry(typename Form::Trace& trace, MatrixIn<S> K, const TTTPiece& piece,
                    const PieceRates<S>& rates, Index h, Weights& weights, Carried& carried,
                    Scratch& scratch) {
    auto W = weights.head(h), R = carried.sums.head(h);
    if (piece.ends_mini_batch && piece.offset > 0) finish_mini_batch(W, R, rates.last_tau);
    Form::carry(trace, K, scratch.e, piece.ends_mini_batch ? W : R);
  }

  /// Forward: W+ = W - tau_{b-1} R + (carry), R+ = 0; elsewhere R+ = R + (carry).
  static std::array<WrittenWeights<S, M>, 1> carry_backward(
      const Weights&, const Carried& before, Index slot, const TTTPiece& piece,
      const PieceRates<S>& rates, typename Form::Trace&, MatrixIn<S>, Index h, Weights& d_weights,
      Carried& d_carried, PieceRateGradients<S>& d, Scratch& scratch) {
    const auto dW = read_only(d_weights.head(h));
    if (piece.ends_mini_batch && piece.offset > 0) {
      d.d_last_tau -= inner_product(dW, before.sums.head(slot));
      set_zero(d_carried.sums.head(h));
      add_scaled(d_carried.sums.head(h), -rates.last_tau, dW);
    }
    scratch.d_read.resize(piece.size);
    scratch.d_e.resize(piece.size);
    return {WrittenWeights<S, M>{piece.ends_mini_batch ? dW : read_only(d_carried.sums.head(h)),
                                 scratch.e, scratch.d_e}};
  }

  static std::array<CarriedGradient<S, M>, 1> read_backward(Carried& d_carried, Index h,
                                                            Scratch& scratch) {
    return {CarriedGradient<S, M>{d_carried.sums.head(h), scratch.d_read}};
  }

  /// After the chunk's adjoint: what theta and tau owe to E, read and e.
  static void rates_backward(const TTTPiece& piece, const PieceRates<S>& rates, const Matrix<S>& dE,
                             Index h, Carried& d_carried, PieceRateGradients<S>& d,
                             Scratch& scratch) {
    if (piece.offset == 0) set_zero(d_carried.sums.head(h));
    if constexpr (learns_first) {
      Product<S>::ab_column(dE, rates.tau, d.d_theta);
      Product<S>::atb_column(dE, rates.theta, d.d_tau);
      if (piece.offset > 0) d.d_tau -= scratch.d_read;
    }
    if (piece.ends_mini_batch) {
      d.d_theta -= rates.last_tau * scratch.d_e;
      d.d_last_tau -= rates.theta.dot(scratch.d_e);
    } else {
      d.d_theta += scratch.d_e;
    }
  }
};

}  // namespace ttt
