// The laws for TTT layers with other update rules than the published one. Between them the rules
// make every choice that there is.
#include <gtest/gtest.h>

#include "layers/ttt_cases.hpp"

namespace ttt::test {
namespace {

struct Unscaled : PublishedRule {
  static constexpr bool rate_over_width = false, token_factors = false;
};

struct Titans : Unscaled {
  static constexpr SoftplusRate rate{};
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
};
using TitansCases = TTTCases<Stack<Affine<>>, Titans>;
INSTANTIATE_TYPED_TEST_SUITE_P(Titans, LayerLaws, TitansCases);

struct ForgettingFirst : Unscaled {
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetBeforeGradient forgetting{.initial_bias = -1};
  static constexpr Online schedule{};
  static constexpr SiLUNormalized features{};
  static constexpr int inner_steps = 2;
};
using ForgettingFirstCases = TTTCases<PlainStack<Affine<>>, ForgettingFirst>;
INSTANTIATE_TYPED_TEST_SUITE_P(ForgettingFirst, LayerLaws, ForgettingFirstCases);

struct ClippedMomentum : Unscaled {
  static constexpr TokenMomentum momentum{};
  static constexpr ForgetAfterGradient forgetting{.initial_bias = -1};
  static constexpr ClippedDirection direction{.limit = 0.5};
  static constexpr AnswerThenLearn schedule{};
};
using LaCTModel = StackOf<OutputRule<NoNorm, DotProduct, false>, SwiGLUStage<2>, LinearMap<>>;
using ClippedMomentumCases = TTTCases<LaCTModel, ClippedMomentum>;
INSTANTIATE_TYPED_TEST_SUITE_P(ClippedMomentum, LayerLaws, ClippedMomentumCases);

struct LinearAttention : Unscaled {
  static constexpr ConstantRate rate{};
  static constexpr WholeSequence schedule{};
  static constexpr EluPlusOne features{};
};
using LinearAttentionModel = StackOf<OutputRule<NoNorm, DotProduct, false>, LinearMap<>>;
using LinearAttentionCases = TTTCases<LinearAttentionModel, LinearAttention>;
INSTANTIATE_TYPED_TEST_SUITE_P(LinearAttention, LayerLaws, LinearAttentionCases);

struct Longhorn : Unscaled {
  static constexpr ProximalRate rate{};
  static constexpr Online schedule{};
};
using LonghornCases = TTTCases<PlainStack<LinearMap<>>, Longhorn>;
INSTANTIATE_TYPED_TEST_SUITE_P(Longhorn, LayerLaws, LonghornCases);

struct Reconstruction : Unscaled {
  static constexpr AnswerThenLearn schedule{};
  static constexpr MaskedInput corruption{.fraction = 0.5, .seed = 3};
};
struct ReconstructionCases : TTTCases<Stack<Affine<>>, Reconstruction> {
  static std::vector<LayerCase<TTTConfig>> small() {
    auto cases = TTTCases<Stack<Affine<>>, Reconstruction>::small();
    std::erase_if(cases,
                  [](const auto& c) { return c.config.share_qk || c.config.queries_as_keys; });
    return cases;
  }
  static TTTConfig large() { return {.width = 64, .heads = 2, .gate = true}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Reconstruction, LayerLaws, ReconstructionCases);

}  // namespace
}  // namespace ttt::test
