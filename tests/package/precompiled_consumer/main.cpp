/// @file
/// A program of somebody else's that takes the layers from the library that was compiled before.
#include "ttt/precompiled.hpp"

/// A sequence, a token of a stream, and a gradient.
template <ttt::SequenceLayer L>
bool works(const typename L::Config& config) {
  const L layer(config);
  auto state = layer.initial_state();
  auto workspace = layer.workspace(20);
  const ttt::Matrix<float> x = ttt::Matrix<float>::Constant(layer.width(), 20, 0.5f);
  ttt::Matrix<float> y = x, dx = x;
  typename L::Cache cache;
  layer.forward(x, state, y, workspace, cache);
  auto d_state = ttt::zeros_like(layer.initial_state());
  if constexpr (requires { layer.initial_state(20); }) d_state = ttt::zeros_like(state);
  auto grad = ttt::zeros_like(layer.parameters());
  layer.backward(y, cache, d_state, dx, grad, workspace);
  ttt::Vector<float> y_t(layer.width());
  layer.step(x.col(0), state, y_t, workspace);
  return y.allFinite() && dx.allFinite() && y_t.allFinite() && y.norm() > 0 && dx.norm() > 0;
}

int main() {
  return works<ttt::TTTLinear<float>>({.width = 8, .heads = 2}) &&
                 works<ttt::TTTMLP<float>>({.width = 8, .heads = 2}) &&
                 works<ttt::Attention<float>>({.width = 8, .heads = 2}) &&
                 works<ttt::LinearAttention<float>>({.width = 8, .heads = 2}) &&
                 works<ttt::Mamba<float>>({.width = 8}) && works<ttt::LSTM<float>>({8})
             ? 0
             : 1;
}
