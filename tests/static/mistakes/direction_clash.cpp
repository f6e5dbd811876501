// A clipped gradient exists once a mini-batch, not token by token.
#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr bool token_factors = false;
  static constexpr ttt::ClippedDirection direction{};
};

ttt::TTTLayer<float, ttt::LinearModel, Rule> layer({.width = 8, .heads = 2});
