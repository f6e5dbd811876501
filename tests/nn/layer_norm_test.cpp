#include "ttt/nn/layer_norm.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index D = 13;
constexpr double epsilon = 1e-2;  // large, so that leaving it out is seen

template <class S>
class LayerNormTest : public ::testing::Test {};
TYPED_TEST_SUITE(LayerNormTest, Scalars);

TYPED_TEST(LayerNormTest, ForwardAndStepEqualLoops) {
  using S = TypeParam;
  for (const Index T : lengths) {
    const auto x = random_matrix<S>(D, T, 1);
    const auto weight = random_vector<S>(D, 2), bias = random_vector<S>(D, 3);
    Matrix<double> expected(D, T);
    for (Index t = 0; t < T; ++t) {
      double mean = 0, variance = 0;
      for (Index d = 0; d < D; ++d) mean += double(x(d, t)) / D;
      for (Index d = 0; d < D; ++d)
        variance += (double(x(d, t)) - mean) * (double(x(d, t)) - mean) / D;
      for (Index d = 0; d < D; ++d)
        expected(d, t) =
            double(weight(d)) * (double(x(d, t)) - mean) / std::sqrt(variance + epsilon) +
            double(bias(d));
    }
    Matrix<S> y(D, T), by_step(D, T);
    LayerNorm<S>::forward(x, weight, bias, epsilon, y);
    for (Index t = 0; t < T; ++t)
      LayerNorm<S>::step(x.col(t), weight, bias, epsilon, by_step.col(t));
    EXPECT_LE(relative_error(y, expected), tolerance::rounding<S>);
    EXPECT_EQ(by_step, y);
  }
}

TYPED_TEST(LayerNormTest, RoundsTheSameAtEveryAddress) {
  using S = TypeParam;
  const auto weight = random_vector<S>(67, 1), bias = random_vector<S>(67, 2);
  const auto x = random_vector<S>(67, 3);
  Vector<S> memory(67 + 16), expected(67), y(67);
  LayerNorm<S>::step(x, weight, bias, epsilon, expected);
  for (Index offset = 0; offset < 16; ++offset) {
    memory.segment(offset, 67) = x;
    LayerNorm<S>::step(memory.segment(offset, 67), weight, bias, epsilon, y);
    EXPECT_EQ(y, expected) << "offset " << offset;
  }
}

TEST(LayerNormDoubleTest, BackwardEqualsDifferencesOverwritesDxAndAddsParameterGradients) {
  for (const Index T : {Index{1}, token_block + 3}) {
    auto x = random_matrix<double>(D, T, 1);
    auto weight = random_vector<double>(D, 2), bias = random_vector<double>(D, 3);
    const auto c = random_matrix<double>(D, T, 4);
    Matrix<double> y(D, T);
    const auto loss = [&] {
      LayerNorm<double>::forward(x, weight, bias, epsilon, y);
      return c.cwiseProduct(y).sum();
    };
    const auto before = random_vector<double>(D, 5);
    Matrix<double> dx = Matrix<double>::Constant(D, T, 9);
    Vector<double> d_weight = before, d_bias = 2 * before;
    LayerNorm<double>::backward(c, x, weight, epsilon, dx, d_weight, d_bias);
    EXPECT_TRUE(check_gradient(x, dx, loss));
    EXPECT_TRUE(check_gradient(weight, Vector<double>(d_weight - before), loss));
    EXPECT_TRUE(check_gradient(bias, Vector<double>(d_bias - 2 * before), loss));
  }
}

/// {y, dx, d_weight, d_bias} of fixed float inputs, computed in S.
template <class S>
Results<S> run(Index width, Index T) {
  const Matrix<S> x = random_matrix<float>(width, T, 1).template cast<S>();
  const Matrix<S> dy = random_matrix<float>(width, T, 2).template cast<S>();
  const Vector<S> weight = random_vector<float>(width, 3).template cast<S>();
  Matrix<S> y(width, T), dx(width, T);
  Vector<S> d_weight = Vector<S>::Zero(width), d_bias = d_weight;
  LayerNorm<S>::forward(x, weight, weight, epsilon, y);
  LayerNorm<S>::backward(dy, x, weight, epsilon, dx, d_weight, d_bias);
  return {{y, dx, d_weight, d_bias}};
}

TEST(LayerNormFloatTest, AgreesWithDouble) {
  expect_close(run<float>(67, 150), run<double>(67, 150), tolerance::float_against_double);
}

TEST(LayerNormFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  expect_same_bits_for_any_threads([] { return run<float>(67, 5 * token_block + 1); });
}

TEST(LayerNormDoubleTest, NoTokenAddsNothing) {
  Matrix<double> none(D, 0);
  const auto weight = random_vector<double>(D, 1);
  Vector<double> d_weight = weight, d_bias = weight;
  LayerNorm<double>::backward(none, none, weight, epsilon, none, d_weight, d_bias);
  EXPECT_EQ(d_weight, weight);
  EXPECT_EQ(d_bias, weight);
}

TEST(LayerNormDoubleTest, RefusesWrongShapes) {
  Matrix<double> x(D, 2), y(D, 3);
  Vector<double> weight(D), shorter(D - 1);
  EXPECT_THROW(LayerNorm<double>::forward(x, weight, weight, epsilon, y), std::invalid_argument);
  EXPECT_THROW(LayerNorm<double>::forward(x, weight, shorter, epsilon, x), std::invalid_argument);
  EXPECT_THROW(LayerNorm<double>::backward(x, x, weight, epsilon, y, weight, weight),
               std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
