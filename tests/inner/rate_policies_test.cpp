#include "ttt/inner/rate_policies.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index f = 5, n = 9;

static_assert(RatePolicy<ConstantRate, float> && RatePolicy<ConstantRate, double>);
static_assert(RatePolicy<SigmoidRate, float> && RatePolicy<SigmoidRate, double>);
static_assert(RatePolicy<SoftplusRate, float> && RatePolicy<SoftplusRate, double>);
static_assert(RatePolicy<ProximalRate, float> && RatePolicy<ProximalRate, double>);
static_assert(!RatePolicy<SiLU, double>);

template <class Policy, class S>
Vector<S> rates(const Vector<S>& r, const Matrix<S>& K) {
  Vector<S> theta(r.size());
  Policy::template forward<S>(r, K, theta);
  return theta;
}

template <class Policy>
class RatePolicyTest : public ::testing::Test {};
using Policies = ::testing::Types<ConstantRate, SigmoidRate, SoftplusRate, ProximalRate>;
TYPED_TEST_SUITE(RatePolicyTest, Policies);

/// d_r is overwritten, dK added into.
TYPED_TEST(RatePolicyTest, BackwardEqualsDifferences) {
  Vector<double> r = 2 * random_vector<double>(n, 1);
  Matrix<double> K = random_matrix<double>(f, n, 2);
  const Vector<double> d_theta = random_vector<double>(n, 3);
  const Matrix<double> dK_before = random_matrix<double>(f, n, 4);
  const auto loss = [&] { return d_theta.dot(rates<TypeParam>(r, K)); };
  Vector<double> d_r = random_vector<double>(n, 5);
  Matrix<double> dK = dK_before;
  TypeParam::template backward<double>(r, K, rates<TypeParam>(r, K), d_theta, d_r, dK);
  EXPECT_TRUE(check_gradient(r, d_r, loss));
  EXPECT_TRUE(check_gradient(K, Matrix<double>(dK - dK_before), loss));
  EXPECT_EQ(d_r.isZero(0), !TypeParam::reads_input);
  EXPECT_EQ(dK == dK_before, !TypeParam::reads_keys);
}

TYPED_TEST(RatePolicyTest, FloatAgreesWithDouble) {
  const Vector<float> r = 2 * random_vector<float>(n, 1);
  const Matrix<float> K = random_matrix<float>(f, n, 2);
  EXPECT_LE(
      relative_error(rates<TypeParam>(r, K), rates<TypeParam>(Vector<double>(r.cast<double>()),
                                                              Matrix<double>(K.cast<double>()))),
      tolerance::float_against_double);
}

TEST(RatePoliciesTest, EqualTheirFormulas) {
  const Vector<double> r = 3 * random_vector<double>(n, 1);
  const Matrix<double> K = random_matrix<double>(f, n, 2);
  for (Index t = 0; t < n; ++t) {
    const double sigma = 1 / (1 + std::exp(-r[t])), k_k = K.col(t).squaredNorm();
    EXPECT_EQ(rates<ConstantRate>(r, K)[t], 1);
    EXPECT_NEAR(rates<SigmoidRate>(r, K)[t], sigma, 1e-15);
    EXPECT_NEAR(rates<SoftplusRate>(r, K)[t], std::log(1 + std::exp(r[t])), 1e-14);
    EXPECT_NEAR(rates<ProximalRate>(r, K)[t], sigma / (1 + sigma * k_k), 1e-15);
  }
}

TEST(RatePoliciesTest, WhatIsNotReadMayBeEmpty) {
  const Vector<double> no_r;
  const Matrix<double> no_K;
  Matrix<double> no_dK;
  Vector<double> theta(n), no_d_r, d_r(n);
  ConstantRate::forward<double>(no_r, no_K, theta);
  EXPECT_EQ(theta, Vector<double>::Ones(n));
  ConstantRate::backward<double>(no_r, no_K, theta, theta, no_d_r, no_dK);
  SigmoidRate::forward<double>(theta, no_K, d_r);
  SigmoidRate::backward<double>(theta, no_K, theta, theta, d_r, no_dK);
}

TEST(RatePoliciesTest, SoftplusNeitherOverflowsNorVanishes) {
  const Vector<float> r{{-80.f, -20.f, 0.f, 20.f, 1000.f}}, ones = Vector<float>::Ones(5);
  const Vector<float> theta = rates<SoftplusRate>(r, Matrix<float>());
  const Vector<float> expected{{std::exp(-80.f), std::exp(-20.f), std::log(2.f), 20.f, 1000.f}};
  for (Index t = 0; t < 5; ++t) EXPECT_NEAR(theta[t] / expected[t], 1, 1e-6) << r[t];
  Vector<float> d_r(5);
  Matrix<float> no_dK;
  SoftplusRate::backward<float>(r, no_dK, theta, ones, d_r, no_dK);
  EXPECT_TRUE(d_r.allFinite());
  EXPECT_EQ(d_r[4], 1);
}

/// The minimum over W' of |W' - W|^2 + beta |W' k - v|^2 has no gradient:
/// (W' - W) + beta (W' k - v) k' = 0.
TEST(RatePoliciesTest, AStepAtTheProximalRateIsTheProximalStep) {
  const Vector<double> r = random_vector<double>(n, 1);
  const Matrix<double> K = 3 * random_matrix<double>(f, n, 2), W = random_matrix<double>(f, f, 3);
  const Vector<double> v = random_vector<double>(f, 4), theta = rates<ProximalRate>(r, K);
  for (Index t = 0; t < n; ++t) {
    const Vector<double> k = K.col(t);
    const Matrix<double> step = -theta[t] * (W * k - v) * k.transpose();
    const double beta = 1 / (1 + std::exp(-r[t]));
    const Matrix<double> slope = beta * ((W + step) * k - v) * k.transpose();
    EXPECT_LE(relative_error(step, Matrix<double>(-slope)), 1e-12) << "token " << t;
  }
}

}  // namespace
}  // namespace ttt::test
