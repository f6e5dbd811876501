// Activations written as their value alone equal those whose derivatives are written by hand; every
// function of a Jet equals differences.
#include "ttt/nn/own_activation.hpp"

#include <gtest/gtest.h>

#include "ttt/core/random.hpp"

namespace ttt::test {
namespace {

struct OwnTanh {
  static auto value(auto z) { return tanh(z); }
};
struct OwnSiLU {
  static auto value(auto z) { return z / (1 + exp(-z)); }
};
struct OwnGelu {
  static auto value(auto z) {
    return 0.5 * z * (1 + tanh(0.79788456080286535588 * z * (1 + 0.044715 * z * z)));
  }
};
struct OwnReLU {
  static auto value(auto z) { return z > 0 ? z : 0 * z; }
};

template <class A, class B>
void expect_equal() {
  Random random(1);
  Matrix<double> z(7, 5), a(7, 5), b(7, 5), a_2(7, 5), b_2(7, 5);
  random.fill_normal(z, 2.0);
  // Eigen's tanh of a matrix and std::tanh differ in some last bits, and 1 - tanh^2 cancels.
  const auto expect_close = [](const Matrix<double>& x, const Matrix<double>& y) {
    EXPECT_LE((x - y).cwiseAbs().maxCoeff(), 1e-13 * std::max(1.0, y.cwiseAbs().maxCoeff()));
  };
  A::template value<double>(z, a);
  B::template value<double>(z, b);
  expect_close(a, b);
  A::template derivative<double>(z, a);
  B::template derivative<double>(z, b);
  expect_close(a, b);
  A::template inner_gradient<double>(z, a, a_2);
  B::template inner_gradient<double>(z, b, b_2);
  expect_close(a, b);
  expect_close(a_2, b_2);
  A::template outer_gradients<double>(z, a, a_2);
  B::template outer_gradients<double>(z, b, b_2);
  expect_close(a, b);
  expect_close(a_2, b_2);
}

TEST(OwnActivationTest, EqualsTheActivationsWrittenByHand) {
  expect_equal<OwnActivation<OwnTanh>, Tanh>();
  expect_equal<OwnActivation<OwnSiLU>, SiLU>();
  expect_equal<OwnActivation<OwnGelu>, GeluTanh>();
  expect_equal<OwnActivation<OwnReLU>, ReLU>();
}

TEST(JetTest, EveryFunctionEqualsDifferences) {
  const auto check = [](const char* name, auto&& f) {
    for (const double z : {0.3, 0.7, 1.9}) {
      const double h = 1e-3;
      const auto at = [&](double x) { return f(Jet<double>(x)).v; };
      const double first =
          (8 * (at(z + h) - at(z - h)) - (at(z + 2 * h) - at(z - 2 * h))) / (12 * h);
      const double second =
          (16 * (at(z + h) + at(z - h)) - at(z + 2 * h) - at(z - 2 * h) - 30 * at(z)) /
          (12 * h * h);
      const Jet<double> jet = f(Jet<double>(z, 1, 0));
      EXPECT_NEAR(jet.d, first, 1e-9 * std::max(1.0, std::abs(first))) << name;
      EXPECT_NEAR(jet.dd, second, 1e-7 * std::max(1.0, std::abs(second))) << name;
    }
  };
  check("exp", [](auto z) { return exp(z); });
  check("log", [](auto z) { return log(z); });
  check("log1p", [](auto z) { return log1p(z); });
  check("sqrt", [](auto z) { return sqrt(z); });
  check("sin", [](auto z) { return sin(z); });
  check("cos", [](auto z) { return cos(z); });
  check("tanh", [](auto z) { return tanh(z); });
  check("atan", [](auto z) { return atan(z); });
  check("erf", [](auto z) { return erf(z); });
  check("abs", [](auto z) { return abs(z - 1) * z; });
  check("quotient", [](auto z) { return (z * z + 1) / (2 - sin(z)); });
}

}  // namespace
}  // namespace ttt::test
