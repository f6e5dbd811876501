// The gradient checker must find a wrong gradient, and say where it is.
#include "support/gradient_check.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "ttt/core/random.hpp"

namespace ttt::test {
namespace {

struct Point {
  Matrix<double> A;  // [3, 4]
  Vector<double> b;  // [3]
  static auto fields(auto& self) { return std::tuple(field("A", self.A), field("b", self.b)); }
};

/// L = sum sin(A) + sum exp(b) + (sum A)^2 / 20 (b_0 + 2), with its gradient written by hand.
double loss(const Point& p) {
  const double s = p.A.sum();
  return p.A.array().sin().sum() + p.b.array().exp().sum() + s * s / 20 * (p.b(0) + 2);
}

Point gradient(const Point& p) {
  Point d = zeros_like(p);
  const double s = p.A.sum();
  d.A = p.A.array().cos() + s / 10 * (p.b(0) + 2);
  d.b = p.b.array().exp();
  d.b(0) += s * s / 20;
  return d;
}

class GradientCheckTest : public ::testing::Test {
 protected:
  GradientCheckTest() : point{Matrix<double>(3, 4), Vector<double>(3)} {
    Random random(7);
    random.fill_normal(point.A, 1);
    random.fill_normal(point.b, 1);
    right = gradient(point);
  }

  ::testing::AssertionResult check(const Point& candidate) {
    return check_gradient(point, candidate, [&] { return loss(point); });
  }

  Point point;
  Point right;
};

TEST_F(GradientCheckTest, PassesForTheRightGradientAndLeavesTheValueUnchanged) {
  const Point before = point;
  EXPECT_TRUE(check(right));
  EXPECT_EQ(before.A, point.A);
  EXPECT_EQ(before.b, point.b);
}

TEST_F(GradientCheckTest, FailsWhereOneElementIsWrongByOnePartInTenThousand) {
  for (Index element = 0; element < right.A.size(); ++element) {
    Point wrong = right;
    wrong.A(element) *= 1 + 1e-4;
    const auto result = check(wrong);
    EXPECT_FALSE(result) << "element " << element;
    const std::string place = concat("A(", element % 3, ", ", element / 3, ")");
    EXPECT_NE(std::string(result.message()).find("1 of 15 elements"), std::string::npos);
    EXPECT_NE(std::string(result.message()).find(place), std::string::npos) << result.message();
  }
  for (Index element = 0; element < right.b.size(); ++element) {
    Point wrong = right;
    wrong.b(element) *= 1 - 1e-4;
    EXPECT_FALSE(check(wrong)) << "element " << element;
  }
}

TEST_F(GradientCheckTest, FailsForZeroAndForNumbersThatAreNotFinite) {
  EXPECT_FALSE(check(zeros_like(right)));
  for (const double value :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Point wrong = right;
    wrong.b(2) = value;
    const auto result = check(wrong);
    EXPECT_FALSE(result);
    EXPECT_NE(std::string(result.message()).find("b(2, 0)"), std::string::npos);
  }
}

TEST_F(GradientCheckTest, FailsWhereTheLossIsNotFinite) {
  const auto nan = [] { return std::numeric_limits<double>::quiet_NaN(); };
  EXPECT_FALSE(check_gradient(point, right, nan));
}

TEST_F(GradientCheckTest, ChecksAPlainMatrix) {
  const auto read = [&] { return loss(point); };
  EXPECT_TRUE(check_gradient(point.A, right.A, read));
  Matrix<double> wrong = right.A;
  wrong(1, 2) *= 1 + 1e-4;
  EXPECT_FALSE(check_gradient(point.A, wrong, read));
}

TEST_F(GradientCheckTest, TriesAsManyElementsAsItIsTold) {
  Index calls = 0;
  GradientCheckOptions options;
  options.elements_per_tensor = 2;
  const auto count = [&] {
    ++calls;
    return loss(point);
  };
  EXPECT_TRUE(check_gradient(point, right, count, options));
  EXPECT_EQ(calls, 1 + 2 * 2 * 4);
}

TEST_F(GradientCheckTest, RefusesOtherShapesAndNothingAtAll) {
  Point misshapen = right;
  misshapen.b.resize(2);
  EXPECT_THROW((void)check(misshapen), std::invalid_argument);
  Matrix<double> empty(0, 3);
  EXPECT_FALSE(check_gradient(empty, empty, [] { return 1.0; }));
}

TEST(RelativeErrorTest, IsRelativeToTheLargestElementAndInfiniteWhereNothingCanBeCompared) {
  Matrix<double> expected(2, 1), actual(2, 1);
  expected << -4, 1;
  actual << -4, 1.5;
  EXPECT_DOUBLE_EQ(relative_error(actual, expected), 0.125);
  EXPECT_EQ(relative_error(expected, expected), 0);
  EXPECT_DOUBLE_EQ(relative_error(actual, Matrix<double>::Zero(2, 1)), 4);
  EXPECT_EQ(relative_error(Matrix<double>(3, 0), Matrix<double>(3, 0)), 0);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(relative_error(actual.transpose(), expected), infinity);
  actual(0) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(relative_error(actual, expected), infinity);
  EXPECT_EQ(relative_error(expected, actual), infinity);
}

}  // namespace
}  // namespace ttt::test
