// A stack without weights.
#include "ttt/layers/ttt_layer.hpp"

ttt::TTTLayer<float, ttt::Stack<ttt::SiLU>> layer({.width = 8, .heads = 2});
