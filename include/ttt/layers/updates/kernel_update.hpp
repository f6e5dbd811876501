/// @file
/// The update of rules with momentum or with forgetting after the gradient. All gradients of a
/// mini-batch are taken at the weights W of its start; beside these a stream carries the weights C
/// that its last token left, and the momentum P:
///   W_t = beta_t C + c_t P - sum_{s<=t} E(s,t) G_s      C+ = W_n,  P+ = m P - sum_s ES(s) G_s
/// with the numbers of inner/update_kernel.hpp, and at a border W <- C.
/// Source: Titans (Behrouz et al. 2024, arXiv 2501.00663), section 3.
#pragma once

#include "ttt/inner/chunk.hpp"
#include "ttt/inner/dual_form.hpp"
#include "ttt/inner/update_kernel.hpp"
#include "ttt/layers/ttt_piece.hpp"

namespace ttt {

template <Scalar S, InnerModel M, class Rule>
struct KernelUpdate {
  using Weights = InnerWeights<S, M>;
  using Form = ChunkForm<S, M>;
  static constexpr bool has_momentum = Rule::momentum.present;
  static constexpr bool forgets = Rule::forgetting.present && !Rule::forgetting.before_gradient;
  static constexpr bool learns_first = Rule::schedule.learns_first;
  static constexpr std::size_t carried_count = has_momentum ? 2 : 1;
  using Kernel = UpdateKernel<S, has_momentum, forgets>;

  struct Carried {
    Weights current;   // C
    Weights momentum;  // P; empty without
    static auto fields(auto& self) {
      return std::tuple(field("current", self.current), field("momentum", self.momentum));
    }
  };
  struct Scratch {
    Kernel kernel;
    typename Kernel::Adjoint d_kernel;
    Matrix<S> empty;                               // E, where answers come first
    Vector<S> e_current, e_momentum;               // [n] with which gradients are carried on
    Vector<S> d_beta, d_c, d_current, d_momentum;  // [n] adjoints of reads and carries
    Weights after_current, after_momentum;         // of one head: adjoints after the piece
  };

  static Carried initial(const Weights& W_0) {
    Carried carried{W_0, {}};
    if constexpr (has_momentum) carried.momentum = zeros_like(W_0);
    return carried;
  }
  /// The stream's first C is W_0.
  static void add_initial(const Carried& d_carried, Weights& d_W_0) {
    for (Index h = 0; h < d_W_0.heads; ++h)
      add_scaled(d_W_0.head(h), S(1), d_carried.current.head(h));
  }
  static void check(const Carried& carried, Index, auto&& require_weights) {
    require_weights(carried.current);
    if constexpr (has_momentum) require_weights(carried.momentum);
  }
  static auto current(auto& weights, auto& carried, Index h) {
    return std::array{weights.head(h), carried.current.head(h)};
  }

  static bool keeps(const TTTPiece&) { return true; }
  static bool reads_anchor() { return !learns_first; }
  static bool reads_carried(const TTTPiece&) { return learns_first; }

  static void prepare(const TTTPiece& piece, const PieceRates<S>& rates, Scratch& scratch) {
    scratch.kernel.build(rates.theta, rates.mu, rates.alpha);
    scratch.e_current = -scratch.kernel.E.col(piece.size - 1);
    if constexpr (has_momentum) scratch.e_momentum = -scratch.kernel.ES();
  }

  static const Matrix<S>& kernel(const Scratch& scratch) {
    return learns_first ? scratch.kernel.E : scratch.empty;
  }

  static std::array<CarriedWeights<S, M>, carried_count> read(const Weights&,
                                                              const Carried& carried, Index h,
                                                              const TTTPiece&,
                                                              const Scratch& scratch) {
    const CarriedWeights<S, M> current{carried.current.head(h), scratch.kernel.beta};
    if constexpr (has_momentum) {
      return {current, {carried.momentum.head(h), scratch.kernel.c}};
    } else {
      return {current};
    }
  }

