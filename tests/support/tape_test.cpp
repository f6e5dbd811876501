// The tape against derivatives known by heart.
#include "support/tape.hpp"

#include <gtest/gtest.h>

#include "support/layer_runs.hpp"

namespace ttt::test {
namespace {

/// dL/dX at A, of the function L.
template <class Function>
Matrix<double> derivative(const Matrix<double>& A, Function&& function) {
  Tape tape;
  const auto X = tape.variables(A);
  tape.differentiate(function(X));
  return tape.gradient(X);
}

Matrix<double> positive(Index rows, Index cols, std::uint64_t seed) {
  Random random(seed);
  return random_matrix<double>(rows, cols, random).cwiseAbs().array() + 0.1;
}

TEST(Tape, FunctionsOfOneNumber) {
  const Matrix<double> A = positive(3, 2, 1);
  const auto expect = [&](auto&& function, const Matrix<double>& expected) {
    const auto sum = [&](const auto& X) {
      TapeNumber total;
      for (Index i = 0; i < X.size(); ++i) total += function(X(i));
      return total;
    };
    EXPECT_LE(relative_error(derivative(A, sum), expected), tolerance::rounding<double>);
  };
  const auto a = A.array();
  using Number = TapeNumber;
  expect([](const Number& x) { return exp(x); }, a.exp());
  expect([](const Number& x) { return log(x); }, a.inverse());
  expect([](const Number& x) { return sqrt(x); }, 0.5 / a.sqrt());
  expect([](const Number& x) { return sin(x); }, a.cos());
  expect([](const Number& x) { return cos(x); }, -a.sin());
  expect([](const Number& x) { return tanh(x); }, a.cosh().square().inverse());
  expect([](const Number& x) { return 3 - x; }, Matrix<double>::Constant(3, 2, -1));
  expect([](const Number& x) { return -(x + x * x); }, -1 - 2 * a);
  expect([](const Number& x) { return x / (1 + x); }, (1 + a).square().inverse());
  expect([](const Number& x) { return x > 0.5 ? x * x : x; }, (a > 0.5).select(2 * a, 1));
  expect([](Number x) { return x *= x, x /= 2, x -= 7 * x, x; }, -6 * a);
}

TEST(Tape, MatrixCalculus) {
  const Matrix<double> A = positive(3, 4, 1), B = positive(4, 2, 2), C = positive(3, 2, 3);
  const Matrix<TapeNumber> b = B.cast<TapeNumber>(), c = C.cast<TapeNumber>();
  const auto expect = [&](auto&& function, const Matrix<double>& expected) {
    EXPECT_LE(relative_error(derivative(A, function), expected), tolerance::rounding<double>);
  };
  // <C, X B>: C B'        |X|: X / |X|        |X X'|^2 / 4: X X' X        mean X: 1/12
  expect([&](const auto& X) { return (X * b).cwiseProduct(c).sum(); }, C * B.transpose());
  expect([](const auto& X) { return X.norm(); }, A / A.norm());
  expect([](const auto& X) { return (X * X.transpose()).squaredNorm() / 4; },
         A * A.transpose() * A);
  expect([](const auto& X) { return X.mean(); }, Matrix<double>::Constant(3, 4, 1.0 / 12));
  // What the loss does not read, and a loss that is a constant.
  Matrix<double> unit = Matrix<double>::Zero(3, 4);
  unit(1, 2) = 1;
  expect([](const auto& X) { return X(1, 2); }, unit);
  expect([](const auto&) { return TapeNumber(2); }, Matrix<double>::Zero(3, 4));
}

TEST(Tape, OneAtATime) {
  TapeNumber x;
  {
    Tape tape;
    x = tape.variables(Vector<double>::Ones(1))[0];
    EXPECT_THROW(Tape(), std::invalid_argument);
  }
  EXPECT_THROW(x * x, std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
