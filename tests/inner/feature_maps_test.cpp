#include "ttt/inner/feature_maps.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index f = 7;

static_assert(FeatureMap<NoFeatureMap, float> && FeatureMap<NoFeatureMap, double>);
static_assert(FeatureMap<L2Normalized, float> && FeatureMap<L2Normalized, double>);
static_assert(FeatureMap<EluPlusOne, float> && FeatureMap<EluPlusOne, double>);
static_assert(FeatureMap<SiLUNormalized, float> && FeatureMap<SiLUNormalized, double>);
static_assert(FeatureMap<ReLUFeatures, float> && FeatureMap<ReLUFeatures, double>);
static_assert(!FeatureMap<ReLU, double>);

template <class Map, class S>
Matrix<S> features(const Matrix<S>& x) {
  Matrix<S> y(x.rows(), x.cols());
  Map::template forward<S>(x, y);
  return y;
}

template <class Map, class S>
Matrix<S> gradient(const Matrix<S>& x, const Matrix<S>& dy) {
  Matrix<S> dx = Matrix<S>::Constant(x.rows(), x.cols(), S(7));  // to be overwritten
  Map::template backward<S>(x, dy, dx);
  return dx;
}

template <class Map>
class FeatureMapTest : public ::testing::Test {};
using Maps = ::testing::Types<NoFeatureMap, L2Normalized, EluPlusOne, SiLUNormalized, ReLUFeatures>;
TYPED_TEST_SUITE(FeatureMapTest, Maps);

TYPED_TEST(FeatureMapTest, BackwardEqualsDifferences) {
  for (const Index n : {0, 1, 6}) {
    auto x = random_matrix<double>(f, n, 1);
    const auto dy = random_matrix<double>(f, n, 2);
    const auto dx = gradient<TypeParam>(x, dy);
    if (n == 0) continue;
    EXPECT_TRUE(
        check_gradient(x, dx, [&] { return dy.cwiseProduct(features<TypeParam>(x)).sum(); }));
  }
}

TYPED_TEST(FeatureMapTest, FloatAgreesWithDouble) {
  const auto x = random_matrix<float>(f, 6, 1), dy = random_matrix<float>(f, 6, 2);
  const Matrix<double> x_double = x.template cast<double>(), dy_double = dy.template cast<double>();
  EXPECT_LE(relative_error(features<TypeParam>(x), features<TypeParam>(x_double)),
            tolerance::float_against_double);
  EXPECT_LE(relative_error(gradient<TypeParam>(x, dy), gradient<TypeParam>(x_double, dy_double)),
            tolerance::float_against_double);
}

TEST(FeatureMapsTest, EqualTheirFormulas) {
  const auto x = random_matrix<double>(f, 6, 1);
  EXPECT_EQ(features<NoFeatureMap>(x), x);
  for (Index t = 0; t < x.cols(); ++t) {
    double squares = 0, silu_squares = 0;
    const auto silu = [&](Index i) { return x(i, t) / (1 + std::exp(-x(i, t))); };
    for (Index i = 0; i < f; ++i) {
      squares += x(i, t) * x(i, t);
      silu_squares += silu(i) * silu(i);
    }
    for (Index i = 0; i < f; ++i) {
      EXPECT_NEAR(features<L2Normalized>(x)(i, t), x(i, t) / std::sqrt(squares + 1e-6), 1e-14);
      EXPECT_NEAR(features<SiLUNormalized>(x)(i, t), silu(i) / std::sqrt(silu_squares + 1e-6),
                  1e-14);
      EXPECT_NEAR(features<EluPlusOne>(x)(i, t), x(i, t) > 0 ? x(i, t) + 1 : std::exp(x(i, t)),
                  1e-14);
      EXPECT_EQ(features<ReLUFeatures>(x)(i, t), std::max(0.0, x(i, t)));
    }
  }
}

/// A zero token has no direction, a large one no exponential; neither may spoil the sums.
TYPED_TEST(FeatureMapTest, StaysFinite) {
  Matrix<float> x = Matrix<float>::Zero(f, 3);
  x.col(1).setConstant(1e4f);
  x.col(2).setConstant(-1e4f);
  const Matrix<float> dy = Matrix<float>::Ones(f, 3);
  EXPECT_TRUE(features<TypeParam>(x).allFinite());
  EXPECT_TRUE(gradient<TypeParam>(x, dy).allFinite());
}

TEST(FeatureMapsTest, ANormalizedTokenHasLengthOne) {
  const Matrix<double> x = 100 * random_matrix<double>(f, 6, 3);
  EXPECT_LE((features<L2Normalized>(x).colwise().norm().array() - 1).abs().maxCoeff(), 1e-9);
  EXPECT_LE((features<SiLUNormalized>(x).colwise().norm().array() - 1).abs().maxCoeff(), 1e-9);
}

}  // namespace
}  // namespace ttt::test
