/// @file
/// Parallel loops. Serial unless the whole program is built with OpenMP and `TTT_USE_OPENMP=1`.
/// How a problem is cut into parts never depends on the number of threads, so results are
/// bit-equal for any number of them.
#pragma once

#include <algorithm>
#include <exception>

#include "ttt/core/types.hpp"

#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
#include <omp.h>
#endif

namespace ttt {

/// While one lives, the parallel loops of its thread run on that thread alone: real-time code must
/// wait for no other.
class SerialScope {
 public:
  SerialScope() : outer_(inside_) { inside_ = true; }
  ~SerialScope() { inside_ = outer_; }
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

  static bool is_inside() { return inside_; }

 private:
  static inline thread_local constinit bool inside_ = false;
  bool outer_;
};

/// Threads that a parallel loop may use from here: 1 in a serial build, inside a parallel loop and
/// inside a SerialScope.
inline Index available_threads() {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  return SerialScope::is_inside() || omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
namespace detail {

/// A function of its own: compilers call the OpenMP runtime where a function with a pragma begins.
template <class Body>
void parallel_loop(Index count, Index threads, Body& body) {
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast <int>(threads))
  for (Index i = 0; i < count; ++i) {
#if defined(__cpp_exceptions)
    try {
      body(i, Index{omp_get_thread_num()});
    } catch (...) {
#pragma omp critical(ttt_parallel_for_error)
      if (!error) error = std::current_exception();
    }
#else
    body(i, Index{omp_get_thread_num()});
#endif
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace detail
#endif

/// Runs `body(index, slot)` for every index in [0, count), on at most `slots` threads. Calls that
/// run at the same time have different slots in [0, slots): room for one scratch object each.
/// The first exception is rethrown when all threads are done.
template <class Body>
void parallel_for(Index count, Index slots, Body&& body) {
  // One piece of work asks no runtime for threads: `step` must not wake it up, for that allocates.
  const Index threads = count <= 1 ? 1 : std::min({count, slots, available_threads()});
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  if (threads > 1) return detail::parallel_loop(count, threads, body);
#endif
  static_cast<void>(threads);
  for (Index i = 0; i < count; ++i) body(i, Index{0});
}

template <class Body>
void parallel_for(Index count, Body&& body) {
  parallel_for(count, count, [&](Index i, Index) { body(i); });
}

/// Runs `body(begin, size)` over [0, count) in consecutive blocks of `block` elements.
template <class Body>
void parallel_blocks(Index count, Index block, Body&& body) {
  const Index blocks = (count + block - 1) / block;
  parallel_for(blocks, [&](Index i) {
    const Index begin = i * block;
    body(begin, std::min(block, count - begin));
  });
}

/// Runs `body(begin, size, part)` over [0, count) in `parts` consecutive parts of about equal size.
template <class Body>
void parallel_parts(Index count, Index parts, Body&& body) {
  parallel_for(parts, [&](Index part) {
    const Index begin = count * part / parts;
    body(begin, count * (part + 1) / parts - begin, part);
  });
}

/// Tokens that an element-wise operation handles at once: enough work for one task, and few enough
/// that a block of usual width stays in the second-level cache.
inline constexpr Index token_block = 64;

}  // namespace ttt
