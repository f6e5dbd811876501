/// @file
/// One layer in float with an inner model of one's own, a list of stages: training and streaming.
#include <ttt/layers/ttt_layer.hpp>

using Model = ttt::Stack<ttt::Affine<2>, ttt::SiLU, ttt::LayerNormStage, ttt::Affine<>>;
using Layer = ttt::TTTLayer<float, Model>;

int main() {
  const Layer layer({.width = 64});
  auto state = layer.initial_state();
  auto workspace = layer.workspace(32);
  Layer::Cache cache;
  const ttt::Matrix<float> x = ttt::Matrix<float>::Constant(64, 32, 0.5f);
  ttt::Matrix<float> y = x, dx = x;
  layer.forward(x, state, y, workspace, cache);
  auto gradient = ttt::zeros_like(layer.parameters());
  auto d_state = ttt::zeros_like(state);
  layer.backward(y, cache, d_state, dx, gradient, workspace);
  ttt::Vector<float> y_t(64);
  layer.step(x.col(0), state, y_t, workspace);
  return dx.allFinite() && y_t.allFinite() ? 0 : 1;
}
