#include "ttt/core/flush_denormals.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "../bench/support/signals.hpp"

namespace ttt::test {
namespace {

/// Computed when the program runs: compilers do not know the mode.
float half_of(float value) {
  volatile float number = value;
  number = number * 0.5f;
  return number;
}

bool flushes() { return !bench::is_denormal(half_of(std::numeric_limits<float>::min())); }

class FlushDenormalsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!FlushDenormals::available) GTEST_SKIP() << "not on this processor";
    ASSERT_FALSE(flushes());
  }
};

TEST_F(FlushDenormalsTest, ResultsAndInputsAreZeroWhileItLivesAndTheModeComesBack) {
  const float denormal = std::numeric_limits<float>::denorm_min() * 1024;
  EXPECT_EQ(half_of(denormal), denormal / 2);
  {
    const FlushDenormals outer;
    EXPECT_TRUE(flushes());
    EXPECT_EQ(half_of(denormal) * 0x1p100f, 0);
    volatile float input = denormal;
    EXPECT_EQ(input * 0x1p100f, 0);
    {
      const FlushDenormals inner;
      EXPECT_TRUE(flushes());
    }
    EXPECT_TRUE(flushes());
    EXPECT_EQ(half_of(1), 0.5f);
  }
  EXPECT_FALSE(flushes());
}

TEST_F(FlushDenormalsTest, OtherThreadsKeepTheirMode) {
  bool other_flushes = false, this_flushes = false;
  std::thread other([&] {
    const FlushDenormals flush;
    this_flushes = flushes();
  });
  other.join();
  other_flushes = flushes();
  EXPECT_TRUE(this_flushes);
  EXPECT_FALSE(other_flushes);
}

}  // namespace
}  // namespace ttt::test
