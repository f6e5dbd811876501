/// @file
/// The five types of a TTT layer. D width, H heads, f = D/H, b mini-batch, K convolution kernel.
/// Tensors carry the names and bytes of the official checkpoints.
/// Source: Sun et al. 2024 (arXiv 2407.04620); test-time-training/ttt-lm-pytorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "ttt/core/random.hpp"
#include "ttt/inner/dual_form.hpp"
#include "ttt/inner/online_step.hpp"
#include "ttt/inner/update_rule.hpp"
#include "ttt/layers/ttt_piece.hpp"
#include "ttt/layers/updates/update.hpp"

namespace ttt {

/// Sizes and switches. The Mamba backbone of the paper's main results sets `share_qk` and `gate`;
/// the Transformer backbone neither.
struct TTTConfig {
  Index width = 0;
  Index heads = 1;
  Index mini_batch = 16;
  bool share_qk = false;  ///< one projection for q and k, told apart by two causal convolutions
  bool gate = false;      ///< output gate gelu(x W_g)
  Index conv_kernel = 4;  ///< of those convolutions
  /// Official: 1 for TTT-Linear, 0.1 for TTT-MLP. A negative one climbs: gradient ascent, a probe.
  double base_learning_rate = 1.0;
  double rope_theta = 10000.0;
  /// Rotates q and k by their place in the mini-batch; not with WholeSequence or a corruption.
  bool rotary = true;
  /// false: W_0 = 0, for an inner model of one weight matrix whose gradient there is not 0.
  bool learned_initial_weights = true;
  bool queries_as_keys = false;  ///< k = q, a probe: then there is no k_proj, no conv_k

  Index head_width() const { return width / heads; }

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(width > 0, "TTTConfig: width is ", width, ", expected a positive number");
    require(heads > 0, "TTTConfig: heads is ", heads, ", expected a positive number");
    require(width % heads == 0, "TTTConfig: width ", width, " is not a multiple of heads ", heads);
    require(head_width() % 2 == 0, "TTTConfig: width / heads is ", head_width(),
            ", expected an even number (rotary positions turn pairs of channels)");
    require(mini_batch > 0, "TTTConfig: mini_batch is ", mini_batch,
            ", expected a positive number");
    require(conv_kernel > 0, "TTTConfig: conv_kernel is ", conv_kernel,
            ", expected a positive number");
    require(std::isfinite(base_learning_rate), "TTTConfig: base_learning_rate is ",
            base_learning_rate, ", expected a finite number");
    require(std::isfinite(rope_theta) && rope_theta > 0, "TTTConfig: rope_theta is ", rope_theta,
            ", expected a positive number");
  }
};

/// What the outer loop learns, with the official names. Tensors that a switch leaves out are empty.
template <Scalar S, InnerModel M>
struct TTTParameters {
  InnerWeights<S, M> W_0;                            // initial weights of the inner model
  Vector<S> token_idx;                               // [b]
  Matrix<S> rate_weight, rate_bias;                  // [D, H], [1, H]
  Matrix<S> momentum_weight, momentum_bias;          // [D, H], [1, H]
  Matrix<S> forgetting_weight, forgetting_bias;      // [D, H], [1, H]
  Matrix<S> norm_weight, norm_bias;                  // [f, H]
  Matrix<S> q_proj, k_proj, v_proj, o_proj, g_proj;  // [in, out]
  Matrix<S> conv_q_weight, conv_k_weight;            // [K, D]
  Vector<S> conv_q_bias, conv_k_bias;                // [D]
  Vector<S> post_norm_weight, post_norm_bias;        // [D]

  static auto fields(auto& self) {
    const Index H = self.W_0.heads, D = self.post_norm_weight.size();
    return std::tuple(
        field("", self.W_0), field("learnable_token_idx", self.token_idx),
        field("learnable_ttt_lr_weight", self.rate_weight, H),
        field("learnable_ttt_lr_bias", self.rate_bias),
        field("momentum.weight", self.momentum_weight, H),
        field("momentum.bias", self.momentum_bias),
        field("forgetting.weight", self.forgetting_weight, H),
        field("forgetting.bias", self.forgetting_bias), field("ttt_norm_weight", self.norm_weight),
        field("ttt_norm_bias", self.norm_bias), streamed(field("q_proj.weight", self.q_proj)),
        streamed(field("k_proj.weight", self.k_proj)),
        streamed(field("v_proj.weight", self.v_proj)),
        streamed(field("o_proj.weight", self.o_proj)),
        streamed(field("g_proj.weight", self.g_proj)),
        field("conv_q.weight", self.conv_q_weight, D), field("conv_q.bias", self.conv_q_bias),
        field("conv_k.weight", self.conv_k_weight, D), field("conv_k.bias", self.conv_k_bias),
        field("post_norm.weight", self.post_norm_weight),
        field("post_norm.bias", self.post_norm_bias));
  }

