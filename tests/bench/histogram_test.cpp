#include "../bench/support/histogram.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace ttt::bench {
namespace {

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  EXPECT_EQ(histogram.median(), 0);
  for (std::uint64_t value = 0; value < 100; ++value) histogram.add(value);
  EXPECT_EQ(histogram.total(), 100u);
  EXPECT_EQ(histogram.quantile(0), 0);
  EXPECT_EQ(histogram.median(), 50);
  EXPECT_EQ(histogram.quantile(0.99), 99);
  EXPECT_EQ(histogram.quantile(1), 99);
  EXPECT_EQ(histogram.maximum(), 99u);
}

/// A single value of any size is found again, to within 1 %.
TEST(HistogramTest, LargeValuesAreRightToOnePercent) {
  for (std::uint64_t value = 100; value < (std::uint64_t{1} << 62); value += value / 7) {
    Histogram histogram;
    histogram.add(value);
    EXPECT_NEAR(histogram.median() / static_cast<double>(value), 1, 0.01) << value;
    EXPECT_EQ(histogram.maximum(), value);
  }
  Histogram histogram;
  histogram.add(~std::uint64_t{0});
  EXPECT_NEAR(histogram.median(), std::exp2(64), std::exp2(64) * 0.01);
}

TEST(HistogramTest, OneInThousandIsAboveThe999thQuantile) {
  Histogram histogram;
  for (int i = 0; i < 99'900; ++i) histogram.add(300);
  for (int i = 0; i < 100; ++i) histogram.add(5'000);
  EXPECT_NEAR(histogram.quantile(0.998), 300, 3);
  EXPECT_NEAR(histogram.quantile(0.9995), 5'000, 50);
  histogram.clear();
  EXPECT_EQ(histogram.total(), 0u);
  EXPECT_EQ(histogram.maximum(), 0u);
}

}  // namespace
}  // namespace ttt::bench
