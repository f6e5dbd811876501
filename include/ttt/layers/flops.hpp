/// @file
/// Floating-point operations of a layer for one token, by one formula each: matrix products, and
/// Mamba's scan, as the code executes them; a multiply and an add are two. D width; "backward" is
/// the backward alone: two products for each of a projection's, and what is named below.
///
/// TTT: H heads, f = D/H, b mini-batch; a weight matrix of the inner stack maps i = in to
/// o = out rows, and "above" means that a stage lies below it.
///   projections  4 of 2 D^2 (q, k, v, o; with share_qk and gate: q, v, g, o)
///   forward   a matrix: W A, W B, Del A'  6 i o; A'B, Del M  2 b (i + o); above: W'Del  2 i o
///   backward  a matrix: forward again without Del A', adjoints  12 i o + 4 b (i + o); above: 4 i o
///   step      a matrix: W a, W b, R b, Del a'  8 i o; above: W'Del  2 i o
/// Attention: H heads of width f, each token sees n tokens, on average over T or in its window.
///   forward   K'q, V p  4 n H f          backward  scores again, four adjoints  10 n H f
/// Linear attention: chunks of c tokens. Of a head: forward K'Q, V A  4 c f; M Q, V K'  4 f^2;
///   backward the scores again, all adjoints  10 c f + 8 f^2; step 4 f^2
/// Mamba: E channels of N states.  scan: dt A, exp, h, dt u B', h C  7 E N; backward 3 times that
/// LSTM: 16 D^2, the recurrent half of them one token at a time.
/// Convolutions, rates, norms, activations and rotations are left out (under 2 % of a layer).
#pragma once

#include <algorithm>

#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

/// Of one token.
struct Flops {
  double forward = 0, backward = 0, step = 0;
};

/// Of the inner loop of a TTT layer alone.
template <StackModel M>
Flops inner_flops_per_token(const TTTConfig& config) {
  const double b = static_cast<double>(config.mini_batch);
  Flops flops;
  for (std::size_t l = 0; l < M::weight_count; ++l) {
    const WeightShape shape = M::weight_shape(l, config.head_width());
    const auto i = static_cast<double>(shape.cols), o = static_cast<double>(shape.rows);
    const double above = M::Stages::passes_gradient_down(l, false) ? 1 : 0;
    const double forward = (6 + 2 * above) * i * o + 2 * b * (i + o);
    flops.forward += forward;
    flops.backward += forward - 2 * i * o + (12 + 4 * above) * i * o + 4 * b * (i + o);
    flops.step += (8 + 2 * above) * i * o;
  }
  const auto heads = static_cast<double>(config.heads);
  return {heads * flops.forward, heads * flops.backward, heads * flops.step};
}

template <StackModel M>
Flops flops_per_token(const TTTConfig& config) {
  const auto width = static_cast<double>(config.width);
  const double one = 2 * width * width;
  const double projections =
      (config.share_qk || config.queries_as_keys ? 3 : 4) * one + (config.gate ? one : 0);
  const Flops inner = inner_flops_per_token<M>(config);
  return {projections + inner.forward, 2 * projections + inner.backward, projections + inner.step};
}

/// The mean over the first `tokens` tokens of a stream; `step` is the token after these.
inline Flops flops_per_token(const AttentionConfig& config, Index tokens) {
  const auto width = static_cast<double>(config.width);
  const auto rows = static_cast<double>(config.query_rows());
  const auto T = static_cast<double>(tokens);
  const double w = config.window > 0 ? std::min(static_cast<double>(config.window), T) : T;
  const double seen = (w * (w + 1) / 2 + (T - w) * w) / T;
  const double projections = 4 * width * (rows + static_cast<double>(config.key_rows()));
  return {projections + 4 * seen * rows, 2 * projections + 10 * seen * rows,
          projections + 4 * w * rows};
}

inline Flops flops_per_token(const LinearAttentionConfig& config) {
  const auto D = static_cast<double>(config.width), f = static_cast<double>(config.head_width());
  constexpr auto c = static_cast<double>(LinearAttentionChunks::most_tokens);
  const double projections = 8 * D * D;
  return {projections + 4 * D * (c + f), 2 * projections + D * (10 * c + 8 * f),
          projections + 4 * D * f};
}

inline Flops flops_per_token(const MambaConfig& config) {
  const auto D = static_cast<double>(config.width), E = static_cast<double>(config.inner());
  const auto N = static_cast<double>(config.state_size), R = static_cast<double>(config.rank());
  const double projections = 2 * (D * 2 * E + E * (R + 2 * N) + R * E + E * D);
  const double scan = 7 * E * N;
  return {projections + scan, 2 * projections + 3 * scan, projections + scan};
}

inline Flops flops_per_token(const LSTMConfig& config) {
  const double forward = 16 * static_cast<double>(config.width) * static_cast<double>(config.width);
  return {forward, 2 * forward, forward};
}

/// Of a whole layer in a stream of `tokens` tokens; TTT with the published rule.
template <Scalar S, InnerModel M>
Flops flops_per_token(const TTTLayer<S, M>& layer, Index) {
  return flops_per_token<M>(layer.config());
}
template <Scalar S>
Flops flops_per_token(const Attention<S>& layer, Index tokens) {
  return flops_per_token(layer.config(), tokens);
}
template <Scalar S, class Features>
Flops flops_per_token(const LinearAttention<S, Features>& layer, Index) {
  return flops_per_token(layer.config());
}
template <Scalar S>
Flops flops_per_token(const Mamba<S>& layer, Index) {
  return flops_per_token(layer.config());
}
template <Scalar S>
Flops flops_per_token(const LSTM<S>& layer, Index) {
  return flops_per_token(layer.config());
}

}  // namespace ttt
