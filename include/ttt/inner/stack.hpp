/// @file
/// An inner model as a stack of stages, f(k) = s_N(... s_2(s_1(k))), and on top a rule that makes a
/// loss and an output of it (output_rule.hpp). Widths are multiples of the head's width f; the last
/// stage has f rows again. Any model is one line, and runs by the dual form at full speed:
///   using LinearModel     = Stack<Affine<>>;                        // the published ones
///   using MLPModel        = Stack<Affine<4>, GeluTanh, Affine<>>;
///   using ThreeLayerModel = Stack<Affine<4>, SiLU, Affine<2>, LayerNormStage, Affine<>>;
///   using GatedModel      = PlainStack<SwiGLUStage<2>, LinearMap<>>;
///   using DeepModel       = Stack<Affine<2>, Tanh, Residual<Affine<2>, Tanh>, Affine<>>;
/// Stages (inner/stages): Affine<m>, LinearMap<m>, LayerNormStage, RMSNormStage, Gated<l, r>,
/// SwiGLUStage<m>, Residual<...>, Chain<...>, and every activation of nn/activation.hpp.
#pragma once

#include "ttt/inner/stages/affine.hpp"
#include "ttt/inner/stages/chain.hpp"
#include "ttt/inner/stages/gated.hpp"
#include "ttt/inner/stages/norms.hpp"
#include "ttt/inner/stages/residual.hpp"

namespace ttt {

template <class OutputRule, StageOrActivation... Parts>
struct StackOf {
  using Stages = Chain<Parts...>;
  using Output = OutputRule;
  /// Whether the stages fit one another: those of a Residual keep its width, the parts of a Gated
  /// have equal ones, the last stage has the head's, and one of them learns.
  static constexpr bool fits = Stages::width(64, 64) == 64 && Stages::weight_count > 0;

  static constexpr std::size_t weight_count = Stages::weight_count;
  static constexpr WeightShape weight_shape(std::size_t l, Index head_width) {
    static_assert(fits, "the stages of a stack do not fit one another: see StackOf::fits");
    return Stages::weight_shape(l, head_width, head_width);
  }
};

/// With the output rule of the published layers: f(k) = k + LN(stages(k)).
template <StageOrActivation... Parts>
struct Stack : StackOf<LayerNormResidual, Parts...> {};

/// Nothing on top: f(k) = stages(k), l = 1/2 |f(k) - v|^2.
template <StageOrActivation... Parts>
struct PlainStack : StackOf<PlainOutput, Parts...> {};

template <class M>
concept StackModel = InnerModel<M> && requires {
  typename M::Stages;
};

/// Every model that is not a stack fits; a stack says so itself.
template <class M>
concept FittingStages = !StackModel<M> || requires {
  requires M::fits;
};

}  // namespace ttt
