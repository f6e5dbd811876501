// Every operation on (value, tangent) matrices: its value is that of the operation on plain
// matrices, its tangent is the difference quotient along the direction.
#include "ttt/inner/dual_matrix.hpp"

#include <gtest/gtest.h>

#include "ttt/core/random.hpp"

namespace ttt {
namespace {

using Plain = Matrix<double>;
using Pair = DualMatrix<double>;

Pair random_pair(Index rows, Index cols, std::uint64_t seed) {
  Pair result{Plain(rows, cols), Plain(rows, cols)};
  Random random(seed);
  random.fill_normal(result.value, 1.0);
  random.fill_normal(result.tangent, 1.0);
  return result;
}

/// `operation` takes matrices of shapes [4, 3], [3, 5], [4, 3], [4, 1] of either kind.
template <class Operation>
void expect_tangent_is_derivative(const char* name, Operation&& operation) {
  const Pair A = random_pair(4, 3, 1), B = random_pair(3, 5, 2), C = random_pair(4, 3, 3),
             c = random_pair(4, 1, 4);
  const Pair result = operation(A, B, C, c);
  const auto at = [&](double step) -> Plain {
    return operation(Plain(A.value + step * A.tangent), Plain(B.value + step * B.tangent),
                     Plain(C.value + step * C.tangent), Plain(c.value + step * c.tangent));
  };
  EXPECT_TRUE(result.value.isApprox(at(0), 1e-15)) << name;
  const double h = 1e-3;
  const Plain slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  EXPECT_LE((result.tangent - slope).cwiseAbs().maxCoeff(), 1e-9) << name;
  EXPECT_GT(result.tangent.norm(), 0.1) << name << ": nothing is tested";
}

/// The arguments of every case below; the result has their kind.
#define EXPECT_DERIVATIVE(...)                                                          \
  expect_tangent_is_derivative(                                                         \
      #__VA_ARGS__,                                                                     \
      []<class T>(const T& A, [[maybe_unused]] const T& B, [[maybe_unused]] const T& C, \
                  [[maybe_unused]] const T& c) -> T { return __VA_ARGS__; })

TEST(DualMatrixTest, TangentOfEveryOperationIsItsDerivative) {
  EXPECT_DERIVATIVE(A * B);
  EXPECT_DERIVATIVE(A + C);
  EXPECT_DERIVATIVE(A - C);
  EXPECT_DERIVATIVE(-A);
  EXPECT_DERIVATIVE(3.0 * A);
  EXPECT_DERIVATIVE(A.transpose() * C);
  EXPECT_DERIVATIVE(A * C.transpose());
  EXPECT_DERIVATIVE(A.transpose());
  EXPECT_DERIVATIVE(A.cwiseProduct(C));
  EXPECT_DERIVATIVE(A.transpose().cwiseProduct(C.transpose()));
  EXPECT_DERIVATIVE(add_column(A * B, c));
  EXPECT_DERIVATIVE(sum_columns(A));
  EXPECT_DERIVATIVE(map_linear(A, [](const auto& x) { return Plain(2 * x.rowwise().reverse()); }));
  EXPECT_DERIVATIVE((2.0 * A - C) * (B * B.transpose()) + activation<Tanh>(A.cwiseProduct(C)));
}

template <class Function>
class DualMatrixActivationTest : public ::testing::Test {};
using Activations = ::testing::Types<Identity, Tanh, ReLU, SiLU, GeluTanh, GeluTanhRounded>;
TYPED_TEST_SUITE(DualMatrixActivationTest, Activations);

TYPED_TEST(DualMatrixActivationTest, TangentIsDerivative) {
  EXPECT_DERIVATIVE(activation<TypeParam>(A));
  EXPECT_DERIVATIVE(activation<TypeParam>(A * B));
  // Times A, since the derivative of some is a constant.
  EXPECT_DERIVATIVE(A.cwiseProduct(activation_derivative<TypeParam>(C)));
}

TEST(DualMatrixTest, ActivationDerivativeIsTheDerivativeOfActivation) {
  Pair z = random_pair(4, 3, 1);
  z.tangent.setOnes();
  EXPECT_TRUE(activation_derivative<SiLU>(z.value).isApprox(activation<SiLU>(z).tangent, 1e-15));
}

TEST(DualMatrixTest, TransposeOfAPairIsAPair) {
  const Pair A = random_pair(4, 3, 1), B = A.transpose();
  EXPECT_TRUE(B.value == A.value.transpose());
  EXPECT_TRUE(B.tangent == A.tangent.transpose());
  EXPECT_EQ(B.rows(), 3);
  EXPECT_EQ(B.cols(), 4);
}

}  // namespace
}  // namespace ttt
