/// @file
/// What the processor can do at most, measured in the same run as the layers:
///   peak/fma      float multiply-adds in independent chains of registers, without memory
///   peak/product  the product of two 1024 x 1024 float matrices, one on each thread
/// Both are registered before and after the layers' own benchmarks; the best measurement counts.
#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include "ttt/core/parallel.hpp"
#include "ttt/core/types.hpp"

namespace ttt::bench {

/// Threads that the library's parallel loops use from here.
inline void set_threads(int threads) {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  omp_set_num_threads(threads);
#else
  (void)threads;
#endif
}

/// A rate counter: `flops` floating-point operations in every iteration.
inline benchmark::Counter flops_counter(double flops) {
  return benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

/// `rounds` multiply-adds on each of several registers, one chain for each element of the sequence.
/// The chains approach 1, so that no number overflows or becomes denormal.
template <std::size_t... chain>
float multiply_add_chains(Index rounds, std::index_sequence<chain...>) {
  using Packet = Eigen::internal::packet_traits<float>::type;
  namespace eigen = Eigen::internal;
  const Packet factor = eigen::pset1<Packet>(0.75f), term = eigen::pset1<Packet>(0.25f);
  Packet x[] = {eigen::pset1<Packet>(static_cast<float>(chain))...};
  for (Index i = 0; i < rounds; ++i) ((x[chain] = eigen::pmadd(x[chain], factor, term)), ...);
  return (eigen::predux(x[chain]) + ...);
}

inline void measure_fma(benchmark::State& run, int threads) {
  set_threads(threads);
  // 12 chains hide the latency of two units of 4 to 6 cycles, and fit the 16 registers of AVX2.
  constexpr std::size_t chains = 12;
  constexpr Index rounds = 1 << 20;
  for (auto _ : run) {
    parallel_for(threads, threads, [&](Index, Index) {
      benchmark::DoNotOptimize(multiply_add_chains(rounds, std::make_index_sequence<chains>{}));
    });
  }
  constexpr int lanes = Eigen::internal::packet_traits<float>::size;
  run.counters["flops"] = flops_counter(2.0 * chains * rounds * lanes * threads);
}

inline void measure_product(benchmark::State& run, int threads) {
  set_threads(threads);
  constexpr Index n = 1024;
  const std::vector<Matrix<float>> A(threads, Matrix<float>::Random(n, n)), B = A;
  std::vector<Matrix<float>> C = A;
  for (auto _ : run) {
    parallel_for(threads, threads, [&](Index i, Index) { C[i].noalias() = A[i] * B[i]; });
    benchmark::ClobberMemory();
  }
  run.counters["flops"] = flops_counter(2.0 * n * n * n * threads);
}

/// The clock of every benchmark: real time for several threads, processor time for one, since it
/// is the same on an idle machine and hardly suffers from other programs.
inline void set_clock(benchmark::internal::Benchmark* registered, int threads) {
  if (threads > 1) registered->UseRealTime();
}

/// `when` tells the two measurements of a run apart.
inline void register_ceilings(const std::vector<int>& thread_counts, const std::string& when) {
  for (const int threads : thread_counts) {
    const std::string suffix = "/threads:" + std::to_string(threads) + "/" + when;
    set_clock(benchmark::RegisterBenchmark(("peak/fma" + suffix).c_str(), measure_fma, threads),
              threads);
    set_clock(
        benchmark::RegisterBenchmark(("peak/product" + suffix).c_str(), measure_product, threads),
        threads);
  }
}

}  // namespace ttt::bench
