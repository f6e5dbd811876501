// Longhorn's rate, for an inner model that is not one linear map.
#include "ttt/inner/mlp_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr ttt::ProximalRate rate{};
};

ttt::TTTLayer<float, ttt::MLPModel, Rule> layer({.width = 8, .heads = 2});
