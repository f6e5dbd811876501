#include "ttt/inner/directions.hpp"

#include <Eigen/SVD>
#include <cmath>

#include "nn/operation_test.hpp"
#include "ttt/inner/corruption.hpp"

namespace ttt::test {
namespace {

static_assert(Direction<GradientDescent, float> && Direction<GradientDescent, double>);
static_assert(Direction<ClippedDirection, float> && Direction<ClippedDirection, double>);
static_assert(Direction<NewtonSchulzDirection, float> && Direction<NewtonSchulzDirection, double>);
static_assert(!Direction<NoCorruption, double>);

template <class S, class Policy>
Matrix<S> direction(const Policy& policy, const Matrix<S>& G) {
  typename Policy::template Scratch<S> scratch;
  Matrix<S> D(G.rows(), G.cols());
  policy.template forward<S>(G, D, scratch);
  return D;
}

/// Both orientations, square, and one row: backward overwrites dG, and scratch may have served
/// another shape.
template <class Policy>
void expect_gradients(const Policy& policy, double scale) {
  typename Policy::template Scratch<double> scratch;
  for (const auto& [rows, cols] :
       {std::pair(4, 7), std::pair(7, 4), std::pair(5, 5), std::pair(1, 6), std::pair(6, 1)}) {
    Matrix<double> G = scale * random_matrix<double>(rows, cols, 1);
    const Matrix<double> dD = random_matrix<double>(rows, cols, 2);
    Matrix<double> dG = random_matrix<double>(rows, cols, 3), D(rows, cols);
    const auto loss = [&] {
      policy.template forward<double>(G, D, scratch);
      return dD.cwiseProduct(D).sum();
    };
    policy.template backward<double>(G, dD, dG, scratch);
    EXPECT_TRUE(check_gradient(G, dG, loss, {.step = 1e-4})) << rows << " x " << cols;
  }
}

TEST(DirectionsTest, BackwardEqualsDifferences) {
  expect_gradients(GradientDescent(), 1);
  expect_gradients(ClippedDirection{0.8}, 1);  // all are longer
  expect_gradients(ClippedDirection{100}, 1);  // none is
  expect_gradients(NewtonSchulzDirection(), 1);
  expect_gradients(NewtonSchulzDirection(), 10);
}

TEST(DirectionsTest, GradientDescentChangesNothing) {
  const auto G = random_matrix<double>(3, 4, 1);
  EXPECT_EQ(direction(GradientDescent(), G), G);
}

TEST(DirectionsTest, ClippingShortensWhatIsTooLong) {
  const auto G = random_matrix<double>(3, 4, 1);
  const ClippedDirection longer{2 * G.norm()}, shorter{G.norm() / 2};
  EXPECT_EQ(direction(longer, G), G);
  EXPECT_LE(relative_error(direction(shorter, G), Matrix<double>(G / 2)), 1e-15);
  const Matrix<float> huge = Matrix<float>::Constant(3, 4, 1e30f);  // its squares overflow
  EXPECT_NEAR(direction(ClippedDirection{2}, huge).norm(), 2, 1e-6);
  EXPECT_THROW(ClippedDirection{0}.validate(), std::invalid_argument);
  EXPECT_THROW(ClippedDirection{std::nan("")}.validate(), std::invalid_argument);
  ClippedDirection{0.1}.validate();
}

/// Singular vectors are kept, and each singular value goes through the polynomial of numbers.
TEST(DirectionsTest, NewtonSchulzMapsSingularValues) {
  for (const auto& [rows, cols] : {std::pair(8, 20), std::pair(20, 8), std::pair(12, 12)}) {
    const auto G = random_matrix<double>(rows, cols, 4);
    const Eigen::JacobiSVD<Matrix<double>> svd(G, Eigen::ComputeThinU | Eigen::ComputeThinV);
    Vector<double> sigma = svd.singularValues() / (G.norm() + 1e-7);
    for (int i = 0; i < 5; ++i)
      for (double& x : sigma) x *= 3.4445 - 4.7750 * std::pow(x, 2) + 2.0315 * std::pow(x, 4);
    const Matrix<double> expected = svd.matrixU() * sigma.asDiagonal() * svd.matrixV().transpose();
    EXPECT_LE(relative_error(direction(NewtonSchulzDirection(), G), expected), 1e-11);
  }
}

TEST(DirectionsTest, NewtonSchulzBringsSingularValuesNearOne) {
  for (const auto& [rows, cols] : {std::pair(16, 40), std::pair(40, 16)}) {
    for (const double scale : {1e-2, 1.0, 1e4}) {
      const Matrix<double> G = scale * random_matrix<double>(rows, cols, 5);
      const Eigen::JacobiSVD<Matrix<double>> svd(direction(NewtonSchulzDirection(), G));
      EXPECT_GT(svd.singularValues().minCoeff(), 0.65);
      EXPECT_LT(svd.singularValues().maxCoeff(), 1.2);
    }
  }
}

TEST(DirectionsTest, NewtonSchulzOfNothingIsNothing) {
  const Matrix<double> zero = Matrix<double>::Zero(3, 4), dD = random_matrix<double>(3, 4, 1);
  EXPECT_EQ(direction(NewtonSchulzDirection(), zero), zero);
  NewtonSchulzDirection::Scratch<double> scratch;
  Matrix<double> dG(3, 4);
  NewtonSchulzDirection().backward<double>(zero, dD, dG, scratch);
  // The slope at zero is a^5 / epsilon.
  EXPECT_LE(relative_error(dG, Matrix<double>(std::pow(3.4445, 5) / 1e-7 * dD)), 1e-12);
}

TEST(DirectionsTest, FloatAgreesWithDouble) {
  const Matrix<float> G = random_matrix<float>(6, 9, 6);
  const Matrix<double> G_double = G.cast<double>();
  EXPECT_LE(relative_error(direction(NewtonSchulzDirection(), G),
                           direction(NewtonSchulzDirection(), G_double)),
            tolerance::rounding<float>);
}

}  // namespace
}  // namespace ttt::test
