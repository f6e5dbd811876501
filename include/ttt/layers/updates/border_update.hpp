/// @file
/// The update of rules whose direction is not linear in the gradient: a mini-batch of b tokens
/// answers with the weights W of its start, and moves them when it is complete,
///   R = sum_t theta_t G_t      P <- mu P + R      W <- (1 - alpha) W - direction(P)
/// with mu and alpha the means over the mini-batch; without momentum P = R. The direction is taken
/// of each weight matrix; biases move by P itself.
/// Source: LaCT (Zhang et al. 2025, arXiv 2505.23884), section 3, with forgetting in the place of
/// its normalised weights; Muon (Jordan 2024) for the direction.
#pragma once

#include "ttt/inner/chunk.hpp"
#include "ttt/inner/dual_form.hpp"
#include "ttt/inner/update_rule.hpp"
#include "ttt/layers/ttt_piece.hpp"

namespace ttt {

template <Scalar S, InnerModel M, class Rule>
struct BorderUpdate {
  using Weights = InnerWeights<S, M>;
  using Form = ChunkForm<S, M>;
  using Head = HeadWeights<S, M::weight_count>;
  using ConstHead = HeadWeights<const S, M::weight_count>;
  using Direction = typename RuleTraits<Rule>::Direction;
  static constexpr bool has_momentum = Rule::momentum.present;
  static constexpr bool forgets = Rule::forgetting.present;
  static constexpr std::size_t carried_count = 0;

  struct Carried {
    Weights sums;      // R
    Weights momentum;  // P; empty without
    Matrix<S> totals;  // [2, H] sums of mu and of alpha; zero where the rule lacks them
    static auto fields(auto& self) {
      return std::tuple(field("sums", self.sums), field("momentum", self.momentum),
                        field("totals", self.totals));
    }
  };
  struct Scratch {
    Matrix<S> empty;  // E: answers come first
    Vector<S> d_e;    // [n]
    std::array<typename Direction::template Scratch<S>, M::weight_count> direction;
    Weights sums, D;  // of one head: P at the border, what the direction makes of it
  };

  static Carried initial(const Weights& W_0) {
    Carried carried{zeros_like(W_0), {}, {}};
    if constexpr (has_momentum) carried.momentum = carried.sums;
    if constexpr (has_momentum || forgets) carried.totals.setZero(2, W_0.heads);
    return carried;
  }
  static void add_initial(const Carried&, Weights&) {}
  static void check(const Carried& carried, Index heads, auto&& require_weights) {
    require_weights(carried.sums);
    if constexpr (has_momentum) require_weights(carried.momentum);
    if constexpr (has_momentum || forgets)
      require_shape("TTTLayer: the state's totals", carried.totals, 2, heads);
  }
  static auto current(auto& weights, auto&, Index h) { return std::array{weights.head(h)}; }

  static bool keeps(const TTTPiece&) { return true; }
  static bool reads_anchor() { return true; }
  static bool reads_carried(const TTTPiece&) { return false; }

  static void prepare(const TTTPiece&, const PieceRates<S>&, Scratch&) {}
  static const Matrix<S>& kernel(const Scratch& scratch) { return scratch.empty; }
  static std::array<CarriedWeights<S, M>, 0> read(const Weights&, const Carried&, Index,
                                                  const TTTPiece&, const Scratch&) {
    return {};
  }

  static void carry(typename Form::Trace& trace, MatrixIn<S> K, const TTTPiece& piece,
                    const PieceRates<S>& rates, Index h, Weights& weights, Carried& carried,
                    Scratch& scratch) {
    auto R = carried.sums.head(h);
    Form::carry(trace, K, rates.theta, R);
    const Totals totals = totals_after(rates, carried, h);
    if constexpr (has_momentum || forgets) carried.totals.col(h) = totals;
    if (!piece.ends_mini_batch) return;
    const Means means(totals, piece);
    if constexpr (has_momentum) {
      auto P = carried.momentum.head(h);
      scale(P, means.mu);
      add_scaled(P, S(1), R);
      copy_weights(P, R);
    }
    auto D = one_head(K.rows(), scratch.D);
    for (std::size_t l = 0; l < M::weight_count; ++l)
      Rule::direction.template forward<S>(R.W[l], D.W[l], scratch.direction[l]);
    for (std::size_t l = 0; l < M::weight_count; ++l) D.b[l] = R.b[l];
    scale(weights.head(h), S(1) - means.alpha);
    add_scaled(weights.head(h), S(-1), D);
    set_zero(R);
    if constexpr (has_momentum || forgets) carried.totals.col(h).setZero();
  }

