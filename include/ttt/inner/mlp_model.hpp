/// @file
/// TTT-MLP's inner model: f(k) = k + LN(W_2 gelu(W_1 k + b_1) + b_2), hidden width 4f.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7.
#pragma once

#include "ttt/inner/stack.hpp"

namespace ttt {

using MLPModel = Stack<Affine<4>, GeluTanh, Affine<>>;

/// The same with the official code's rounded constants in the inner gradient (nn/activation.hpp).
using MLPModelRoundedGelu = Stack<Affine<4>, GeluTanhRounded, Affine<>>;

}  // namespace ttt
