// Squared and Huber loss: values against loops, gradients against differences.
#include "ttt/nn/regression_loss.hpp"

#include "nn/operation_test.hpp"
#include "support/temporary_folder.hpp"

namespace ttt::test {
namespace {

template <class S>
class RegressionLossTest : public ::testing::Test {};
TYPED_TEST_SUITE(RegressionLossTest, Scalars);

TYPED_TEST(RegressionLossTest, ValuesAndMeanEqualLoops) {
  using S = TypeParam;
  const S delta = S(0.75);
  for (const Index T : lengths) {
    const Matrix<S> y = random_matrix<S>(3, T, 1), targets = random_matrix<S>(3, T, 2);
    Vector<double> squared = Vector<double>::Zero(T), huber = squared;
    for (Index t = 0; t < T; ++t) {
      for (Index i = 0; i < 3; ++i) {
        const double e =
            std::abs(static_cast<double>(y(i, t)) - static_cast<double>(targets(i, t)));
        squared(t) += e * e / 2;
        huber(t) += e <= 0.75 ? e * e / 2 : 0.75 * e - 0.75 * 0.75 / 2;
      }
    }
    Vector<S> values(T);
    SquaredLoss<S>().forward(y, targets, values);
    EXPECT_LE(relative_error(values, squared), tolerance::rounding<S>);
    HuberLoss<S>{delta}.forward(y, targets, values);
    EXPECT_LE(relative_error(values, huber), tolerance::rounding<S>);
    const double tokens = std::max(1.0, static_cast<double>(T));
    EXPECT_NEAR(SquaredLoss<S>().mean(y, targets), squared.sum() / tokens,
                10 * tolerance::rounding<S>);
    EXPECT_NEAR(HuberLoss<S>{delta}.mean(y, targets), huber.sum() / tokens,
                10 * tolerance::rounding<S>);
  }
}

template <class Loss>
void expect_gradient_of_the_mean(const Loss& loss) {
  constexpr Index T = 6;
  auto y = random_matrix<double>(4, T, 3);
  const auto targets = random_matrix<double>(4, T, 4);
  Matrix<double> dy(4, T);
  loss.backward(y, targets, 1.0 / T, dy);
  EXPECT_TRUE(check_gradient(y, dy, [&] { return loss.mean(y, targets); }));
}

TEST(RegressionLossDoubleTest, BackwardEqualsDifferences) {
  expect_gradient_of_the_mean(SquaredLoss<double>());
  for (const double delta : {0.05, 0.7, 100.0})
    expect_gradient_of_the_mean(HuberLoss<double>{delta});
}

TEST(RegressionLossDoubleTest, HuberIsSquaredWithinDeltaAndLinearBeyond) {
  Matrix<double> y(1, 5), expected(1, 5), dy(1, 5);
  y << -3, -1, 0.5, 1, 4;
  expected << -1, -1, 0.5, 1, 1;
  HuberLoss<double>{1.0}.backward(y, Matrix<double>::Zero(1, 5), 2, dy);
  EXPECT_EQ(dy, 2 * expected);
}

TEST(RegressionLossDoubleTest, NotANumberIsNotHidden) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Matrix<double> y = Matrix<double>::Constant(1, 1, nan), zero = Matrix<double>::Zero(1, 1);
  Matrix<double> dy(1, 1);
  for (const bool in_target : {false, true}) {
    const auto& first = in_target ? zero : y;
    const auto& second = in_target ? y : zero;
    EXPECT_TRUE(std::isnan(HuberLoss<double>().mean(first, second)));
    HuberLoss<double>().backward(first, second, 1, dy);
    EXPECT_TRUE(std::isnan(dy(0)));
  }
}

TEST(RegressionLossDoubleTest, WrongArgumentsAreRefusedInWords) {
  const Matrix<double> y = Matrix<double>::Zero(2, 3), longer = Matrix<double>::Zero(2, 4);
  Matrix<double> dy(2, 4);
  Vector<double> values(4);
  EXPECT_EQ(testing::message_of([&] { SquaredLoss<double>().mean(y, longer); }),
            "RegressionLoss.mean: targets has shape 2 x 4, expected the shape of y, 2 x 3");
  EXPECT_EQ(testing::message_of([&] { SquaredLoss<double>().forward(y, y, values); }),
            "RegressionLoss.forward: values has shape 4 x 1, expected 3 x 1");
  EXPECT_EQ(testing::message_of([&] { SquaredLoss<double>().backward(y, y, 1, dy); }),
            "RegressionLoss.backward: dy has shape 2 x 4, expected 2 x 3");
  EXPECT_EQ(testing::message_of([&] { HuberLoss<double>{-1.0}.mean(y, y); }),
            "HuberPenalty: delta is -1, expected a positive number");
}

}  // namespace
}  // namespace ttt::test
