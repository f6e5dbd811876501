// Against the published sequences of SplitMix64 and the moments of the distributions.
#include "ttt/core/random.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace ttt {
namespace {

/// Averages of n numbers are compared within five of their standard deviations: the seeds are
/// fixed, so a test that passes once passes always.
constexpr Index samples = 200'000;
double within(double standard_deviation) {
  return 5 * standard_deviation / std::sqrt(static_cast<double>(samples));
}

/// Seed 0 as in the tests of java.util.SplittableRandom's algorithm, seed 1234567 as in the
/// published output of Vigna's splitmix64.c.
TEST(RandomTest, FollowsThePublishedSequences) {
  Random zero(0), other(1234567);
  for (const std::uint64_t expected :
       {0xe220a8397b1dcdafULL, 0x6e789e6aa1b965f4ULL, 0x06c45d188009454fULL, 0xf88bb8a8724c81ecULL})
    EXPECT_EQ(zero.next(), expected);
  for (const std::uint64_t expected :
       {6457827717110365317ULL, 3203168211198807973ULL, 9817491932198370423ULL,
        4593380528125082431ULL, 16408922859458223821ULL})
    EXPECT_EQ(other.next(), expected);
}

TEST(RandomTest, UniformTakesTheUpper53Bits) {
  Random a(7), b(7);
  for (int i = 0; i < 1000; ++i) {
    const double u = a.uniform();
    EXPECT_EQ(u * 0x1p53, static_cast<double>(b.next() >> 11));
    EXPECT_GE(u, 0);
    EXPECT_LT(u, 1);
  }
  EXPECT_EQ(Random(0).uniform(), static_cast<double>(0xe220a8397b1dcdafULL >> 11) / 0x1p53);
}

TEST(RandomTest, UniformHasItsMoments) {
  Random random(1);
  double sum = 0, squares = 0, products = 0, last = random.uniform(-2, 4);
  for (Index i = 0; i < samples; ++i) {
    const double u = random.uniform(-2, 4);  // mean 1, variance 3, fourth moment 16.2
    sum += u;
    squares += (u - 1) * (u - 1);
    products += (u - 1) * (last - 1);
    last = u;
  }
  EXPECT_NEAR(sum / samples, 1, within(std::sqrt(3.0)));
  EXPECT_NEAR(squares / samples, 3, within(std::sqrt(16.2 - 9)));
  EXPECT_NEAR(products / samples, 0, within(3));
}

TEST(RandomTest, NormalHasItsMomentsAndTails) {
  Random random(2);
  double moments[5] = {}, products = 0, tail = 0, last = random.normal();
  for (Index i = 0; i < samples; ++i) {
    const double x = random.normal();
    for (int k = 1; k <= 4; ++k) moments[k] += std::pow(x, k) / samples;
    products += x * last / samples;
    tail += (std::abs(x) > 2 ? 1.0 : 0.0) / samples;
    last = x;
  }
  EXPECT_NEAR(moments[1], 0, within(1));
  EXPECT_NEAR(moments[2], 1, within(std::sqrt(2.0)));
  EXPECT_NEAR(moments[3], 0, within(std::sqrt(15.0)));
  EXPECT_NEAR(moments[4], 3, within(std::sqrt(96.0)));
  EXPECT_NEAR(products, 0, within(1));
  EXPECT_NEAR(tail, std::erfc(std::sqrt(2.0)), within(0.21));
}

TEST(RandomTest, BelowReachesEveryNumberEquallyOften) {
  Random random(3);
  std::vector<Index> counts(7);
  for (Index i = 0; i < samples; ++i) {
    const Index n = random.below(7);
    ASSERT_GE(n, 0);
    ASSERT_LT(n, 7);
    ++counts[static_cast<std::size_t>(n)];
  }
  for (const Index count : counts)
    EXPECT_NEAR(static_cast<double>(count) / samples, 1.0 / 7, within(std::sqrt(6.0) / 7));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0);
}

TEST(RandomTest, StateContinuesTheSequence) {
  Random random(4);
  for (int i = 0; i < 5; ++i) random.normal();
  Random resumed(random.state());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(resumed.normal(), random.normal());
  EXPECT_NE(Random(4).next(), Random(5).next());
}

TEST(RandomTest, FillsColumnByColumn) {
  Random filling(5), single(5);
  Matrix<double> normal(3, 4), uniform(2, 3);
  Vector<float> floats(6);
  filling.fill_normal(normal, 0.5);
  filling.fill_uniform(uniform, -1, 2);
  filling.fill_normal(floats, 2);
  for (Index i = 0; i < normal.size(); ++i) EXPECT_EQ(normal.data()[i], 0.5 * single.normal());
  for (Index i = 0; i < uniform.size(); ++i) EXPECT_EQ(uniform.data()[i], single.uniform(-1, 2));
  for (Index i = 0; i < floats.size(); ++i)
    EXPECT_EQ(floats[i], static_cast<float>(2 * single.normal()));
  EXPECT_EQ(filling.state(), single.state());
}

}  // namespace
}  // namespace ttt
