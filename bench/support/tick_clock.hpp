/// @file
/// The time of one short call: the processor's time stamp counter where there is one (x86-64),
/// std::chrono::steady_clock elsewhere.
#pragma once

#include <chrono>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <x86intrin.h>
#endif

namespace ttt::bench {

struct TickClock {
#if defined(__x86_64__) && defined(__GNUC__)
  static constexpr const char* name = "time stamp counter";

  /// A reading waits for all that comes before it: what is timed ends before the second one.
  static std::uint64_t now() {
    unsigned processor;
    const std::uint64_t ticks = __rdtscp(&processor);
    _mm_lfence();
    return ticks;
  }
#else
  static constexpr const char* name = "steady clock";

  static std::uint64_t now() {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
#endif

  /// Measured against the steady clock, over a tenth of a second.
  static double nanoseconds_per_tick() {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const std::uint64_t first = now();
    auto end = start;
    do end = Clock::now();
    while (end - start < std::chrono::milliseconds(100));
    const std::uint64_t last = now();
    return std::chrono::duration<double, std::nano>(end - start).count() /
           static_cast<double>(last - first);
  }
};

}  // namespace ttt::bench
