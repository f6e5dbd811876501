#include "ttt/nn/cross_entropy.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index V = 11;

template <class S>
class CrossEntropyTest : public ::testing::Test {};
TYPED_TEST_SUITE(CrossEntropyTest, Scalars);

TYPED_TEST(CrossEntropyTest, ForwardAndBackwardEqualLoops) {
  using S = TypeParam;
  const double scale = 0.3;
  for (const Index n : lengths) {
    Matrix<S> logits = random_matrix<S>(V, n, 1) * S(3);
    const auto targets = random_ids(n, V, 2);
    Vector<double> expected(n);
    Matrix<double> expected_d(V, n);
    for (Index t = 0; t < n; ++t) {
      const Index target = targets[static_cast<std::size_t>(t)];
      double sum = 0;
      for (Index v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits(v, t)));
      expected(t) = std::log(sum) - static_cast<double>(logits(target, t));
      for (Index v = 0; v < V; ++v)
        expected_d(v, t) =
            scale * (std::exp(static_cast<double>(logits(v, t))) / sum - (v == target ? 1 : 0));
    }
    Vector<S> nats(n);
    CrossEntropy<S>::forward(logits, targets, nats);
    EXPECT_LE(relative_error(nats, expected), tolerance::rounding<S>);
    CrossEntropy<S>::backward_in_place(logits, targets, scale);
    EXPECT_LE(relative_error(logits, expected_d), tolerance::rounding<S>);
  }
}

TYPED_TEST(CrossEntropyTest, LargeLogitsDoNotOverflow) {
  using S = TypeParam;
  Matrix<S> logits(3, 2);
  logits << S(1e4), S(-1e4), S(0), S(-1e4), S(-1e4), S(-2e4);
  const std::vector<std::int32_t> targets = {2, 1};
  Vector<S> nats(2);
  CrossEntropy<S>::forward(logits, targets, nats);
  EXPECT_NEAR(static_cast<double>(nats(0)), 2e4, 1e-2);
  EXPECT_NEAR(static_cast<double>(nats(1)), std::log(2), 1e-2);
  CrossEntropy<S>::backward_in_place(logits, targets, 1);
  Matrix<S> expected(3, 2);
  expected << S(1), S(0.5), S(0), S(-0.5), S(-1), S(0);
  EXPECT_LE(relative_error(logits, expected), tolerance::rounding<S>);
}

TYPED_TEST(CrossEntropyTest, NotANumberIsNotHidden) {
  using S = TypeParam;
  for (Index v = 0; v < V; ++v) {
    Matrix<S> logits = random_matrix<S>(V, 2, 1);
    logits(v, 1) = std::numeric_limits<S>::quiet_NaN();
    const std::vector<std::int32_t> targets = {0, static_cast<std::int32_t>((v + 1) % V)};
    Vector<S> nats(2);
    CrossEntropy<S>::forward(logits, targets, nats);
    EXPECT_TRUE(std::isfinite(nats(0)));
    EXPECT_TRUE(std::isnan(nats(1))) << "logit " << v;
  }
}

TEST(CrossEntropyDoubleTest, BackwardEqualsDifferences) {
  constexpr Index n = 7;
  auto logits = random_matrix<double>(V, n, 1);
  const auto targets = random_ids(n, V, 2);
  Matrix<double> d_logits = logits;
  CrossEntropy<double>::backward_in_place(d_logits, targets, 1.0 / n);
  Vector<double> nats(n);
  EXPECT_TRUE(check_gradient(logits, d_logits, [&] {
    CrossEntropy<double>::forward(logits, targets, nats);
    return nats.mean();
  }));
}

/// {nats, d_logits} of fixed float logits, computed in S.
template <class S>
Results<S> run(Index n) {
  Matrix<S> logits = random_matrix<float>(257, n, 1).template cast<S>();
  const auto targets = random_ids(n, 257, 2);
  Vector<S> nats(n);
  CrossEntropy<S>::forward(logits, targets, nats);
  CrossEntropy<S>::backward_in_place(logits, targets, 1.0 / 64);
  return {{nats, logits}};
}

TEST(CrossEntropyFloatTest, AgreesWithDouble) {
  expect_close(run<float>(90), run<double>(90), tolerance::float_against_double);
}

TEST(CrossEntropyFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  expect_same_bits_for_any_threads([] { return run<float>(CrossEntropy<float>::tile_tokens); });
}

TEST(CrossEntropyDoubleTest, LogSumExpOfOneLogitIsTheLogit) {
  EXPECT_EQ(CrossEntropy<double>::log_sum_exp(Vector<double>::Constant(1, 2.5)), 2.5);
  EXPECT_NEAR(CrossEntropy<double>::log_sum_exp(Vector<double>::Constant(8, -3)), std::log(8) - 3,
              1e-15);
}

TEST(CrossEntropyDoubleTest, NamesTheTargetThatIsOutOfRange) {
  Matrix<double> logits = Matrix<double>::Zero(V, 2);
  Vector<double> nats(2), longer(3);
  for (const std::int32_t wrong : {-1, 11}) {
    const std::vector<std::int32_t> targets = {10, wrong};
    try {
      CrossEntropy<double>::forward(logits, targets, nats);
      FAIL() << "accepted the target " << wrong;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(error.what(), concat("CrossEntropy.forward: the target at position 1 is ", wrong,
                                     ", expected 0 to V - 1 with V = 11"));
    }
    EXPECT_THROW(CrossEntropy<double>::backward_in_place(logits, targets, 1),
                 std::invalid_argument);
  }
  const std::vector<std::int32_t> one = {0}, two = {0, 1};
  EXPECT_THROW(CrossEntropy<double>::forward(logits, one, nats), std::invalid_argument);
  EXPECT_THROW(CrossEntropy<double>::forward(logits, two, longer), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
