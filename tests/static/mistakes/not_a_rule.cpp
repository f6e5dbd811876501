// A rule that is not derived from the published one, and lacks most choices.
#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule {
  static constexpr ttt::TokenMomentum momentum{};
};

ttt::TTTLayer<float, ttt::LinearModel, Rule> layer({.width = 8, .heads = 2});
