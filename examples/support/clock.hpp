/// @file
/// Seconds on a clock that never goes back, for measuring.
#pragma once

#include <chrono>

namespace ttt::examples {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace ttt::examples
