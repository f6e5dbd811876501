// Against values made in float64 (golden/make_ttt_golden.py), and the roles of an activation
// against each other.
#include "ttt/nn/activation.hpp"

#include "nn/operation_test.hpp"
#include "ttt/io/safetensors.hpp"

namespace ttt::test {
namespace {

template <class S>
struct Roles {
  Matrix<S> value, inner_value, inner_gradient, derivative, outer_derivative, outer_second;

  static auto fields(auto& self) {
    return std::tuple(
        field("value", self.value), field("inner_value", self.inner_value),
        field("inner_gradient", self.inner_gradient), field("derivative", self.derivative),
        field("outer_derivative", self.outer_derivative), field("outer_second", self.outer_second));
  }
};

/// What all four functions of A make of z. Outputs begin as NaN: none may be read.
template <class A, class S>
Roles<S> run(const Matrix<S>& z) {
  const Matrix<S> empty = Matrix<S>::Constant(z.rows(), z.cols(), std::nan(""));
  Roles<S> r{empty, empty, empty, empty, empty, empty};
  A::template value<S>(z, r.value);
  A::template inner_gradient<S>(z, r.inner_value, r.inner_gradient);
  A::template derivative<S>(z, r.derivative);
  A::template outer_gradients<S>(z, r.outer_derivative, r.outer_second);
  return r;
}

/// s, s', g and dg/dz.
struct Expected {
  Matrix<double> value, derivative, inner_gradient, second;
};

const SafetensorsFile& golden() {
  static const SafetensorsFile file(TTT_GOLDEN_DIR "/nn/activations.safetensors");
  return file;
}

Matrix<double> golden_x() { return golden().matrix<double>("x"); }

Expected golden_values(const std::string& name, const std::string& inner) {
  return {golden().matrix<double>(name + ".value"),
          golden().matrix<double>(name + ".first_derivative"),
          golden().matrix<double>(inner + ".first_derivative"),
          golden().matrix<double>(inner + ".second_derivative")};
}

template <class A>
Expected golden_values() {
  if constexpr (std::same_as<A, Identity>) {
    const Matrix<double> one = Matrix<double>::Ones(golden_x().rows(), 1);
    return {golden_x(), one, one, 0 * one};
  }
  if constexpr (std::same_as<A, ReLU>) return golden_values("relu", "relu");
  if constexpr (std::same_as<A, Tanh>) return golden_values("tanh", "tanh");
  if constexpr (std::same_as<A, SiLU>) return golden_values("silu", "silu");
  if constexpr (std::same_as<A, GeluTanh>) return golden_values("gelu", "gelu");
  if constexpr (std::same_as<A, GeluTanhRounded>)
    return golden_values("gelu", "gelu_rounded_constants");
}

/// In float the factor 1 - tanh^2 of the second derivative of GELU carries an error of 1.2e-7 where
/// it vanishes, and z u' p, which multiplies it, is 350 at the ends of the grid.
template <class A>
double float_tolerance(const std::string& role) {
  const bool gelu = std::same_as<A, GeluTanh> || std::same_as<A, GeluTanhRounded>;
  return gelu && role == "outer_second" ? 1e-4 : tolerance::float_against_double;
}

/// Points of a fine grid, among them 0.
template <class S>
Matrix<S> grid() {
  return Vector<float>::LinSpaced(961, -7.5F, 7.5F).template cast<S>().reshaped(31, 31);
}

template <class A>
class ActivationTest : public ::testing::Test {};
using Activations = ::testing::Types<Identity, ReLU, Tanh, SiLU, GeluTanh, GeluTanhRounded>;
TYPED_TEST_SUITE(ActivationTest, Activations);

TYPED_TEST(ActivationTest, EqualsGoldenValues) {
  static_assert(Activation<TypeParam, float> && Activation<TypeParam, double>);
  const Expected e = golden_values<TypeParam>();
  const Roles<double> expected_roles{e.value,      e.value,      e.inner_gradient,
                                     e.derivative, e.derivative, e.second};
  const auto in_double = run<TypeParam, double>(golden_x());
  const auto in_float = run<TypeParam, float>(golden_x().cast<float>());
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b, const auto& reference) {
        EXPECT_LE(relative_error(a, reference), tolerance::rounding<double>) << info.name;
        EXPECT_LE(relative_error(b, reference), float_tolerance<TypeParam>(info.name)) << info.name;
      },
      in_double, in_float, expected_roles);
}

