/// @file
/// Losses on held-out text, strictly causal: a byte is scored before it is learned from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perplexity/count_model.hpp"
#include "perplexity/models.hpp"
#include "perplexity/results.hpp"
#include "support/text.hpp"

namespace ttt::examples {

struct MeanLoss {
  double nats = 0, standard_error = 0;  // of a byte; the error from the spread between windows
  std::int64_t count = 0;               // bytes
};

struct BucketLoss {
  std::int64_t begin = 0, end = 0;  // positions in the window
  MeanLoss loss;
};

struct LossByWindow {
  MeanLoss all;
  std::vector<BucketLoss> buckets;  // positions [0, 1), [1, 2), [2, 4), [4, 8), ...
};

/// Windows of `context` + 1 bytes: consecutive, without overlap, none across two documents. Each
/// predicts its last `context` bytes. At most `max_bytes` predictions where that is above 0.
std::vector<std::string_view> test_windows(const std::vector<Document>& documents,
                                           std::int64_t context, std::int64_t max_bytes);

/// Each window starts from a new state, or with `carry_state` from where the window before it in
/// the same document ended.
LossByWindow evaluate(const Model& model, const std::vector<std::string_view>& windows,
                      double inner_rate_scale, bool carry_state);

/// Losses beyond the training context: windows four times as long, on at most `max_bytes` bytes
/// (but one window at least), each from a new state. Positions up to the training context come in
/// doubling pieces, those beyond it, which training never met, in pieces of half of it.
/// Empty where no document is long enough.
std::vector<PositionRow> extrapolate(const Model& model, const std::string& layer,
                                     std::int64_t train_context, std::uint64_t seed,
                                     const std::vector<Document>& documents,
                                     std::int64_t max_bytes);

/// Windows scored by counting, with `context_bytes` bytes of context.
MeanLoss evaluate(const CountModel& model, const std::vector<std::string_view>& windows,
                  int context_bytes);

/// Mean inner losses of one head over windows, by position; columns as in `InnerLossRow`.
struct InnerLossBucket {
  std::int64_t block = 0, head = 0, begin = 0, end = 0;
  double initial = 0, mini_batch_start = 0, before = 0, after = 0;
};

/// The inner losses of every head, on at most `max_windows` of the windows, in the blocks whose
/// mixer has an inner loop; none where no block has one.
std::vector<InnerLossBucket> inner_losses(const Model& model,
                                          const std::vector<std::string_view>& windows,
                                          std::size_t max_windows);

/// `bytes` bytes that the model writes after `prompt`, drawn at the given temperature.
std::string sample(const Model& model, std::string_view prompt, int bytes, double temperature,
                   std::uint64_t seed);

}  // namespace ttt::examples
