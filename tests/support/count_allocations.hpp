/// @file
/// Counts the memory allocations of the running thread, so that a test can say "none". The C
/// library's allocation functions are replaced by ones that count and call it; operator new and
/// Eigen end there too. Weak symbols: any number of files of a program may include this.
/// Only with glibc and without sanitizers, which replace the same functions; elsewhere
/// `counts_allocations` is false.
#pragma once

#include <Eigen/Core>  // before the declarations below, which clang wants to agree with its own
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__has_feature)
#define TTT_TEST_HAS_FEATURE(feature) __has_feature(feature)
#else
#define TTT_TEST_HAS_FEATURE(feature) 0
#endif

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !TTT_TEST_HAS_FEATURE(address_sanitizer) && !TTT_TEST_HAS_FEATURE(thread_sanitizer) &&   \
    !TTT_TEST_HAS_FEATURE(memory_sanitizer)
#define TTT_TEST_COUNTS_ALLOCATIONS 1
#else
#define TTT_TEST_COUNTS_ALLOCATIONS 0
#endif
#undef TTT_TEST_HAS_FEATURE

namespace ttt::test {

inline constexpr bool counts_allocations = TTT_TEST_COUNTS_ALLOCATIONS != 0;

namespace detail {
inline thread_local constinit std::size_t allocation_count = 0;
}  // namespace detail

/// Allocations of this thread since the counter was made.
class AllocationCounter {
 public:
  std::size_t count() const { return detail::allocation_count - start_; }

 private:
  std::size_t start_ = detail::allocation_count;
};

}  // namespace ttt::test

#if TTT_TEST_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(std::size_t size) noexcept;
void* __libc_calloc(std::size_t count, std::size_t size) noexcept;
void* __libc_realloc(void* memory, std::size_t size) noexcept;
void* __libc_memalign(std::size_t alignment, std::size_t size) noexcept;

__attribute__((weak)) void* malloc(std::size_t size) noexcept {
  ++ttt::test::detail::allocation_count;
  return __libc_malloc(size);
}

__attribute__((weak)) void* calloc(std::size_t count, std::size_t size) noexcept {
  ++ttt::test::detail::allocation_count;
  return __libc_calloc(count, size);
}

__attribute__((weak)) void* realloc(void* memory, std::size_t size) noexcept {
  ++ttt::test::detail::allocation_count;
  return __libc_realloc(memory, size);
}

__attribute__((weak)) void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  ++ttt::test::detail::allocation_count;
  return __libc_memalign(alignment, size);
}

__attribute__((weak)) int posix_memalign(void** memory, std::size_t alignment,
                                         std::size_t size) noexcept {
  ++ttt::test::detail::allocation_count;
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}
#endif
