#include "perplexity/study.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ttt::examples {
namespace {

constexpr double diverged = std::numeric_limits<double>::infinity();

TEST(StudyTest, GoesOnBeyondTheEdgeWhereTheBestRateIs) {
  EXPECT_FALSE(best_is_inside({{2e-3, 1.0}, {4e-3, 0.9}, {8e-3, 0.8}}));
  EXPECT_DOUBLE_EQ(next_rate({{2e-3, 1.0}, {4e-3, 0.9}, {8e-3, 0.8}}), 16e-3);
  EXPECT_FALSE(best_is_inside({{8e-3, diverged}, {4e-3, 0.9}, {2e-3, 0.8}}));
  EXPECT_DOUBLE_EQ(next_rate({{8e-3, diverged}, {4e-3, 0.9}, {2e-3, 0.8}}), 1e-3);
}

TEST(StudyTest, LooksCloserWhereTheBestRateIsInside) {
  EXPECT_TRUE(best_is_inside({{2e-3, 1.0}, {4e-3, 0.8}, {8e-3, 0.9}}));
  EXPECT_DOUBLE_EQ(next_rate({{2e-3, 1.0}, {4e-3, 0.8}, {8e-3, 0.9}}), std::sqrt(32e-6));
  EXPECT_DOUBLE_EQ(next_rate({{2e-3, 0.85}, {4e-3, 0.8}, {8e-3, 0.9}}), std::sqrt(8e-6));
}

}  // namespace
}  // namespace ttt::examples
