// TTT layers of every update rule against the unrolled loop of their equations, differentiated in
// reverse number by number: outputs, states, and the gradients of the input and all parameters.
#include <gtest/gtest.h>

#include <algorithm>

#include "layers/ttt_loop.hpp"
#include "support/layer_cases.hpp"

namespace ttt::test {
namespace {

/// The same sums in another order, in double: measured errors are below 6e-14, and 1.4e-13 where
/// Newton-Schulz steps enlarge small singular values.
constexpr double loop_tolerance = 2e-12;

template <class Model, class Rule>
struct Cases {
  template <class S>
  using Layer = TTTLayer<S, Model, Rule>;
};

loop::Tensors on_tape(const auto& tensors, Tape& tape) {
  loop::Tensors result;
  for_each_tensor([&](const TensorInfo& info,
                      const auto& tensor) { result[info.name] = tape.variables(tensor); },
                  tensors);
  return result;
}

Matrix<double> values(const loop::Mat& numbers) {
  return numbers.unaryExpr([](const TapeNumber& number) { return number.value; });
}

/// L = <dy, y> + <probe, state after>, as `run` has it. Returns the norms that directions were
/// taken of.
template <class Model, class Rule>
std::vector<double> expect_equal_to_loop(TTTConfig config, Index tokens = 11) {
  const auto layer = make_layer<Cases<Model, Rule>, double>(config);
  auto stream = random_stream(layer, 0, tokens, 7);
  stream.options.inner_rate_scale = 0.75;
  const auto actual = run(layer, stream);
  config.base_learning_rate *= stream.options.inner_rate_scale;

  Tape tape;
  const auto parameters = on_tape(layer.parameters(), tape);
  const loop::Mat x = tape.variables(stream.x);
  loop::Mat y(x.rows(), x.cols());
  loop::Layer<Model, Rule> expected(config, parameters);
  for (Index t = 0; t < tokens; ++t) y.col(t) = expected.token(x.col(t));
  const auto state = expected.state();

  TapeNumber L = y.cwiseProduct(stream.dy.template cast<TapeNumber>()).sum();
  const auto probe = random_like(actual.outputs.state, stream.probe_seed);
  EXPECT_LE(relative_error(actual.outputs.y, values(y)), loop_tolerance);
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor, const auto& weight) {
        EXPECT_LE(relative_error(tensor, values(state.at(info.name))), loop_tolerance) << info.name;
        L += state.at(info.name).cwiseProduct(weight.template cast<TapeNumber>()).sum();
      },
      actual.outputs.state, probe);

  tape.differentiate(L);
  EXPECT_LE(relative_error(actual.dx, tape.gradient(x)), loop_tolerance) << "dx";
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor) {
        const auto gradient = tape.gradient(parameters.at(info.name));
        EXPECT_GT(gradient.norm(), 0) << info.name;
        EXPECT_LE(relative_error(tensor, gradient), loop_tolerance) << info.name;
      },
      actual.grad);
  return expected.norms();
}

/// Some of them are above the limit, and some are not.
void expect_both_sides(const std::vector<double>& norms, double limit) {
  const auto above = std::count_if(norms.begin(), norms.end(), [&](double n) { return n > limit; });
  EXPECT_GT(above, 0);
  EXPECT_LT(above, std::ssize(norms));
}

TTTConfig config(double base_learning_rate, bool rotary = false) {
  return {.width = 8,
          .heads = 2,
          .mini_batch = 4,
          .base_learning_rate = base_learning_rate,
          .rotary = rotary};
}

using Published = Stack<Affine<>>;
using Linear = PlainStack<LinearMap<>>;
using TwoMaps = PlainStack<Affine<2>, Affine<>>;
using Attention = StackOf<OutputRule<NoNorm, DotProduct, false>, LinearMap<>>;

struct Descent : PublishedRule {
  static constexpr SoftplusRate rate{};
  static constexpr bool token_factors = false;
};
TEST(TTTRulesLoop, Descent) {
  expect_equal_to_loop<Published, Descent>(config(1, true));
  expect_equal_to_loop<Linear, Descent>(config(1));
}
TEST(TTTRulesLoop, DescentWithOtherSwitches) {
  TTTConfig probe = config(0.5, true);
  probe.queries_as_keys = true;
  expect_equal_to_loop<Linear, Descent>(probe);
  probe.learned_initial_weights = false;
  expect_equal_to_loop<Linear, Descent>(probe);
  expect_equal_to_loop<Linear, Descent>(config(-0.2));
}

struct Momentum : Descent {
  static constexpr TokenMomentum momentum{};
};
TEST(TTTRulesLoop, Momentum) { expect_equal_to_loop<Published, Momentum>(config(1)); }

struct Forgetting : Descent {
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
};
TEST(TTTRulesLoop, Forgetting) { expect_equal_to_loop<Linear, Forgetting>(config(1)); }

