/// @file
/// Denormal numbers (float: below 1.2e-38) taken as zero, for as long as an object lives:
///   const FlushDenormals flush;   // at the top of an audio callback, around a loop of steps
/// A state that fades out in silence passes through them, and many processors compute with them in
/// microcode, a hundred cycles an operation: a step that is due in real time is late just when
/// nothing happens. Sets flush-to-zero and denormals-are-zero in MXCSR (x86 with SSE) or FPCR
/// (ARM64); does nothing elsewhere, see `FlushDenormals::available`.
#pragma once

#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#define TTT_FLUSH_DENORMALS_X86 1
#include <xmmintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#define TTT_FLUSH_DENORMALS_ARM64 1
#endif

namespace ttt {

/// Of the thread that makes it; on destruction, the thread's earlier mode is back. Threads that are
/// running keep their mode, those started meanwhile may inherit it: let it enclose steps of one
/// thread. Objects may nest. Compilers know nothing of the mode: let it enclose calls, not sums.
class FlushDenormals {
 public:
#if defined(TTT_FLUSH_DENORMALS_X86) || defined(TTT_FLUSH_DENORMALS_ARM64)
  static constexpr bool available = true;
#else
  static constexpr bool available = false;
#endif

  FlushDenormals() : before_(mode()) { set_mode(before_ | flushing); }
  ~FlushDenormals() { set_mode((mode() & ~flushing) | (before_ & flushing)); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(TTT_FLUSH_DENORMALS_X86)
  using Mode = unsigned;
  static constexpr Mode flushing = 0x8040;  // flush to zero, bit 15; denormals are zero, bit 6
  static Mode mode() { return _mm_getcsr(); }
  static void set_mode(Mode mode) { _mm_setcsr(mode); }
#elif defined(TTT_FLUSH_DENORMALS_ARM64)
  using Mode = std::uint64_t;
  static constexpr Mode flushing = Mode{1} << 24;  // FZ: inputs and results
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set_mode(Mode mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  using Mode = unsigned;
  static constexpr Mode flushing = 0;
  static Mode mode() { return 0; }
  static void set_mode(Mode) {}
#endif

  Mode before_;
};

}  // namespace ttt

#undef TTT_FLUSH_DENORMALS_X86
#undef TTT_FLUSH_DENORMALS_ARM64