  /// The official initialization: normal with `standard_deviation`, convolutions uniform in
  /// +-1/sqrt(K), norms 1 and 0, biases 0; those of momentum and forgetting as the rule says.
  template <UpdateRule Rule = PublishedRule>
  static TTTParameters initial(const TTTConfig& config, Random& random,
                               double standard_deviation = 0.02) {
    using Traits = RuleTraits<Rule>;
    const Index D = config.width, H = config.heads, f = config.head_width();
    TTTParameters p;
    p.W_0.heads = H;
    if (config.learned_initial_weights) p.W_0 = InnerWeights<S, M>::zero(H, f);
    for (auto& W : p.W_0.W) random.fill_normal(W, standard_deviation);
    if (Rule::token_factors) p.token_idx.setZero(Rule::schedule.mini_batch(config.mini_batch));
    const auto of_token = [&](Matrix<S>& weight, Matrix<S>& bias, double initial_bias) {
      weight.resize(D, H);
      random.fill_normal(weight, standard_deviation);
      bias.setConstant(1, H, static_cast<S>(initial_bias));
    };
    if constexpr (Traits::Rate::reads_input) of_token(p.rate_weight, p.rate_bias, 0);
    if constexpr (Traits::Momentum::present)
      of_token(p.momentum_weight, p.momentum_bias, Rule::momentum.initial_bias);
    if constexpr (Traits::Forgetting::present)
      of_token(p.forgetting_weight, p.forgetting_bias, Rule::forgetting.initial_bias);
    if (M::Output::has_norm) {
      p.norm_weight.setOnes(f, H);
      p.norm_bias.setZero(f, H);
    }
    const auto projection = [&](Matrix<S>& weight, bool present) {
      if (!present) return;
      weight.resize(D, D);
      random.fill_normal(weight, standard_deviation);
    };
    projection(p.q_proj, !Traits::reconstructs);
    projection(p.k_proj, !Traits::reconstructs && !config.share_qk && !config.queries_as_keys);
    projection(p.v_proj, !Traits::reconstructs);
    projection(p.o_proj, true);
    projection(p.g_proj, config.gate);
    const auto convolution = [&](Matrix<S>& weight, Vector<S>& bias) {
      const double bound = 1 / std::sqrt(static_cast<double>(config.conv_kernel));
      weight.resize(config.conv_kernel, D);
      bias.resize(D);
      random.fill_uniform(weight, -bound, bound);
      random.fill_uniform(bias, -bound, bound);
    };
    if (config.share_qk) convolution(p.conv_q_weight, p.conv_q_bias);
    if (config.share_qk && !config.queries_as_keys) convolution(p.conv_k_weight, p.conv_k_bias);
    p.post_norm_weight.setOnes(D);
    p.post_norm_bias.setZero(D);
    return p;
  }

  HeadNorm<S> norm(Index h) const {
    return {{norm_weight.data() + h * norm_weight.rows(), norm_weight.rows()},
            {norm_bias.data() + h * norm_bias.rows(), norm_bias.rows()}};
  }
};

/// What a stream carries: the inner weights at the last mini-batch border, what the rule's update
/// has made of the tokens since (updates/), and the last inputs of the convolutions.
template <Scalar S, InnerModel M, UpdateRule Rule = PublishedRule>
struct TTTState {
  Index position = 0;          // modulo b; of the whole stream where the rule counts tokens
  InnerWeights<S, M> weights;  // W at the border
  typename Update<S, M, Rule>::Carried carried;
  Matrix<S> conv_tail;  // [D, K-1], oldest first; empty without share_qk

  static auto fields(auto& self) {
    return std::tuple(field("position", self.position), field("weights", self.weights),
                      field("", self.carried), field("conv_tail", self.conv_tail));
  }
};

