/// @file
/// What a measurement was made on: machine, compiler, flags, Eigen, threads, command.
#pragma once

#include <Eigen/Core>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace ttt::examples {

struct Machine {
  std::string cpu;
  unsigned cores = 0;  // logical ones
  std::string compiler, flags, eigen, simd;
  int threads = 1;  // that the program uses
  std::string command;
};

/// "3.4.0", "5.0.1": Eigen 5 counts MAJOR.MINOR.PATCH and keeps WORLD at 3 for old code.
inline std::string eigen_version() {
#if EIGEN_MAJOR_VERSION >= 5
  const int numbers[] = {EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION, EIGEN_PATCH_VERSION};
#else
  const int numbers[] = {EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION};
#endif
  return std::to_string(numbers[0]) + "." + std::to_string(numbers[1]) + "." +
         std::to_string(numbers[2]);
}

inline std::string compiler_version() {
#if defined(__clang__)
  return __VERSION__;
#elif defined(__GNUC__)
  return std::string("GCC ") + __VERSION__;
#else
  return "unknown compiler";
#endif
}

/// The flags of the build (the build system defines `TTT_COMPILE_FLAGS` as a string), and what the
/// compiler itself says about them.
inline std::string compile_flags() {
#if defined(TTT_COMPILE_FLAGS)
  std::string flags = TTT_COMPILE_FLAGS;
#else
  std::string flags = "not recorded";
#endif
#if !defined(__OPTIMIZE__)
  flags += " (not optimised)";
#endif
#if !defined(NDEBUG)
  flags += " (with assertions)";
#endif
  return flags;
}

/// The name of the processor in Linux's /proc/cpuinfo, or "unknown".
inline std::string cpu_name(const std::string& cpuinfo = "/proc/cpuinfo") {
  std::ifstream file(cpuinfo);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (line.rfind("model name", 0) != 0 || colon == std::string::npos) continue;
    const std::size_t name = line.find_first_not_of(" \t", colon + 1);
    if (name != std::string::npos) return line.substr(name);
  }
  return "unknown";
}

/// `word` as one word of a POSIX shell.
inline std::string shell_quote(const std::string& word) {
  static constexpr const char* plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  quoted += '\'';
  return quoted;
}

inline std::string command_line(int argc, const char* const* argv) {
  std::string command;
  for (int i = 0; i < argc; ++i) command += (i > 0 ? " " : "") + shell_quote(argv[i]);
  return command;
}

inline Machine this_machine(int threads, int argc, const char* const* argv) {
  return {cpu_name(),
          std::thread::hardware_concurrency(),
          compiler_version(),
          compile_flags(),
          eigen_version(),
          Eigen::SimdInstructionSetsInUse(),
          threads,
          command_line(argc, argv)};
}

/// Name and value of each fact, for a table or the console.
inline std::vector<std::pair<std::string, std::string>> machine_facts(const Machine& machine) {
  return {{"machine", machine.cpu + ", " + std::to_string(machine.cores) + " logical cores"},
          {"threads", std::to_string(machine.threads)},
          {"compiler", machine.compiler},
          {"flags", machine.flags},
          {"Eigen", machine.eigen + ", instruction sets " + machine.simd},
          {"command", machine.command}};
}

}  // namespace ttt::examples
