/// @file
/// The largest resident memory of a piece of work, which runs in a process of its own.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ttt/core/check.hpp"

namespace ttt::bench {

/// Megabytes of a process that runs `body`.
/// Throws `std::invalid_argument` where that process does not end well (killed for lack of memory).
template <class Body>
double peak_megabytes(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  rusage usage{};
  int status = 1;
  require(child > 0 && wait4(child, &status, 0, &usage) == child && status == 0,
          "peak_megabytes: the process that was to be measured did not end well");
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

}  // namespace ttt::bench
