// Token factors scale what a mini-batch has learned; with momentum nothing keeps that sum.
#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr ttt::TokenMomentum momentum{};
};

ttt::TTTLayer<float, ttt::LinearModel, Rule> layer({.width = 8, .heads = 2});
