// Shapes of weights that are not a WeightShape.
#include <utility>

#include "ttt/layers/ttt_layer.hpp"

struct Model {
  using Output = ttt::PlainOutput;
  static constexpr std::size_t weight_count = 1;
  static std::pair<int, int> weight_shape(std::size_t, ttt::Index f) { return {f, f}; }
};

ttt::TTTLayer<float, Model> layer({.width = 8, .heads = 2});