TYPED_TEST(ActivationTest, RolesAgreeWithEachOther) {
  const Roles<double> r = run<TypeParam, double>(grid<double>());
  EXPECT_LE(relative_error(r.inner_value, r.value), tolerance::rounding<double>);
  EXPECT_LE(relative_error(r.outer_derivative, r.derivative), tolerance::rounding<double>);
  const double difference = relative_error(r.inner_gradient, r.derivative);
  if constexpr (std::same_as<TypeParam, GeluTanhRounded>) {
    EXPECT_GT(difference, 1e-11);
    EXPECT_LT(difference, 1e-9);
  } else {
    EXPECT_LE(difference, tolerance::rounding<double>);
  }
}

/// Fourth-order differences of the value and of the inner gradient, away from the kink of ReLU.
TYPED_TEST(ActivationTest, DerivativesEqualDifferences) {
  const double h = 1e-3;
  const Matrix<double> z = grid<double>().array() + 0.003;
  const auto at = [&](double shift) { return run<TypeParam, double>(z.array() + shift * h); };
  const Roles<double> a = at(-2), b = at(-1), c = at(1), d = at(2), r = at(0);
  const auto slope = [&](auto member) -> Matrix<double> {
    return (a.*member - 8 * b.*member + 8 * c.*member - d.*member) / (12 * h);
  };
  EXPECT_LE((slope(&Roles<double>::value) - r.derivative).cwiseAbs().maxCoeff(), 1e-10);
  EXPECT_LE((slope(&Roles<double>::inner_gradient) - r.outer_second).cwiseAbs().maxCoeff(), 1e-10);
}

TYPED_TEST(ActivationTest, FloatAgreesWithDouble) {
  const auto single = run<TypeParam, float>(grid<float>());
  const auto reference = run<TypeParam, double>(grid<double>());
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b) {
        EXPECT_LE(relative_error(a, b), float_tolerance<TypeParam>(info.name)) << info.name;
      },
      single, reference);
}

TYPED_TEST(ActivationTest, StaysFiniteFarOut) {
  Matrix<float> z(1, 6);
  z << -1e6F, -1e4F, -100, 100, 1e4F, 1e6F;
  const Roles<float> r = run<TypeParam, float>(z);
  EXPECT_EQ(first_non_finite(r), std::nullopt);
  const bool flat = std::same_as<TypeParam, Tanh>;
  for (const Index i : {3, 4, 5}) {
    EXPECT_FLOAT_EQ(r.value(i), flat ? 1 : z(i));
    EXPECT_FLOAT_EQ(r.derivative(i), flat ? 0 : 1);
  }
}

TYPED_TEST(ActivationTest, WritesIntoBlocksOfLargerMatrices) {
  const Matrix<double> z = grid<double>();
  const Matrix<double> part = z.block(3, 2, 5, 4);
  const Roles<double> r = run<TypeParam, double>(part);
  Matrix<double> a = Matrix<double>::Constant(9, 6, 7), g = a;
  TypeParam::template inner_gradient<double>(z.block(3, 2, 5, 4), a.block(1, 1, 5, 4),
                                             g.block(2, 2, 5, 4));
  EXPECT_EQ(a.block(1, 1, 5, 4), r.inner_value);
  EXPECT_EQ(g.block(2, 2, 5, 4), r.inner_gradient);
  EXPECT_TRUE((a.row(0).array() == 7).all() && (a.col(5).array() == 7).all());
}

}  // namespace
}  // namespace ttt::test
