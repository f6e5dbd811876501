// A stack whose last stage has another width than the head.
#include "ttt/layers/ttt_layer.hpp"

ttt::TTTLayer<float, ttt::Stack<ttt::Affine<4>, ttt::Tanh>> layer({.width = 8, .heads = 2});
