// An inner model without an output rule.
#include "ttt/layers/ttt_layer.hpp"

struct Model {
  static constexpr std::size_t weight_count = 1;
  static ttt::WeightShape weight_shape(std::size_t, ttt::Index f) { return {f, f}; }
};

ttt::TTTLayer<float, Model> layer({.width = 8, .heads = 2});
