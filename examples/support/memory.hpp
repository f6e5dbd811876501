/// @file
/// Memory of this process.
#pragma once

#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <cstdint>
#include <fstream>

namespace ttt::examples {

/// Bytes of this process that are in memory now; 0 where the system does not say
/// (/proc/self/statm).
inline std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t virtual_pages = 0, resident_pages = 0;
  file >> virtual_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

/// Gives memory that is free in this process back to the system (with glibc; elsewhere nothing).
inline void return_free_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace ttt::examples
