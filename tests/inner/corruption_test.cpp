#include "ttt/inner/corruption.hpp"

#include "nn/operation_test.hpp"
#include "ttt/inner/directions.hpp"

namespace ttt::test {
namespace {

constexpr Index f = 10, n = 12;

static_assert(Corruption<NoCorruption, float> && Corruption<NoCorruption, double>);
static_assert(Corruption<MaskedInput, float> && Corruption<MaskedInput, double>);
static_assert(Corruption<NoisyInput, float> && Corruption<NoisyInput, double>);
static_assert(Corruption<LowRankInput, float> && Corruption<LowRankInput, double>);
static_assert(!Corruption<GradientDescent, double>);

template <class C, class S>
Matrix<S> corrupt(const C& corruption, const Matrix<S>& x, Index first_token = 0) {
  typename C::template Scratch<S> scratch;
  Matrix<S> corrupted = Matrix<S>::Constant(x.rows(), x.cols(), S(7));  // to be overwritten
  corruption.template apply<S>(x, first_token, corrupted, scratch);
  return corrupted;
}

template <class C>
C example(std::uint64_t seed);
template <>
NoCorruption example(std::uint64_t) {
  return {};
}
template <>
MaskedInput example(std::uint64_t seed) {
  return {0.3, seed};
}
template <>
NoisyInput example(std::uint64_t seed) {
  return {0.5, seed};
}
template <>
LowRankInput example(std::uint64_t seed) {
  return {4, seed};
}

template <class C>
class CorruptionTest : public ::testing::Test {};
using Corruptions = ::testing::Types<NoCorruption, MaskedInput, NoisyInput, LowRankInput>;
TYPED_TEST_SUITE(CorruptionTest, Corruptions);

TYPED_TEST(CorruptionTest, APieceSeesTheSameCorruption) {
  const auto corruption = example<TypeParam>(3);
  const auto x = random_matrix<double>(f, n, 1);
  const auto whole = corrupt(corruption, x, 1000);
  for (Index cut = 0; cut <= n; ++cut) {
    const Matrix<double> first = x.leftCols(cut), rest = x.rightCols(n - cut);
    EXPECT_EQ(corrupt(corruption, first, 1000), whole.leftCols(cut));
    EXPECT_EQ(corrupt(corruption, rest, 1000 + cut), whole.rightCols(n - cut));
  }
}

TYPED_TEST(CorruptionTest, SeedAndPlaceDecide) {
  if (std::is_same_v<TypeParam, NoCorruption>) return;
  const auto x = random_matrix<double>(f, n, 1);
  const auto corrupted = corrupt(example<TypeParam>(3), x);
  EXPECT_NE(corrupted, x);
  EXPECT_EQ(corrupted, corrupt(example<TypeParam>(3), x));
  EXPECT_NE(corrupted, corrupt(example<TypeParam>(4), x));
  if (!std::is_same_v<TypeParam, LowRankInput>) {
    EXPECT_NE(corrupted, corrupt(example<TypeParam>(3), x, 1));
  }
}

TYPED_TEST(CorruptionTest, BackwardEqualsDifferencesAndAdds) {
  const auto corruption = example<TypeParam>(3);
  auto x = random_matrix<double>(f, n, 1);
  const auto d_corrupted = random_matrix<double>(f, n, 2),
             dx_before = random_matrix<double>(f, n, 3);
  Matrix<double> dx = dx_before;
  typename TypeParam::template Scratch<double> scratch;
  corruption.template backward<double>(d_corrupted, 5, dx, scratch);
  EXPECT_TRUE(check_gradient(x, Matrix<double>(dx - dx_before), [&] {
    return d_corrupted.cwiseProduct(corrupt(corruption, x, 5)).sum();
  }));
}

TYPED_TEST(CorruptionTest, FloatSeesTheSameCorruption) {
  const auto x = random_matrix<float>(f, n, 1);
  const Matrix<double> x_double = x.template cast<double>();
  EXPECT_LE(
      relative_error(corrupt(example<TypeParam>(3), x), corrupt(example<TypeParam>(3), x_double)),
      tolerance::float_against_double);
}

TEST(MaskedInputTest, MasksTheFractionOfEveryToken) {
  const Matrix<double> ones = Matrix<double>::Ones(f, 4000);
  for (const Index masked : {0, 1, 3, 10}) {
    const auto y = corrupt(MaskedInput{double(masked) / f, 1}, ones);
    EXPECT_TRUE(((y.array() == 0) || (y.array() == 1)).all());
    EXPECT_TRUE((y.colwise().sum().array() == double(f - masked)).all());
    // Every channel equally often: five deviations of the mean of 4000 draws.
    const double kept = 1 - double(masked) / f, within = 5 * std::sqrt(kept * (1 - kept) / 4000);
    EXPECT_LE((y.rowwise().mean().array() - kept).abs().maxCoeff(), within + 1e-12);
  }
}

/// A mask selects: what is masked may be anything.
TEST(MaskedInputTest, HidesWhatIsNotFinite) {
  const Matrix<double> x = Matrix<double>::Constant(f, n, std::nan(""));
  EXPECT_TRUE(corrupt(MaskedInput{1, 2}, x).isZero(0));
  Matrix<double> dx = Matrix<double>::Zero(f, n);
  MaskedInput::Scratch<double> scratch;
  MaskedInput{1, 2}.backward<double>(x, 0, dx, scratch);
  EXPECT_TRUE(dx.isZero(0));
}

TEST(NoisyInputTest, AddsIndependentNoiseOfItsDeviation) {
  constexpr Index T = 20000;
  const auto noise = corrupt(NoisyInput{2, 1}, Matrix<double>(Matrix<double>::Zero(f, T)));
  const double count = double(f * T);
  // Five deviations of the averages of normal numbers, of their squares and products.
  EXPECT_NEAR(noise.mean(), 0, 5 * 2 / std::sqrt(count));
  EXPECT_NEAR(noise.squaredNorm() / count, 4, 5 * 4 * std::sqrt(2 / count));
  const auto neighbours = noise.leftCols(T - 1).cwiseProduct(noise.rightCols(T - 1));
  EXPECT_NEAR(neighbours.mean(), 0, 5 * 4 / std::sqrt(count));
  const auto channels = noise.topRows(f - 1).cwiseProduct(noise.bottomRows(f - 1));
  EXPECT_NEAR(channels.mean(), 0, 5 * 4 / std::sqrt(count * (f - 1) / f));
}

TEST(LowRankInputTest, IsAnOrthogonalProjectionOfItsRank) {
  const Matrix<double> identity = Matrix<double>::Identity(f, f);
  for (const Index rank : {1, 4, 10}) {
    const LowRankInput corruption{rank, 1};
    const auto P = corrupt(corruption, identity);
    EXPECT_LE(relative_error(corrupt(corruption, P), P), 1e-13);
    EXPECT_LE(relative_error(P.transpose(), P), 1e-13);
    EXPECT_NEAR(P.trace(), double(rank), 1e-13);
  }
}

TEST(LowRankInputTest, ScratchMayServeOthers) {
  LowRankInput::Scratch<double> scratch;
  for (const Index width : {f, f - 3}) {
    for (const LowRankInput corruption : {LowRankInput{2, 0}, {2, 1}, {3, 1}, {2, 0}}) {
      const auto x = random_matrix<double>(width, n, 1);
      Matrix<double> corrupted(width, n);
      corruption.apply<double>(x, 0, corrupted, scratch);
      EXPECT_EQ(corrupted, corrupt(corruption, x));
    }
  }
}

TEST(CorruptionsTest, RefuseWrongNumbers) {
  for (const double fraction : {-0.1, 1.1, std::nan("")})
    EXPECT_THROW(MaskedInput{fraction}.validate(4), std::invalid_argument);
  for (const double deviation : {-1.0, std::nan(""), HUGE_VAL})
    EXPECT_THROW(NoisyInput{deviation}.validate(4), std::invalid_argument);
  for (const Index rank : {0, 5})
    EXPECT_THROW(LowRankInput{rank}.validate(4), std::invalid_argument);
  EXPECT_THROW(corrupt(LowRankInput{f + 1}, Matrix<double>(Matrix<double>::Ones(f, 1))),
               std::invalid_argument);
  MaskedInput().validate(4);
  NoisyInput().validate(4);
  LowRankInput().validate(4);
}

}  // namespace
}  // namespace ttt::test
