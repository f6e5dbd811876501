#include "ttt/train/schedule.hpp"

#include <gtest/gtest.h>

namespace ttt {
namespace {

TEST(LearningRateTest, RisesLinearlyAndFallsAlongHalfACosine) {
  const ScheduleConfig config{.peak = 8, .final_rate = 2, .warmup_steps = 4, .total_steps = 16};
  EXPECT_EQ(learning_rate(0, config), 0);
  EXPECT_EQ(learning_rate(1, config), 2);
  EXPECT_EQ(learning_rate(3, config), 6);
  EXPECT_EQ(learning_rate(4, config), 8);
  EXPECT_NEAR(learning_rate(7, config), 5 + 3 * std::sqrt(0.5), 1e-14);  // a quarter of the way
  EXPECT_NEAR(learning_rate(8, config), 6.5, 1e-14);                     // a third: cos = 1/2
  EXPECT_NEAR(learning_rate(10, config), 5, 1e-14);                      // half
  EXPECT_EQ(learning_rate(16, config), 2);
  EXPECT_EQ(learning_rate(1000, config), 2);
}

TEST(LearningRateTest, WorksWithoutWarmUpAndWithoutDecay) {
  EXPECT_EQ(learning_rate(0, {.peak = 3, .final_rate = 1, .warmup_steps = 0, .total_steps = 2}), 3);
  EXPECT_EQ(learning_rate(1, {.peak = 3, .final_rate = 1, .warmup_steps = 0, .total_steps = 2}), 2);
  const ScheduleConfig only_warmup{.peak = 3, .final_rate = 1, .warmup_steps = 2, .total_steps = 2};
  EXPECT_EQ(learning_rate(1, only_warmup), 1.5);
  EXPECT_EQ(learning_rate(2, only_warmup), 3);
  EXPECT_EQ(learning_rate(3, only_warmup), 1);
}

TEST(LearningRateTest, RefusesNumbersOutOfRange) {
  EXPECT_THROW(learning_rate(-1, {}), std::invalid_argument);
  EXPECT_THROW(learning_rate(1, {.warmup_steps = 3, .total_steps = 2}), std::invalid_argument);
  EXPECT_THROW(learning_rate(1, {.warmup_steps = -1}), std::invalid_argument);
  EXPECT_THROW(learning_rate(1, {.peak = -1}), std::invalid_argument);
  EXPECT_THROW(learning_rate(1, {.final_rate = std::nan("")}), std::invalid_argument);
}

TEST(InnerRateScaleTest, RisesFromTheInitialRateToOne) {
  const InnerRateWarmup config{.initial = 0.01, .peak = 0.1, .warmup_steps = 480};
  EXPECT_DOUBLE_EQ(inner_rate_scale(1, config), 0.1);
  EXPECT_DOUBLE_EQ(inner_rate_scale(241, config), 0.55);
  EXPECT_DOUBLE_EQ(inner_rate_scale(480, config), (0.01 + 479.0 / 480 * 0.09) / 0.1);
  EXPECT_DOUBLE_EQ(inner_rate_scale(481, config), 1);
  EXPECT_DOUBLE_EQ(inner_rate_scale(5000, config), 1);
}

TEST(InnerRateScaleTest, IsOneWhereItIsSwitchedOff) {
  EXPECT_EQ(inner_rate_scale(1, {.initial = 0.01, .peak = 0.1, .warmup_steps = 0}), 1);
  EXPECT_EQ(inner_rate_scale(1, {.initial = 0, .peak = 0.1, .warmup_steps = 10}), 1);
  EXPECT_THROW(inner_rate_scale(0, {}), std::invalid_argument);
  EXPECT_THROW(inner_rate_scale(1, {.peak = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace ttt
