// Longhorn's rate in mini-batches of the published rule.
#include "ttt/inner/stack.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr ttt::ProximalRate rate{};
};

ttt::TTTLayer<float, ttt::PlainStack<ttt::LinearMap<>>, Rule> layer({.width = 8, .heads = 2});
