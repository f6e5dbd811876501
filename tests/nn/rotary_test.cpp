#include "ttt/nn/rotary.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index f = 6, H = 3, period = 4;
constexpr double theta = 100;

/// The pair `i` of a head, turned by the angle of `position`; `a` and `b` are its rows.
void turn_pair(Matrix<double>& x, Index t, Index a, Index b, Index i, double position) {
  const double angle = position * std::pow(theta, -2.0 * static_cast<double>(i) / f);
  const double before_a = x(a, t), before_b = x(b, t);
  x(a, t) = before_a * std::cos(angle) - before_b * std::sin(angle);
  x(b, t) = before_a * std::sin(angle) + before_b * std::cos(angle);
}

template <class S>
Matrix<double> interleaved_by_loops(const Matrix<S>& x, Index first) {
  Matrix<double> y = x.template cast<double>();
  for (Index t = 0; t < x.cols(); ++t)
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < f / 2; ++i)
        turn_pair(y, t, h * f + 2 * i, h * f + 2 * i + 1, i,
                  static_cast<double>((first + t) % period));
  return y;
}

template <class S>
Matrix<double> half_split_by_loops(const Matrix<S>& x, Index first) {
  Matrix<double> y = x.template cast<double>();
  for (Index t = 0; t < x.cols(); ++t)
    for (Index h = 0; h < H; ++h)
      for (Index i = 0; i < f / 2; ++i)
        turn_pair(y, t, h * f + i, h * f + i + f / 2, i, static_cast<double>(first + t));
  return y;
}

template <class S>
class RotaryTest : public ::testing::Test {};
TYPED_TEST_SUITE(RotaryTest, Scalars);

TYPED_TEST(RotaryTest, InterleavedEqualsLoops) {
  using S = TypeParam;
  const RotaryInterleaved<S> rotary(f, period, theta);
  for (const Index T : lengths) {
    for (const Index first : {Index{0}, Index{3}, (Index{1} << 62) + 1}) {
      const auto x = random_matrix<S>(H * f, T, 1);
      Matrix<S> y = x;
      rotary.rotate(y, first);
      EXPECT_LE(relative_error(y, interleaved_by_loops(x, first)), tolerance::rounding<S>);
    }
  }
}

TYPED_TEST(RotaryTest, HalfSplitEqualsLoopsWithAndWithoutATable) {
  using S = TypeParam;
  RotaryHalfSplit<S> rotary(f, theta);
  for (const Index reserved : {0, 2, 70, 40}) {
    rotary.reserve(reserved);
    for (const Index T : lengths) {
      for (const Index first : {Index{0}, Index{5}, Index{1} << 33}) {
        const auto x = random_matrix<S>(H * f, T, 1);
        Matrix<S> y = x;
        rotary.rotate(y, first);
        EXPECT_LE(relative_error(y, half_split_by_loops(x, first)), tolerance::rounding<S>);
      }
    }
  }
}

TYPED_TEST(RotaryTest, TheTableChangesNoBit) {
  using S = TypeParam;
  constexpr Index wide = 260;  // more pairs than one chunk
  const RotaryHalfSplit<S> computed(wide, theta);
  RotaryHalfSplit<S> tabulated(wide, theta);
  tabulated.reserve(3);
  tabulated.reserve(9);
  Matrix<S> a = random_matrix<S>(2 * wide, 9, 1), b = a;
  computed.rotate(a, 0);
  tabulated.rotate(b, 0);
  EXPECT_EQ(a, b);
}

TYPED_TEST(RotaryTest, PiecesEqualTheWhole) {
  using S = TypeParam;
  const RotaryInterleaved<S> interleaved(f, period, theta);
  const RotaryHalfSplit<S> half_split(f, theta);
  const auto check = [](const auto& rotary) {
    Matrix<S> whole = random_matrix<S>(H * f, 9, 1), pieces = whole;
    rotary.rotate(whole, 2);
    rotary.rotate(pieces.leftCols(5), 2);
    for (Index t = 5; t < 9; ++t) rotary.rotate(pieces.col(t), 2 + t);
    EXPECT_EQ(pieces, whole);
  };
  check(interleaved);
  check(half_split);
}

TEST(RotaryDoubleTest, RotateBackIsTheAdjoint) {
  const RotaryInterleaved<double> interleaved(f, period, theta);
  const RotaryHalfSplit<double> half_split(f, theta);
  const auto check = [](const auto& rotary) {
    auto x = random_matrix<double>(H * f, 7, 1);
    const auto c = random_matrix<double>(H * f, 7, 2);
    Matrix<double> dx = c;
    rotary.rotate_back(dx, 3);
    EXPECT_TRUE(check_gradient(x, dx, [&] {
      Matrix<double> y = x;
      rotary.rotate(y, 3);
      return c.cwiseProduct(y).sum();
    }));
    rotary.rotate(dx, 3);
    EXPECT_LE(relative_error(dx, c), tolerance::rounding<double>);
  };
  check(interleaved);
  check(half_split);
}

TEST(RotaryFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  const RotaryInterleaved<float> interleaved(f, period, theta);
  const RotaryHalfSplit<float> half_split(f, theta);
  expect_same_bits_for_any_threads([&] {
    Results<float> results{
        {random_matrix<float>(H * f, 300, 1), random_matrix<float>(H * f, 300, 2)}};
    interleaved.rotate(results.tensors[0], 1);
    half_split.rotate(results.tensors[1], 1);
    return results;
  });
}

TEST(RotaryDoubleTest, RefusesOddHeadsAndWrongShapes) {
  EXPECT_THROW(RotaryInterleaved<double>(5, period, theta), std::invalid_argument);
  EXPECT_THROW(RotaryInterleaved<double>(f, 0, theta), std::invalid_argument);
  EXPECT_THROW(RotaryHalfSplit<double>(5, theta), std::invalid_argument);
  EXPECT_THROW(RotaryHalfSplit<double>(0, theta), std::invalid_argument);
  EXPECT_THROW(RotaryHalfSplit<double>(f, 0), std::invalid_argument);
  Matrix<double> wrong = Matrix<double>::Zero(f + 2, 1), right = Matrix<double>::Zero(f, 1);
  const RotaryInterleaved<double> interleaved(f, period, theta);
  const RotaryHalfSplit<double> half_split(f, theta);
  EXPECT_THROW(interleaved.rotate(wrong, 0), std::invalid_argument);
  EXPECT_THROW(half_split.rotate_back(wrong, 0), std::invalid_argument);
  EXPECT_THROW(interleaved.rotate(right, -1), std::invalid_argument);
  EXPECT_THROW(half_split.rotate(right, -1), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
