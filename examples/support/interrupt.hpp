/// @file
/// Ctrl-C as a request: the program goes on to a point where nothing is lost, and ends there. A
/// second one ends it at once.
#pragma once

#include <csignal>
#include <stdexcept>

namespace ttt::examples {

/// Thrown where the program ends on request.
struct Interrupted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {
inline volatile std::sig_atomic_t interrupt_requested = 0;
}  // namespace detail

/// From here on SIGINT and SIGTERM are requests.
inline void catch_interrupts() {
  const auto request = [](int signal) {
    detail::interrupt_requested = 1;
    std::signal(signal, SIG_DFL);
  };
  std::signal(SIGINT, request);
  std::signal(SIGTERM, request);
}

inline bool interrupt_requested() { return detail::interrupt_requested != 0; }

}  // namespace ttt::examples