  /// Forward, at a border: P+ = mu P + R + (carry), W+ = (1 - alpha) W - D(P+), R+ = 0, totals 0.
  static std::array<WrittenWeights<S, M>, 1> carry_backward(
      const Weights& weights, const Carried& before, Index slot, const TTTPiece& piece,
      const PieceRates<S>& rates, typename Form::Trace& trace, MatrixIn<S> K, Index h,
      Weights& d_weights, Carried& d_carried, PieceRateGradients<S>& d, Scratch& scratch) {
    if (piece.ends_mini_batch)
      border_backward(weights, before, slot, piece, rates, trace, K, h, d_weights, d_carried,
                      scratch);
    if constexpr (has_momentum) d.d_mu.setConstant(d_carried.totals(0, h));
    if constexpr (forgets) d.d_alpha.setConstant(d_carried.totals(1, h));
    scratch.d_e.resize(piece.size);
    return {WrittenWeights<S, M>{read_only(d_carried.sums.head(h)), rates.theta, scratch.d_e}};
  }

  static std::array<CarriedGradient<S, M>, 0> read_backward(Carried&, Index, Scratch&) {
    return {};
  }
  static void rates_backward(const TTTPiece&, const PieceRates<S>&, const Matrix<S>&, Index,
                             Carried&, PieceRateGradients<S>& d, Scratch& scratch) {
    d.d_theta = scratch.d_e;
  }

 private:
  using Totals = Eigen::Matrix<S, 2, 1>;

  /// The means of mu and alpha over a mini-batch that is complete.
  struct Means {
    S share, mu, alpha;
    Means(const Totals& totals, const TTTPiece& piece)
        : share(S(1) / static_cast<S>(piece.offset + piece.size)),
          mu(share * totals[0]),
          alpha(share * totals[1]) {}
  };

  /// Sums of mu and alpha of the mini-batch's tokens up to this piece's last.
  static Totals totals_after(const PieceRates<S>& rates, const Carried& before, Index h) {
    if constexpr (!has_momentum && !forgets) return Totals::Zero();
    return before.totals.col(h) + Totals(rates.mu.sum(), rates.alpha.sum());
  }

  static Head one_head(Index head_width, Weights& memory) {
    if (memory.heads == 0) memory = Weights::zero(1, head_width);
    return memory.head(0);
  }

  static void border_backward(const Weights& weights, const Carried& before, Index slot,
                              const TTTPiece& piece, const PieceRates<S>& rates,
                              typename Form::Trace& trace, MatrixIn<S> K, Index h,
                              Weights& d_weights, Carried& d_carried, Scratch& scratch) {
    const Means means(totals_after(rates, before, slot), piece);
    auto P = one_head(K.rows(), scratch.sums);  // P+ as the forward made it
    copy_weights(before.sums.head(slot), P);
    Form::carry(trace, K, rates.theta, P);
    if constexpr (has_momentum) add_scaled(P, means.mu, before.momentum.head(slot));

    auto dW = d_weights.head(h), dR = d_carried.sums.head(h), D = one_head(K.rows(), scratch.D);
    for (std::size_t l = 0; l < M::weight_count; ++l) {  // dP = -D'(P) dW
      D.W[l] = -dW.W[l];
      Rule::direction.template backward<S>(P.W[l], D.W[l], dR.W[l], scratch.direction[l]);
      dR.b[l] = -dW.b[l];
    }
    if constexpr (has_momentum || forgets) d_carried.totals.col(h).setZero();
    if constexpr (forgets) {
      d_carried.totals(1, h) = -means.share * inner_product(dW, weights.head(slot));
      scale(dW, S(1) - means.alpha);
    }
    if constexpr (has_momentum) {
      auto dP = d_carried.momentum.head(h);
      add_scaled(dR, S(1), dP);
      d_carried.totals(0, h) = means.share * inner_product(dR, before.momentum.head(slot));
      copy_weights(dR, dP);
      scale(dP, means.mu);
    }
  }
};

}  // namespace ttt
