/// @file
/// What the benchmark programs share around Google Benchmark: options of their own, defaults for
/// its options, the facts about the machine, and ceilings that no filter leaves out.
#pragma once

#include <algorithm>
#include <string_view>

#include "../../examples/support/machine.hpp"
#include "support/ceilings.hpp"

namespace ttt::bench {

/// 1, and as many as OpenMP would use (OMP_NUM_THREADS).
inline std::vector<int> thread_counts() {
  static const int all = static_cast<int>(available_threads());
  return all > 1 ? std::vector<int>{1, all} : std::vector<int>{1};
}

class Program {
 public:
  Program(int argc, char** argv) : arguments_(argv, argv + argc) {
    Eigen::setNbThreads(1);
    const auto machine = examples::this_machine(thread_counts().back(), argc, argv);
    for (const auto& [name, value] : examples::machine_facts(machine))
      benchmark::AddCustomContext(name, value);
  }

  /// Whether `option` was given; Google Benchmark does not see it.
  bool take_option(std::string_view option) {
    return std::erase_if(arguments_, [&](const char* a) { return a == option; }) > 0;
  }

  /// Runs what `register_all` registers, between two measurements of the ceilings.
  /// Returns the program's exit code.
  template <class RegisterAll>
  int run(RegisterAll&& register_all) {
    // The caller's own options come later and win.
    std::string repetitions = "--benchmark_repetitions=3", time = "--benchmark_min_time=0.1";
    arguments_.insert(arguments_.begin() + 1, {repetitions.data(), time.data()});
    int count = static_cast<int>(arguments_.size());
    arguments_.push_back(nullptr);
    benchmark::Initialize(&count, arguments_.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments_.data())) return 2;

    register_ceilings(thread_counts(), "before");
    register_all();
    register_ceilings(thread_counts(), "after");
    const std::string filter = benchmark::GetBenchmarkFilter();
    const bool narrows = !filter.empty() && filter != "all" && filter[0] != '-';
    benchmark::RunSpecifiedBenchmarks(narrows ? "^peak/|" + filter : filter);
    benchmark::Shutdown();
    return 0;
  }

 private:
  std::vector<char*> arguments_;
};

}  // namespace ttt::bench
