/// @file
/// Stacks of depth one to three, with every kind of stage, alone and nested, and output rules.
#pragma once

#include <gtest/gtest.h>

#include "ttt/inner/dual_form.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/nn/own_activation.hpp"

namespace ttt::test {

/// Only `value` is the library's matter; `slope` is what it should derive.
struct Snake {
  static auto value(auto z) { return z + sin(z) * sin(z); }
  static auto slope(auto z) { return 1 + 2 * sin(z) * cos(z); }
};

using PublishedStacks = ::testing::Types<LinearModel, MLPModel, MLPModelRoundedGelu>;

using DeepStacks = ::testing::Types<PlainStack<LinearMap<3>, Tanh, LinearMap<>>,
                                    Stack<SiLU, Affine<2>, OwnActivation<Snake>, Affine<>, Tanh>>;

using NormedStacks =
    ::testing::Types<PlainStack<Affine<2>, LayerNormStage, SiLU, Affine<>>,
                     PlainStack<RMSNormStage, LinearMap<2>, RMSNormStage, Tanh, Affine<>>>;

using BranchedStacks =
    ::testing::Types<PlainStack<Residual<LinearMap<>, Tanh>, SwiGLUStage<2>, LinearMap<>>,
                     Stack<Gated<Chain<LayerNormStage, Affine<2>, Tanh>, Affine<2>>,
                           Residual<SwiGLUStage<2>>, Affine<>>>;

/// A delta of two: some errors lie beyond it, and few near it, where differences see a corner.
using StacksWithRules =
    ::testing::Types<StackOf<OutputRule<LayerNormTop, DotProduct, false>, LinearMap<>>,
                     StackOf<OutputRule<RMSNormTop, SquaredError, true>, Affine<>>,
                     StackOf<OutputRule<LayerNormTop, HuberError<std::ratio<2>>, true>, Affine<>>,
                     StackOf<OutputRule<NoNorm, DotProduct, true>, LinearMap<>>>;

}  // namespace ttt::test
