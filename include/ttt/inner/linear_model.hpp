/// @file
/// TTT-Linear's inner model: f(k) = k + LN(W_1 k + b_1), one affine map [f, f] a head.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7.
#pragma once

#include "ttt/inner/stack.hpp"

namespace ttt {

using LinearModel = Stack<Affine<>>;

}  // namespace ttt
