/// @file
/// Floating-point operations of a TTT layer for one token, by one formula: matrix products alone,
/// as the code executes them; a multiply and an add are two. D width, H heads, f = D/H, b
/// mini-batch; level l of the inner stack maps i = in to o = out rows, and "above" means l >= 2.
///   projections  4 of 2 D^2 (q, k, v, o; with share_qk and gate: q, v, g, o)
///   forward   a level: W A, W B, Del A'  6 i o; A'B, Del M  2 b (i + o); above: W'Del  2 i o
///   backward  two products for each of a projection's; a level: forward again without Del A',
///             adjoints  12 i o + 4 b (i + o); above: 4 i o
///   step      a level: W a, W b, R b, Del a'  8 i o; above: W'Del  2 i o
/// Convolutions, rates, norms, activations and rotations are left out (under 2 % of the layer).
#pragma once

#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

/// Of one token.
struct Flops {
  double forward = 0, backward = 0, step = 0;
};

/// Of the inner loop alone.
template <InnerModel M>
Flops inner_flops_per_token(const TTTConfig& config) {
  const double b = static_cast<double>(config.mini_batch);
  Flops flops;
  for (std::size_t l = 0; l < stack_depth<M>; ++l) {
    const auto i = static_cast<double>(level_width<M>(l, config.head_width()));
    const auto o = static_cast<double>(level_width<M>(l + 1, config.head_width()));
    const double above = l > 0 ? 1 : 0;
    const double forward = (6 + 2 * above) * i * o + 2 * b * (i + o);
    flops.forward += forward;
    flops.backward += forward - 2 * i * o + (12 + 4 * above) * i * o + 4 * b * (i + o);
    flops.step += (8 + 2 * above) * i * o;
  }
  const auto heads = static_cast<double>(config.heads);
  return {heads * flops.forward, heads * flops.backward, heads * flops.step};
}

/// Of the whole layer.
template <InnerModel M>
Flops flops_per_token(const TTTConfig& config) {
  const auto width = static_cast<double>(config.width);
  const double one = 2 * width * width;
  const double projections = (config.share_qk ? 3 : 4) * one + (config.gate ? one : 0);
  const Flops inner = inner_flops_per_token<M>(config);
  return {projections + inner.forward, 2 * projections + inner.backward, projections + inner.step};
}

template <Scalar S, InnerModel M>
Flops flops_per_token(const TTTLayer<S, M>& layer) {
  return flops_per_token<M>(layer.config());
}

}  // namespace ttt
