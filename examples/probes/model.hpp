/// @file
/// The layers that are probed, as types, and one language model whose blocks hold any of them.
/// Which one is a number in the configuration, so all rows of the table are one compiled program.
#pragma once

#include <cstddef>

#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/lm/language_model.hpp"

namespace ttt::examples::probes {

/// theta = 1 and tau = 1: the rate of the configuration, the same for all tokens.
struct Constant : PublishedRule {
  static constexpr ConstantRate rate{};
  static constexpr bool token_factors = false;
};

/// tau = 1, which momentum and forgetting ask for.
struct NoTokenFactors : PublishedRule {
  static constexpr bool token_factors = false;
};
struct Momentum : NoTokenFactors {
  static constexpr TokenMomentum momentum{};
};
struct Forgetting : NoTokenFactors {
  static constexpr ForgetAfterGradient forgetting{};
};

template <int n>
struct Steps : PublishedRule {
  static constexpr Online schedule{};
  static constexpr int inner_steps = n;
};

using NoLayerNorm = StackOf<OutputRule<NoNorm, SquaredError, true>, Affine<>>;
using NoResidual = StackOf<OutputRule<LayerNormTop, SquaredError, false>, Affine<>>;

using PublishedLayer = TTTLinear<float>;
using NormalizedAttentionLayer = LinearAttention<float>;
using LinearAttentionLayer = TTTLayer<float, PlainStack<LinearMap<>>, Constant>;
using ConstantLayer = TTTLayer<float, LinearModel, Constant>;
using NoLayerNormLayer = TTTLayer<float, NoLayerNorm>;
using NoResidualLayer = TTTLayer<float, NoResidual>;
using NoTokenFactorsLayer = TTTLayer<float, LinearModel, NoTokenFactors>;
using MomentumLayer = TTTLayer<float, LinearModel, Momentum>;
using ForgettingLayer = TTTLayer<float, LinearModel, Forgetting>;
template <int n>
using StepsLayer = TTTLayer<float, LinearModel, Steps<n>>;

/// Names of the model's mixers, in their order.
enum class Layer : std::size_t {
  published,
  normalized_attention,
  linear_attention,
  constant,
  no_layer_norm,
  no_residual,
  no_token_factors,
  momentum,
  forgetting,
  two_steps,
  four_steps,
  eight_steps
};

using Model =
    LanguageModel<PublishedLayer, NormalizedAttentionLayer, LinearAttentionLayer, ConstantLayer,
                  NoLayerNormLayer, NoResidualLayer, NoTokenFactorsLayer, MomentumLayer,
                  ForgettingLayer, StepsLayer<2>, StepsLayer<4>, StepsLayer<8>>;

}  // namespace ttt::examples::probes
