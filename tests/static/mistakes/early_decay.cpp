// Gradients at decayed weights, which differ from token to token, in a mini-batch.
#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr bool token_factors = false;
  static constexpr ttt::ForgetBeforeGradient forgetting{};
};

ttt::TTTLayer<float, ttt::LinearModel, Rule> layer({.width = 8, .heads = 2});
