// A layer of whole numbers.
#include "ttt/layers/ttt_linear.hpp"

ttt::TTTLinear<int> layer({.width = 8, .heads = 2});
