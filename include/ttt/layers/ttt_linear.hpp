/// @file
/// TTT-Linear: the TTT layer whose inner model is one affine map a head.
/// Source: Sun et al. 2024 (arXiv 2407.04620).
#pragma once

#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

template <class S>
using TTTLinear = TTTLayer<S, LinearModel>;

}  // namespace ttt
