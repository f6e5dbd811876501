#include "ttt/nn/linear.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index in = 11, out = 6;

template <class S>
class LinearTest : public ::testing::Test {};
TYPED_TEST_SUITE(LinearTest, Scalars);

TYPED_TEST(LinearTest, ForwardAndStepEqualLoops) {
  using S = TypeParam;
  for (const Index T : lengths) {
    const auto x = random_matrix<S>(in, T, 1), weight = random_matrix<S>(in, out, 2);
    Matrix<S> expected = Matrix<S>::Zero(out, T), y(out, T), by_step(out, T);
    for (Index t = 0; t < T; ++t)
      for (Index o = 0; o < out; ++o)
        for (Index i = 0; i < in; ++i) expected(o, t) += weight(i, o) * x(i, t);
    Linear<S>::forward(x, weight, y);
    for (Index t = 0; t < T; ++t) Linear<S>::step(x.col(t), weight, by_step.col(t));
    Matrix<S> first(out, T), second(out, T);
    Linear<S>::forward(x, {{weight, first}, {weight, second}});
    EXPECT_LE(relative_error(y, expected), tolerance::rounding<S>);
    EXPECT_LE(relative_error(by_step, expected), tolerance::rounding<S>);
    EXPECT_LE(relative_error(first, expected), tolerance::rounding<S>);
    EXPECT_EQ(second, first);
  }
}

TYPED_TEST(LinearTest, BackwardEqualsLoops) {
  using S = TypeParam;
  for (const Index T : lengths) {
    const auto x = random_matrix<S>(in, T, 1), weight = random_matrix<S>(in, out, 2);
    const auto dy = random_matrix<S>(out, T, 3);
    Matrix<S> expected_dx = Matrix<S>::Zero(in, T);
    Matrix<S> expected_dw = Matrix<S>::Constant(in, out, S(0.5));
    for (Index t = 0; t < T; ++t) {
      for (Index o = 0; o < out; ++o) {
        for (Index i = 0; i < in; ++i) {
          expected_dx(i, t) += weight(i, o) * dy(o, t);
          expected_dw(i, o) += x(i, t) * dy(o, t);
        }
      }
    }
    Matrix<S> dx = Matrix<S>::Constant(in, T, S(9)), d_weight = Matrix<S>::Constant(in, out, 0.5);
    Linear<S>::backward_input(dy, weight, dx);
    EXPECT_LE(relative_error(dx, expected_dx), tolerance::rounding<S>) << "must overwrite dx";
    Linear<S>::add_backward_input(dy, weight, dx);
    EXPECT_LE(relative_error(dx, 2 * expected_dx), tolerance::rounding<S>) << "must add into dx";
    Linear<S>::backward_weight(dy, x, d_weight);
    EXPECT_LE(relative_error(d_weight, expected_dw), tolerance::rounding<S>);
  }
}

TEST(LinearDoubleTest, WeightGradientHasTheSameBitsForAnyNumberOfThreads) {
  const auto x = random_matrix<float>(96, 500, 1), dy = random_matrix<float>(160, 500, 2);
  expect_same_bits_for_any_threads([&] {
    Matrix<float> d_weight = Matrix<float>::Zero(96, 160);
    Linear<float>::backward_weight(dy, x, d_weight);
    return d_weight;
  });
}

TEST(LinearDoubleTest, RefusesWrongShapes) {
  const auto weight = random_matrix<double>(in, out, 1);
  Matrix<double> x(in + 1, 2), y(out, 2), d_weight(in, out);
  EXPECT_THROW(Linear<double>::forward(x, weight, y), std::invalid_argument);
  EXPECT_THROW(Linear<double>::forward(x, {{weight, y}, {weight, y}}), std::invalid_argument);
  EXPECT_THROW(Linear<double>::backward_input(y, weight, x), std::invalid_argument);
  EXPECT_THROW(Linear<double>::add_backward_input(y, weight, x), std::invalid_argument);
  EXPECT_THROW(Linear<double>::backward_weight(y, x, d_weight), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