struct Titans : Momentum {
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
};
TEST(TTTRulesLoop, MomentumAndForgetting) {
  expect_equal_to_loop<Published, Titans>(config(1, true));
}

struct TitansAnsweringFirst : Titans {
  static constexpr AnswerThenLearn schedule{};
};
TEST(TTTRulesLoop, MomentumAndForgettingAnsweringFirst) {
  expect_equal_to_loop<TwoMaps, TitansAnsweringFirst>(config(0.5));
  TTTConfig zero = config(1);
  zero.learned_initial_weights = false;
  expect_equal_to_loop<Linear, TitansAnsweringFirst>(zero);
}

struct GatedDelta : Descent {
  static constexpr bool rate_over_width = false;
  static constexpr SigmoidRate rate{};
  static constexpr ForgetBeforeGradient forgetting{.initial_bias = -1};
  static constexpr Online schedule{};
  static constexpr SiLUNormalized features{};
};
TEST(TTTRulesLoop, ForgettingBeforeTheGradient) {
  expect_equal_to_loop<Linear, GatedDelta>(config(1));
}

struct GatedDeltaMomentum : GatedDelta {
  static constexpr TokenMomentum momentum{};
};
TEST(TTTRulesLoop, ForgettingBeforeTheGradientWithMomentum) {
  expect_equal_to_loop<Published, GatedDeltaMomentum>(config(1));
}

struct ThreeSteps : Descent {
  static constexpr Online schedule{};
  static constexpr int inner_steps = 3;
};
TEST(TTTRulesLoop, InnerSteps) { expect_equal_to_loop<Linear, ThreeSteps>(config(0.5)); }

TEST(TTTRulesLoop, TokenFactors) {
  expect_equal_to_loop<Published, PublishedRule>(config(1, true));
}

struct ThreeStepsWithTokenFactors : PublishedRule {
  static constexpr Online schedule{};
  static constexpr int inner_steps = 3;
};
TEST(TTTRulesLoop, InnerStepsWithTokenFactors) {
  expect_equal_to_loop<Published, ThreeStepsWithTokenFactors>(config(1, true));
}

struct ThreeStepsOfTitans : ThreeSteps {
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
};
TEST(TTTRulesLoop, InnerStepsWithMomentumAndForgetting) {
  expect_equal_to_loop<Published, ThreeStepsOfTitans>(config(1));
}

struct ThreeStepsForgettingBefore : ThreeSteps {
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetBeforeGradient forgetting{.initial_bias = -1};
};
TEST(TTTRulesLoop, InnerStepsForgettingBeforeTheGradient) {
  expect_equal_to_loop<Linear, ThreeStepsForgettingBefore>(config(0.3));
}

struct Clipped : Descent {
  static constexpr ClippedDirection direction{.limit = 1};
  static constexpr AnswerThenLearn schedule{};
};
TEST(TTTRulesLoop, Clipping) {
  expect_both_sides(expect_equal_to_loop<Linear, Clipped>(config(1), 15), Clipped::direction.limit);
}

struct ClippedTitans : Clipped {
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
};
TEST(TTTRulesLoop, ClippingWithMomentumAndForgetting) {
  expect_both_sides(expect_equal_to_loop<TwoMaps, ClippedTitans>(config(1), 15),
                    Clipped::direction.limit);
}

struct NewtonSchulz : Momentum {
  static constexpr NewtonSchulzDirection direction{.scale = 0.5};
  static constexpr AnswerThenLearn schedule{};
};
TEST(TTTRulesLoop, NewtonSchulz) {
  expect_equal_to_loop<Linear, NewtonSchulz>(config(1));
  expect_equal_to_loop<TwoMaps, NewtonSchulz>(config(1));
}

struct LinearAttention : Descent {
  static constexpr ConstantRate rate{};
  static constexpr WholeSequence schedule{};
  static constexpr EluPlusOne features{};
};
TEST(TTTRulesLoop, LinearAttention) {
  TTTConfig zero = config(1);
  zero.learned_initial_weights = false;
  expect_equal_to_loop<Attention, LinearAttention>(zero);
  expect_equal_to_loop<Attention, LinearAttention>(config(1));
}

struct Longhorn : Descent {
  static constexpr bool rate_over_width = false;
  static constexpr ProximalRate rate{};
  static constexpr Online schedule{};
};
TEST(TTTRulesLoop, ProximalRate) { expect_equal_to_loop<Linear, Longhorn>(config(1)); }

struct Reconstruction : Descent {
  static constexpr MaskedInput corruption{.fraction = 0.5, .seed = 3};
};
TEST(TTTRulesLoop, MaskedInput) { expect_equal_to_loop<Published, Reconstruction>(config(1)); }

}  // namespace
}  // namespace ttt::test
