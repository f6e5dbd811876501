/// @file
/// How fast a model reads a context and writes after it, for one stream and for several at once.
///   prefill  bytes of all streams a second, no gradient, logits after the last byte only
///   decode   seconds for one byte of one stream: a step of the whole batch over its streams
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perplexity/models.hpp"
#include "perplexity/results.hpp"

namespace ttt::examples {

struct LatencyOptions {
  std::vector<std::int64_t> contexts = {16, 64, 256, 1024, 4096, 16384};  // ascending
  std::vector<std::int64_t> batches = {1, 8};
  double seconds = 6;                          // for all of it, about
  std::int64_t max_state_bytes = 512'000'000;  // of all streams of a batch together
};

/// A row for each context and batch; medians of repeated measurements. The streams read `text`,
/// over and over where it is short. A context is left out, as are all longer ones of that batch,
/// where it is expected to take longer than what is left of the time (the shortest context is
/// always measured), or where its states would take too much memory.
/// Throws `std::invalid_argument` where the text is empty.
std::vector<LatencyRow> measure_latency(const Model& model, const std::string& layer,
                                        std::string_view text, const LatencyOptions& options = {});

}  // namespace ttt::examples
