// Against torch.optim.AdamW (golden/make_adamw_golden.py) and against one update worked out by
// hand.
#include "ttt/train/adamw.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "ttt/core/random.hpp"
#include "ttt/io/safetensors.hpp"

namespace ttt {
namespace {

template <class S>
struct Weights {
  Matrix<S> a;  // [5, 3]
  Vector<S> b;  // [4]

  static auto fields(auto& self) { return std::tuple(field("a", self.a), field("b", self.b)); }
};

template <class S>
class AdamWScalarTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(AdamWScalarTest, Scalars);

TYPED_TEST(AdamWScalarTest, FollowsTheTrajectoryOfTorch) {
  using S = TypeParam;
  const SafetensorsFile file(TTT_GOLDEN_DIR "/train/adamw.safetensors");
  const std::string prefix = std::is_same_v<S, double> ? "f64." : "f32.";
  // Columns hold one update after the other.
  const Matrix<S> a = file.matrix<S>(prefix + "a"), b = file.matrix<S>(prefix + "b");
  const Matrix<S> da = file.matrix<S>(prefix + "clipped.a");
  const Matrix<S> db = file.matrix<S>(prefix + "clipped.b");
  const auto rates = file.read<double>(prefix + "rate");
  const double tolerance = 32 * static_cast<double>(std::numeric_limits<S>::epsilon());

  Weights<S> weights{a.leftCols(3), b.col(0)};
  AdamW<Weights<S>> optimizer(weights,
                              {.decays = [](const std::string& name) { return name != "b"; }});
  ASSERT_EQ(rates.size(), 12u);
  for (Index k = 0; k < 12; ++k) {
    optimizer.step(weights, {da.middleCols(3 * k, 3), db.col(k)}, rates[static_cast<size_t>(k)]);
    EXPECT_LT((weights.a - a.middleCols(3 * k + 3, 3)).cwiseAbs().maxCoeff(), tolerance) << k;
    EXPECT_LT((weights.b - b.col(k + 1)).cwiseAbs().maxCoeff(), tolerance) << k;
  }
  EXPECT_EQ(optimizer.state().updates, 12);
}

struct PartlyDecaying {
  Matrix<double> a, b;
  static auto fields(auto& self) {
    return std::tuple(field("a", self.a), without_decay(field("b", self.b)));
  }
};

TEST(AdamWTest, LeavesTensorsWithoutDecayAlone) {
  const Matrix<double> ones = Matrix<double>::Ones(2, 2), zero = Matrix<double>::Zero(2, 2);
  PartlyDecaying weights{ones, ones};
  AdamW<PartlyDecaying>(weights, {.weight_decay = 0.5}).step(weights, {zero, zero}, 0.1);
  EXPECT_EQ(weights.a, 0.95 * ones);
  EXPECT_EQ(weights.b, ones);
}

TEST(AdamWTest, MakesTheFirstUpdatesAsWorkedOutByHand) {
  Weights<double> weights{Matrix<double>::Constant(1, 1, 2.0), Vector<double>::Constant(1, -1.0)};
  const Weights<double> first{Matrix<double>::Constant(1, 1, 4.0), Vector<double>::Constant(1, 0)};
  const Weights<double> second{Matrix<double>::Constant(1, 1, -2.0),
                               Vector<double>::Constant(1, 0)};
  AdamW<Weights<double>> optimizer(
      weights, {.beta1 = 0.5, .beta2 = 0.75, .epsilon = 1, .weight_decay = 0.2});
  // Decay 2 * 0.9 = 1.8; m^ = 4, v^ = 16: step 0.5 * 4 / (4 + 1).
  optimizer.step(weights, first, 0.5);
  EXPECT_DOUBLE_EQ(weights.a(0, 0), 1.8 - 0.4);
  EXPECT_DOUBLE_EQ(weights.b(0), -0.9);
  // Decay 1.4 * 0.9 = 1.26; m = (2 - 2) / 2 = 0: no step. v = 0.75 * 4 + 0.25 * 4 = 4.
  optimizer.step(weights, second, 0.5);
  EXPECT_DOUBLE_EQ(weights.a(0, 0), 1.26);
  EXPECT_DOUBLE_EQ(optimizer.state().first_moment.a(0, 0), 0);
  EXPECT_DOUBLE_EQ(optimizer.state().second_moment.a(0, 0), 4);
}

TEST(AdamWTest, TreatsEveryElementAlikeInTensorsOfManyBlocks) {
  const Index size = 2 * 8192 + 7;
  Weights<float> weights{Matrix<float>(size, 1), Vector<float>::Zero(1)}, gradient = weights;
  Random random(3);
  random.fill_normal(weights.a, 1);
  random.fill_normal(gradient.a, 1);
  const Weights<float> start = weights;
  AdamW<Weights<float>> optimizer(weights);
  optimizer.step(weights, gradient, 0.01);
  for (const Index i : {Index{0}, Index{8191}, Index{8192}, Index{16384}, size - 1}) {
    Weights<float> one{start.a.row(i), start.b};
    AdamW<Weights<float>>(one).step(one, {gradient.a.row(i), start.b}, 0.01);
    EXPECT_FLOAT_EQ(weights.a(i, 0), one.a(0, 0));
    EXPECT_NE(weights.a(i, 0), start.a(i, 0));
  }
}

TEST(AdamWTest, RefusesBadArgumentsAndChangesNothing) {
  Weights<float> weights{Matrix<float>::Ones(2, 2), Vector<float>::Ones(2)};
  Weights<float> gradient{Matrix<float>::Ones(2, 2), Vector<float>::Ones(3)};
  AdamW<Weights<float>> optimizer(weights);
  EXPECT_THROW(optimizer.step(weights, gradient, 0.1), std::invalid_argument);
  gradient.b.setOnes(2);
  EXPECT_THROW(optimizer.step(weights, gradient, -0.1), std::invalid_argument);
  EXPECT_THROW(optimizer.step(weights, gradient, std::nan("")), std::invalid_argument);
  optimizer.state().second_moment.a.resize(2, 1);
  EXPECT_THROW(optimizer.step(weights, gradient, 0.1), std::invalid_argument);
  EXPECT_EQ(weights.a, Matrix<float>::Ones(2, 2));
  EXPECT_EQ(optimizer.state().updates, 0);

  const auto make = [&](const AdamWConfig& config) { AdamW<Weights<float>>(weights, config); };
  EXPECT_THROW(make({.beta1 = 1}), std::invalid_argument);
  EXPECT_THROW(make({.beta2 = -0.1}), std::invalid_argument);
  EXPECT_THROW(make({.epsilon = -1}), std::invalid_argument);
  EXPECT_THROW(make({.weight_decay = std::nan("")}), std::invalid_argument);
}

}  // namespace
}  // namespace ttt
