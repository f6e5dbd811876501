/// @file
/// One layer in float: a sequence, and a token of a stream. TTT_HEADER is what it includes.
#include TTT_HEADER

int main() {
  const ttt::TTTLinear<float> layer({.width = 64});
  auto state = layer.initial_state();
  auto workspace = layer.workspace(32);
  const ttt::Matrix<float> x = ttt::Matrix<float>::Constant(64, 32, 0.5f);
  ttt::Matrix<float> y = x;
  layer.forward(x, state, y, workspace);
  ttt::Vector<float> y_t(64);
  layer.step(x.col(0), state, y_t, workspace);
  return y.allFinite() && y_t.allFinite() ? 0 : 1;
}