/// Intermediate values of a forward, one column a token of the batch.
template <Scalar S>
struct TTTActivations {
  Matrix<S> p;        // [D, T] shared projection before the convolutions (share_qk)
  Matrix<S> q, k, v;  // [D, T] as the inner loop reads them: after rotation and feature map
  Matrix<S> q_before, k_before;    // [D, T] before the feature map, where the rule has one
  Matrix<S> raw_rate;              // [H, T] what the rate policy reads
  Matrix<S> gate;                  // [H, T] what it says
  Matrix<S> rate;                  // [H, T] inner learning rate, without the token factor
  Matrix<S> momentum, forgetting;  // [H, T] mu and alpha, where the rule has them
  Matrix<S> z;                     // [D, T] outputs of the inner loop, before post_norm
  Matrix<S> g;                     // [D, T] output gate before its activation
};

/// What one forward leaves behind for one backward.
template <Scalar S, InnerModel M, UpdateRule Rule = PublishedRule>
struct TTTCache {
  Matrix<S> x;
  TTTActivations<S> activations;
  std::vector<Index> lengths, first_piece;  // per sequence; first_piece has one entry more
  std::vector<Index> positions;             // of each sequence before its first token
  std::vector<Matrix<S>> tails;             // convolution inputs before each sequence
  std::vector<TTTPiece> pieces;
  std::vector<InnerWeights<S, M>> weights;                    // at the start of each piece
  std::vector<typename Update<S, M, Rule>::Carried> carried;  // there, where the update reads it
  Vector<S> tau;                                              // [b]; empty without token factors
  double inner_rate_scale = 1;

  /// For what every piece starts from; keeps the memory of an earlier forward.
  void make_room(Index heads, Index head_width) {
    const auto shape = InnerWeights<S, M>::zero(heads, head_width);
    if (weights.empty() || !same_shape(weights[0], shape)) weights.clear();
    while (weights.size() < pieces.size()) weights.push_back(shape);
    const auto all_carried = Update<S, M, Rule>::initial(shape);
    carried.resize(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i)
      if (Update<S, M, Rule>::keeps(pieces[i])) carried[i] = all_carried;
  }
};

/// Scratch of one head's inner loop.
template <Scalar S, InnerModel M, UpdateRule Rule>
struct TTTHeadScratch {
  typename ChunkForm<S, M>::Trace trace;
  typename ChunkForm<S, M>::Scratch adjoint;
  typename Update<S, M, Rule>::Scratch update;
  PieceRates<S> rates;
  PieceRateGradients<S> d_rates;
  Matrix<S> dE, O, dK, dQ, dV;                   // [n, n], [f, n]
  InnerWeights<S, M> weights;                    // of one head, where they decay first
  typename Update<S, M, Rule>::Carried carried;  // likewise
};

/// Scratch of one head's `step`: the published rule has a kernel of its own for it.
template <Scalar S, InnerModel M, UpdateRule Rule>
struct StepHead : TTTHeadScratch<S, M, Rule> {
  explicit StepHead(Index) {}
};
template <Scalar S, InnerModel M>
struct StepHead<S, M, PublishedRule> : OnlineStep<S, M> {
  using OnlineStep<S, M>::OnlineStep;
};

/// Scratch memory of a layer.
template <Scalar S, InnerModel M, UpdateRule Rule = PublishedRule>
struct TTTWorkspace {
  TTTWorkspace(Index width, Index head_count)
      : corruption(static_cast<std::size_t>(head_count)),
        x(width),
        q(width),
        k(width),
        v(width),
        z(width),
        n(width) {
    step_heads.emplace_back(width / head_count);
  }

  TTTActivations<S> activations;
  Matrix<S> normed, gated;                            // [D, T]
  Matrix<S> d_normed, dz, dq, dk, dv;                 // [D, T]
  Matrix<S> d_rate, d_raw, d_momentum, d_forgetting;  // [H, T]
  Matrix<S> d_tau, d_norm_weight, d_norm_bias;        // a column for each sequence and head
  std::vector<TTTHeadScratch<S, M, Rule>> heads;      // one for each thread
  /// A head's own: the basis of a low-rank corruption.
  std::vector<typename RuleTraits<Rule>::Corruption::template Scratch<S>> corruption;
  std::vector<StepHead<S, M, Rule>> step_heads;  // one for each thread of a step
  Vector<S> x, q, k, v, z, n;                    // one token
  TTTActivations<S> token;                       // its rates: [H, 1]
  Matrix<S> tail;                                // [D, K-1]
  Vector<S> tau;                                 // [b]
};

}  // namespace ttt
