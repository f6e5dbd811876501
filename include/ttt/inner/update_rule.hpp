/// @file
/// How a TTT layer's weights move while it reads: a rule is a struct of choices, each a small type
/// of a header of its own. One that differs from the published rule derives from it and says where:
///
///     struct Titans : ttt::PublishedRule {
///       static constexpr bool token_factors = false;
///       static constexpr ttt::TokenMomentum momentum{};
///       static constexpr ttt::ForgetAfterGradient forgetting{};
///     };
///     using Memory = ttt::TTTLayer<float, ttt::MLPModel, Titans>;
///
/// The inner loss belongs to the inner model (OutputRule). What cannot be combined does not
/// compile, with a sentence that says why (`check_rule`).
#pragma once

#include <concepts>
#include <type_traits>

#include "ttt/inner/corruption.hpp"
#include "ttt/inner/directions.hpp"
#include "ttt/inner/feature_maps.hpp"
#include "ttt/inner/forgetting.hpp"
#include "ttt/inner/momentum.hpp"
#include "ttt/inner/rate_policies.hpp"
#include "ttt/inner/schedules.hpp"
#include "ttt/inner/stack.hpp"

namespace ttt {

/// The rule of TTT-Linear and TTT-MLP. Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7.
struct PublishedRule {
  static constexpr SigmoidRate rate{};
  /// The rate is scaled by base_learning_rate / head width; false: by base_learning_rate.
  static constexpr bool rate_over_width = true;
  /// All that a mini-batch has learned is scaled by tau_t = max(0, 1/(place + 1) + learned).
  static constexpr bool token_factors = true;
  static constexpr NoMomentum momentum{};
  static constexpr NoForgetting forgetting{};
  static constexpr GradientDescent direction{};
  static constexpr LearnThenAnswer schedule{};
  static constexpr NoFeatureMap features{};
  /// With a corruption the layer has no projections q, k, v: v = q = x, k = corrupted x.
  static constexpr NoCorruption corruption{};
  /// Steps that a token takes, each from where the one before arrived, with its momentum and its
  /// forgetting; needs the schedule Online.
  static constexpr int inner_steps = 1;
};

/// The types of a rule's choices, and what follows from them.
template <class R>
struct RuleTraits {
  using Rate = std::remove_const_t<decltype(R::rate)>;
  using Momentum = std::remove_const_t<decltype(R::momentum)>;
  using Forgetting = std::remove_const_t<decltype(R::forgetting)>;
  using Direction = std::remove_const_t<decltype(R::direction)>;
  using Schedule = std::remove_const_t<decltype(R::schedule)>;
  using Features = std::remove_const_t<decltype(R::features)>;
  using Corruption = std::remove_const_t<decltype(R::corruption)>;

  static constexpr bool maps_features = !std::same_as<Features, NoFeatureMap>;
  static constexpr bool reconstructs = !std::same_as<Corruption, NoCorruption>;
  static constexpr bool decays_first = Forgetting::before_gradient;
  /// A stream's position counts all tokens, not those of the mini-batch.
  static constexpr bool counts_tokens = reconstructs || std::same_as<Schedule, WholeSequence>;
};

namespace detail {

template <class T, class... Choices>
concept OneOf = (std::same_as<std::remove_const_t<T>, Choices> || ...);
// Version 14 of clang-format takes these angle brackets for comparisons.
// clang-format off
template <class T>
concept RateChoice = RatePolicy<std::remove_const_t<T>, double>;
template <class T>
concept DirectionChoice = Direction<std::remove_const_t<T>, double>;
template <class T>
concept FeaturesChoice = FeatureMap<std::remove_const_t<T>, double>;
template <class T>
concept CorruptionChoice = Corruption<std::remove_const_t<T>, double>;
// clang-format on

}  // namespace detail

/// Momentum, forgetting and schedule are the library's; the other policies may be your own.
template <class R>
concept UpdateRule = requires {
  requires detail::RateChoice<decltype(R::rate)>;
  requires std::same_as<decltype(R::rate_over_width), const bool>;
  requires std::same_as<decltype(R::token_factors), const bool>;
  requires detail::OneOf<decltype(R::momentum), NoMomentum, TokenMomentum>;
  requires detail::OneOf<decltype(R::forgetting), NoForgetting, ForgetAfterGradient,
                         ForgetBeforeGradient>;
  requires detail::DirectionChoice<decltype(R::direction)>;
  requires detail::OneOf<decltype(R::schedule), LearnThenAnswer, AnswerThenLearn, Online,
                         WholeSequence>;
  requires detail::FeaturesChoice<decltype(R::features)>;
  requires detail::CorruptionChoice<decltype(R::corruption)>;
  requires std::same_as<decltype(R::inner_steps), const int>;
};

/// Whether the weights of M are one linear map with the squared error at its top.
template <class M>
concept LinearSquaredError =
    StackModel<M> && std::same_as<typename M::Stages, Chain<LinearMap<>>> && !M::Output::has_norm &&
    std::same_as<typename M::Output::InnerLoss, SquaredError>;

/// Asserts that the choices of R go together, and with the inner model M.
template <class R, class M>
consteval bool check_rule() {
  using T = RuleTraits<R>;
  using Schedule = typename T::Schedule;
  constexpr bool linear_direction = T::Direction::is_linear;
  constexpr bool online = std::same_as<Schedule, Online>;
  static_assert(linear_direction || std::same_as<Schedule, AnswerThenLearn>,
                "the update rule's direction is not linear in the gradient, so it exists once a "
                "mini-batch: its schedule must be AnswerThenLearn");
  static_assert(!R::token_factors || (!T::Momentum::present && !T::Forgetting::present),
                "the update rule's token_factors scale all that a mini-batch has learned, which "
                "momentum and forgetting keep no sum of: set token_factors to false");
  static_assert(!R::token_factors || std::same_as<Schedule, LearnThenAnswer> || online,
                "the update rule's token_factors belong to the places of a mini-batch that answers "
                "while it learns: set token_factors to false, or schedule to LearnThenAnswer");
  static_assert(!T::decays_first || online,
                "the update rule takes gradients at decayed weights, which differ from token to "
                "token: its schedule must be Online");
  static_assert(R::inner_steps >= 1,
                "the update rule's inner_steps is below 1; to switch learning "
                "off set base_learning_rate to 0");
  static_assert(R::inner_steps == 1 || online,
                "the update rule's inner_steps would learn from a mini-batch before its tokens are "
                "answered: its schedule must be Online");
  static_assert(!std::same_as<typename T::Rate, ProximalRate> || LinearSquaredError<M>,
                "the update rule's ProximalRate is that of one linear map without bias and norm on "
                "a squared error: PlainStack<LinearMap<>>");
  static_assert(!std::same_as<typename T::Rate, ProximalRate> ||
                    (online && !R::token_factors && !R::rate_over_width),
                "the update rule's ProximalRate is the length of one whole step: its schedule must "
                "be Online, token_factors and rate_over_width false");
  return true;
}

}  // namespace ttt
