/// @file
/// The command line of `perplexity`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ttt::examples {

struct Options {
  std::vector<std::filesystem::path> text, validation_text, test_text;
  std::vector<std::string> layers = {"ttt-linear", "ttt-mlp", "mamba", "attention", "lstm"};
  std::vector<std::int64_t> contexts = {1024};
  std::int64_t width = 128, depth = 4, heads = 4, mini_batch = 16, window = 256;
  double minutes = 2.4;     // mean training budget of a model ...
  std::int64_t steps = 0;   // ... or in steps,
  std::int64_t tokens = 0;  // ... or in tokens
  std::int64_t batch_tokens = 1024;
  double learning_rate = 0;  // 0: the layer's own
  std::vector<std::uint64_t> seeds = {1};
  int threads = 0;  // 0: all cores
  std::filesystem::path out = "out";
  std::int64_t checkpoint_every = 1000;
  bool resume = false;
  bool carry_state = false;
  bool train_only = false;
  bool latency = true;
  bool json = false;
  std::filesystem::path checkpoint;  // evaluate this instead of training
  std::int64_t test_bytes = 0;       // 0: all
  std::int64_t memory = 0;           // bytes that training may take; 0: no limit
  std::string study;                 // empty, or "learning-rate"
};

/// Reads the command line. Returns the exit code where the program is to end at once: 0 after
/// --help or --list-layers, 2 after a mistake, which it has reported on standard error.
std::optional<int> parse_options(int argc, char** argv, Options& options);

}  // namespace ttt::examples
