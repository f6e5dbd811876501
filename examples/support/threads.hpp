/// @file
/// How the threads of a program behave.
#pragma once

#include <unistd.h>

#include <Eigen/Core>
#include <cstdlib>

#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
#include <omp.h>
#endif

namespace ttt::examples {

/// Starts the program anew with a shorter active wait, unless the user has chosen one.
/// GNU OpenMP lets a thread that waits for work spin for seconds, which takes the core from the
/// thread that works when anything else runs on the machine (measured with one core busy: 400
/// tokens a second in place of 25 000). The variable is read before main, hence the new start.
inline void wait_briefly(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "3000", 1);
  execv("/proc/self/exe", argv);  // where there is no such file, it goes on as it is
}

/// `threads` 0: all cores. Returns the number in use. Eigen's own split is off: it would change
/// results with the number of threads.
inline int use_threads(int threads) {
  Eigen::setNbThreads(1);
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  if (threads > 0) omp_set_num_threads(threads);
  return omp_get_max_threads();
#else
  static_cast<void>(threads);
  return 1;
#endif
}

}  // namespace ttt::examples
