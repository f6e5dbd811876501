#include "ttt/nn/rms_norm.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index D = 13;
constexpr double epsilon = 1e-2;  // large, so that leaving it out is seen

template <class S>
class RMSNormTest : public ::testing::Test {};
TYPED_TEST_SUITE(RMSNormTest, Scalars);

TYPED_TEST(RMSNormTest, ForwardAndStepEqualLoops) {
  using S = TypeParam;
  for (const Index T : lengths) {
    const auto x = random_matrix<S>(D, T, 1);
    const auto weight = random_vector<S>(D, 2);
    Matrix<double> expected(D, T);
    for (Index t = 0; t < T; ++t) {
      double squares = 0;
      for (Index d = 0; d < D; ++d) squares += double(x(d, t)) * double(x(d, t));
      for (Index d = 0; d < D; ++d)
        expected(d, t) = double(weight(d)) * double(x(d, t)) / std::sqrt(squares / D + epsilon);
    }
    Matrix<S> y(D, T), by_step(D, T);
    RMSNorm<S>::forward(x, weight, epsilon, y);
    for (Index t = 0; t < T; ++t) RMSNorm<S>::step(x.col(t), weight, epsilon, by_step.col(t));
    EXPECT_LE(relative_error(y, expected), tolerance::rounding<S>);
    EXPECT_EQ(by_step, y);
  }
}

TEST(RMSNormDoubleTest, BackwardEqualsDifferencesAndAdds) {
  for (const Index T : {Index{1}, token_block + 3}) {
    auto x = random_matrix<double>(D, T, 1);
    auto weight = random_vector<double>(D, 2);
    const auto c = random_matrix<double>(D, T, 3);
    Matrix<double> y(D, T);
    const auto loss = [&] {
      RMSNorm<double>::forward(x, weight, epsilon, y);
      return c.cwiseProduct(y).sum();
    };
    const auto dx_before = random_matrix<double>(D, T, 4);
    const auto d_weight_before = random_vector<double>(D, 5);
    Matrix<double> dx = dx_before;
    Vector<double> d_weight = d_weight_before;
    RMSNorm<double>::add_backward(c, x, weight, epsilon, dx, d_weight);
    EXPECT_TRUE(check_gradient(x, Matrix<double>(dx - dx_before), loss));
    EXPECT_TRUE(check_gradient(weight, Vector<double>(d_weight - d_weight_before), loss));
  }
}

/// {y, dx, d_weight} of fixed float inputs, computed in S.
template <class S>
Results<S> run(Index width, Index T) {
  const Matrix<S> x = random_matrix<float>(width, T, 1).template cast<S>();
  const Matrix<S> dy = random_matrix<float>(width, T, 2).template cast<S>();
  const Vector<S> weight = random_vector<float>(width, 3).template cast<S>();
  Matrix<S> y(width, T), dx = Matrix<S>::Zero(width, T);
  Vector<S> d_weight = Vector<S>::Zero(width);
  RMSNorm<S>::forward(x, weight, epsilon, y);
  RMSNorm<S>::add_backward(dy, x, weight, epsilon, dx, d_weight);
  return {{y, dx, d_weight}};
}

TEST(RMSNormFloatTest, AgreesWithDouble) {
  expect_close(run<float>(67, 150), run<double>(67, 150), tolerance::float_against_double);
}

TEST(RMSNormFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  expect_same_bits_for_any_threads([] { return run<float>(67, 5 * token_block + 1); });
}

TEST(RMSNormDoubleTest, NoTokenAddsNothing) {
  Matrix<double> none(D, 0);
  const auto weight = random_vector<double>(D, 1);
  Vector<double> d_weight = weight;
  RMSNorm<double>::add_backward(none, none, weight, epsilon, none, d_weight);
  EXPECT_EQ(d_weight, weight);
}

TEST(RMSNormDoubleTest, RefusesWrongShapes) {
  Matrix<double> x(D, 2), y(D, 3);
  Vector<double> weight(D), shorter(D - 1);
  EXPECT_THROW(RMSNorm<double>::forward(x, weight, epsilon, y), std::invalid_argument);
  EXPECT_THROW(RMSNorm<double>::forward(x, shorter, epsilon, x), std::invalid_argument);
  EXPECT_THROW(RMSNorm<double>::add_backward(x, x, weight, epsilon, x, shorter),
               std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