  static void carry(typename Form::Trace& trace, MatrixIn<S> K, const TTTPiece& piece,
                    const PieceRates<S>&, Index h, Weights& weights, Carried& carried,
                    Scratch& scratch) {
    const Kernel& kernel = scratch.kernel;
    auto C = carried.current.head(h);
    scale(C, kernel.beta[piece.size - 1]);
    if constexpr (has_momentum) {
      auto P = carried.momentum.head(h);
      add_scaled(C, kernel.c[piece.size - 1], P);
      scale(P, kernel.m());
      Form::carry(trace, K, scratch.e_momentum, P);
    }
    Form::carry(trace, K, scratch.e_current, C);
    if (piece.ends_mini_batch) copy_weights(C, weights.head(h));
  }

  /// Forward: C+ = beta C + c P + (carry), P+ = m P + (carry), at a border W+ = C+.
  static std::array<WrittenWeights<S, M>, carried_count> carry_backward(
      const Weights&, const Carried& before, Index slot, const TTTPiece& piece,
      const PieceRates<S>&, typename Form::Trace&, MatrixIn<S> K, Index h, Weights& d_weights,
      Carried& d_carried, PieceRateGradients<S>&, Scratch& scratch) {
    const Index n = piece.size;
    const Kernel& kernel = scratch.kernel;
    auto& d = scratch.d_kernel;
    d.set_zero(n);
    for (auto* adjoint : {&scratch.d_beta, &scratch.d_c, &scratch.d_current, &scratch.d_momentum})
      adjoint->setZero(n);
    auto dC = d_carried.current.head(h);
    if (piece.ends_mini_batch) {
      add_scaled(dC, S(1), d_weights.head(h));
      set_zero(d_weights.head(h));
    }
    const auto after = kept(dC, K.rows(), scratch.after_current);
    d.d_beta[n - 1] = inner_product(after, before.current.head(slot));
    scale(dC, kernel.beta[n - 1]);
    const WrittenWeights<S, M> current{after, scratch.e_current, scratch.d_current};
    if constexpr (has_momentum) {
      auto dP = d_carried.momentum.head(h);
      const auto P = before.momentum.head(slot);
      const auto after_momentum = kept(dP, K.rows(), scratch.after_momentum);
      d.d_c[n - 1] = inner_product(after, P);
      d.d_m = inner_product(after_momentum, P);
      scale(dP, kernel.m());
      add_scaled(dP, kernel.c[n - 1], after);
      return {current, {after_momentum, scratch.e_momentum, scratch.d_momentum}};
    } else {
      return {current};
    }
  }

  static std::array<CarriedGradient<S, M>, carried_count> read_backward(Carried& d_carried, Index h,
                                                                        Scratch& scratch) {
    const CarriedGradient<S, M> current{d_carried.current.head(h), scratch.d_beta};
    if constexpr (has_momentum) {
      return {current, {d_carried.momentum.head(h), scratch.d_c}};
    } else {
      return {current};
    }
  }

  static void rates_backward(const TTTPiece& piece, const PieceRates<S>& rates, const Matrix<S>& dE,
                             Index, Carried&, PieceRateGradients<S>& d, Scratch& scratch) {
    auto& d_kernel = scratch.d_kernel;
    if constexpr (learns_first) d_kernel.dE = dE;
    d_kernel.dE.col(piece.size - 1) -= scratch.d_current;
    d_kernel.d_beta += scratch.d_beta;
    if constexpr (has_momentum) {
      d_kernel.d_c += scratch.d_c;
      d_kernel.d_ES -= scratch.d_momentum;
    }
    scratch.kernel.backward(rates.mu, rates.alpha, d_kernel, d.d_theta, d.d_mu, d.d_alpha);
  }

 private:
  /// A copy of one head's weights in `memory`.
  static HeadWeights<const S, M::weight_count> kept(const HeadWeights<S, M::weight_count>& weights,
                                                    Index head_width, Weights& memory) {
    if (memory.heads == 0) memory = Weights::zero(1, head_width);
    copy_weights(weights, memory.head(0));
    return std::as_const(memory).head(0);
  }
};

}  // namespace ttt
