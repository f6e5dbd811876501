// The laws for TTT layers with other update rules than the published one. Numbers are the matter of
// ttt_rules_loop_test.cpp; here any split, threads, memory, saved states.
#include <gtest/gtest.h>

#include <filesystem>

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

struct SumsOfProducts : Unscaled {
  static constexpr ConstantRate rate{};
  static constexpr WholeSequence schedule{};
  static constexpr EluPlusOne features{};
};
using SumsOfProductsModel = StackOf<OutputRule<NoNorm, DotProduct, false>, LinearMap<>>;
using SumsOfProductsCases = TTTCases<SumsOfProductsModel, SumsOfProducts>;
INSTANTIATE_TYPED_TEST_SUITE_P(SumsOfProducts, LayerLaws, SumsOfProductsCases);

struct Longhorn : Unscaled {
  static constexpr ProximalRate rate{};
  static constexpr Online schedule{};
};
using LonghornCases = TTTCases<PlainStack<LinearMap<>>, Longhorn>;
INSTANTIATE_TYPED_TEST_SUITE_P(Longhorn, LayerLaws, LonghornCases);

struct Reconstruction : Unscaled {
  static constexpr AnswerThenLearn schedule{};
  static constexpr ReLUFeatures features{};
  static constexpr LowRankInput corruption{.rank = 2, .seed = 3};
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

struct Steps : Unscaled {
  static constexpr Online schedule{};
  static constexpr L2Normalized features{};
  static constexpr int inner_steps = 2;
};
using StepsCases = TTTCases<PlainStack<Affine<>>, Steps>;
INSTANTIATE_TYPED_TEST_SUITE_P(Steps, LayerLaws, StepsCases);

struct StepsWithTokenFactors : PublishedRule {
  static constexpr Online schedule{};
  static constexpr L2Normalized features{};
  static constexpr int inner_steps = 2;
};
/// The gradient of the one token factor is one number: with these rates its terms do not cancel,
/// which would leave their rounding errors.
struct StepsWithTokenFactorsCases : TTTCases<PlainStack<Affine<>>, StepsWithTokenFactors> {
  static std::vector<LayerCase<TTTConfig>> small() {
    auto cases = TTTCases<PlainStack<Affine<>>, StepsWithTokenFactors>::small();
    for (auto& one : cases) one.config.base_learning_rate *= 0.2;
    return cases;
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(StepsWithTokenFactors, LayerLaws, StepsWithTokenFactorsCases);

/// Where answers come first, they read no token of their mini-batch, and so no broken one: a stream
/// in one piece has the same answers as one that is read token by token.
TEST(TTTRulesTest, ABrokenTokenReachesAnswersAtTheBorder) {
  const auto layer =
      make_layer<ReconstructionCases, double>(TTTConfig{.width = 8, .heads = 2, .mini_batch = 4});
  Random random(4);
  auto x = random_matrix<double>(8, 6, random);
  x.col(1).setConstant(std::numeric_limits<double>::quiet_NaN());
  Matrix<double> whole(8, 6), stepped(8, 6);
  auto state = layer.initial_state(), other = state;
  layer.forward(x, state, whole);
  for (Index t = 0; t < 6; ++t) layer.step(x.col(t), other, stepped.col(t));
  for (Index t = 0; t < 6; ++t) {
    const bool finite = t == 0 || t == 2 || t == 3;
    EXPECT_EQ(whole.col(t).allFinite(), finite) << t;
    EXPECT_EQ(stepped.col(t).allFinite(), finite) << t;
    if (finite) {
      EXPECT_LE(relative_error(whole.col(t), stepped.col(t)), tolerance::stream<double>);
    }
  }
}

struct Orthogonal : Unscaled {
  static constexpr NewtonSchulzDirection direction{};
  static constexpr AnswerThenLearn schedule{};
};
/// Its products at a border are large enough for threads.
TEST(TTTRulesTest, LargeProductsAtABorderStartNoThreadsAndAllocateNothing) {
  const std::filesystem::path tasks = "/proc/self/task";
  if (!std::filesystem::exists(tasks)) GTEST_SKIP() << "needs Linux, which lists threads";
  const auto threads_alive = [&] {
    return std::distance(std::filesystem::directory_iterator(tasks), {});
  };
  using Model = Stack<Affine<4>, SiLU, Affine<>>;
  const TTTLayer<float, Model, Orthogonal> layer({.width = 64, .mini_batch = 4});
  auto state = layer.initial_state();
  auto workspace = [&] {
    const ThreadCount one(1);
    return layer.workspace(1);
  }();
  Vector<float> x = Vector<float>::Ones(64), y = x;
  const ThreadCount three(3);
  const auto alive = threads_alive();
  const AllocationCounter counter;
  for (int t = 0; t < 9; ++t) layer.step(x, state, y, workspace);
  EXPECT_EQ(counter.count(), 0u);
  EXPECT_EQ(threads_alive(), alive);
  EXPECT_TRUE(y.allFinite());
}

// What a configuration cannot ask of a rule or an inner model.

TEST(TTTRulesTest, RefusesWeightMatricesThatNeverLeaveZero) {
  using Model = Stack<Affine<2>, Tanh, Affine<>>;
  const TTTConfig config{.width = 8, .heads = 2, .learned_initial_weights = false};
  expect_refused([&] { TTTLayer<float, Model> layer(config); },
                 {"learned_initial_weights is false", "2 weight matrices"});
  const TTTLayer<float, Stack<Affine<>>> layer(config);
  EXPECT_TRUE(layer.initial_state().weights.W[0].isZero(0));
  EXPECT_EQ(layer.parameters().W_0.W[0].size(), 0);
}

TEST(TTTRulesTest, RefusesProjectionsThatARuleHasNot) {
  using Layer = TTTLayer<float, Stack<Affine<>>, Reconstruction>;
  for (const bool share_qk : {true, false}) {
    TTTConfig config{.width = 8, .heads = 2, .share_qk = share_qk};
    config.queries_as_keys = !share_qk;
    expect_refused([&] { Layer layer(config); }, {"corrupted input in the place of projections"});
  }
}

struct NoLimit : ClippedMomentum {
  static constexpr ClippedDirection direction{.limit = 0};
};
TEST(TTTRulesTest, RefusesValuesThatAChoiceCannotHave) {
  using Layer = TTTLayer<float, LaCTModel, NoLimit>;
  expect_refused([] { Layer layer({.width = 8, .heads = 2}); }, {"limit is 0"});
}

struct HighRank : Reconstruction {
  static constexpr LowRankInput corruption{.rank = 5};
};
TEST(TTTRulesTest, RefusesARankAboveTheHeadWidth) {
  using Layer = TTTLayer<float, Stack<Affine<>>, HighRank>;
  expect_refused([] { Layer layer({.width = 8, .heads = 2}); },
                 {"rank is 5", "1 to the head width 4"});
}

TEST(TTTRulesTest, RefusesStatesOfOtherShapes) {
  const TTTLayer<float, LaCTModel, ClippedMomentum> layer({.width = 8, .heads = 2});
  auto state = layer.initial_state();
  state.carried.totals.resize(2, 1);
  expect_refused([&] { layer.check(state); }, {"totals", "2 x 1", "2 x 2"});
  state.carried = {};
  expect_refused([&] { layer.check(state); }, {"the state has 0 heads"});
}

/// Gradients at the start of the whole sequence, a dot product, a rate of 1 and W_0 = 0 are causal
/// linear attention: z_t = sum_{s<=t} v_s (k_s . q_t). Source: Sun et al. 2024, theorem 1.
TEST(TTTRulesTest, WholeSequenceIsLinearAttention) {
  using Layer = TTTLayer<double, SumsOfProductsModel, SumsOfProducts>;
  TTTConfig config{.width = 8, .heads = 2};
  config.learned_initial_weights = false;
  const auto layer = make_layer<SumsOfProductsCases, double>(config);
  const Index T = 2 * largest_piece + 10, f = 4;  // more than one piece
  Random random(3);
  const auto x = random_matrix<double>(8, T, random);
  Matrix<double> y(8, T);
  auto state = layer.initial_state();
  auto workspace = layer.workspace(T);
  Layer::Cache cache;
  layer.forward(x, state, y, workspace, cache);
  const auto& a = cache.activations;
  for (Index h = 0; h < 2; ++h) {
    const auto q = a.q.middleRows(h * f, f), k = a.k.middleRows(h * f, f),
               v = a.v.middleRows(h * f, f), z = a.z.middleRows(h * f, f);
    const Matrix<double> scores = (k.transpose() * q).triangularView<Eigen::Upper>();
    const Matrix<double> expected = v * scores;
    EXPECT_LE(relative_error(z, expected), tolerance::rounding<double>);
  }
}

}  // namespace
}  // namespace ttt::test
