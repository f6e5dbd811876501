#include "ttt/core/flush_denormals.hpp"

#include <gtest/gtest.h>

#include <future>
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

TEST_F(FlushDenormalsTest, RunningThreadsKeepTheirMode) {
  std::promise<void> made, looked;
  std::thread other([&] {
    const FlushDenormals flush;
    EXPECT_TRUE(flushes());
    made.set_value();
    looked.get_future().wait();
  });
  made.get_future().wait();
  EXPECT_FALSE(flushes());  // while the other thread's object lives
  looked.set_value();
  other.join();
}

}  // namespace
}  // namespace ttt::test
