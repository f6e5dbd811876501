// A stack with something in it that is neither a stage nor an activation.
#include "ttt/layers/ttt_layer.hpp"

struct NotAStage {};

ttt::TTTLayer<float, ttt::Stack<ttt::Affine<>, NotAStage>> layer({.width = 8, .heads = 2});
