// Stages that do not fit: a residual whose output is wider than its input.
#include "ttt/inner/stages/residual.hpp"
#include "ttt/layers/ttt_layer.hpp"

using Model = ttt::Stack<ttt::Residual<ttt::Affine<4>, ttt::Tanh>, ttt::Affine<>>;

ttt::TTTLayer<float, Model> layer({.width = 8, .heads = 2});
