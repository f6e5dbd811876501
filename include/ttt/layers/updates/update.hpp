/// @file
/// How a rule's weights move, piece by piece: which of three updates it is. Each says what a stream
/// carries beside the weights W of the last border (`Carried`), how a piece of a mini-batch reads
/// that (`kernel`, `read`), what it leaves (`carry`), and the adjoints of these.
///   RunningSum     gradient descent, with token factors or without
///   KernelUpdate   momentum, or forgetting after the gradient
///   BorderUpdate   a direction that is not linear in the gradient: once a mini-batch
#pragma once

#include <type_traits>

#include "ttt/layers/updates/border_update.hpp"
#include "ttt/layers/updates/kernel_update.hpp"
#include "ttt/layers/updates/running_sum.hpp"

namespace ttt {

template <Scalar S, InnerModel M, UpdateRule Rule>
struct UpdateOf {
  using Traits = RuleTraits<Rule>;
  static constexpr bool at_border = !Traits::Direction::is_linear;
  static constexpr bool has_memory =
      Traits::Momentum::present || (Traits::Forgetting::present && !Traits::decays_first);
  using type = std::conditional_t<
      at_border, BorderUpdate<S, M, Rule>,
      std::conditional_t<has_memory, KernelUpdate<S, M, Rule>, RunningSum<S, M, Rule>>>;
};

template <Scalar S, InnerModel M, UpdateRule Rule>
using Update = typename UpdateOf<S, M, Rule>::type;

}  // namespace ttt
