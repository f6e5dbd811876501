/// @file
/// TTT-MLP: the TTT layer whose inner model is an MLP with one hidden layer of 4f.
/// Source: Sun et al. 2024 (arXiv 2407.04620).
#pragma once

#include "ttt/inner/mlp_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt {

template <class S>
using TTTMLP = TTTLayer<S, MLPModel>;

}  // namespace ttt
