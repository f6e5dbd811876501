/// @file
/// What an experiment leaves behind: one plain struct a table, its CSV file (the columns are those
/// of the struct, in this order), and the table on the console.
/// Losses are nats per byte; `stderr_nats` is the standard error of that mean (column `stderr`).
/// A value that does not exist is NaN, and an empty cell in the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <limits>
#include <string>
#include <vector>

namespace ttt::examples {

inline constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

/// results.csv: one trained model on the test text. A count model is a row `count-k`.
struct ResultRow {
  std::string layer, backbone;
  std::int64_t train_context = 0;  // bytes; for `count-k` the context of the windows it read
  std::uint64_t seed = 0;
  double learning_rate = not_known;
  std::int64_t parameters = 0;  // for `count-k` the n-grams it has counted
  std::int64_t train_tokens = 0;
  double train_seconds = not_known, train_flops = not_known;
  std::int64_t state_bytes = 0;
  double nats_per_byte = not_known, stderr_nats = not_known;

  double bits_per_byte() const;
  double perplexity_per_byte() const;
};

/// True for the count models `count-1`, `count-2`, ...
bool is_count_layer(const std::string& layer);

/// by_position.csv and extrapolation.csv: bytes at positions [position_begin, position_end) of a
/// window, `count` of them.
struct PositionRow {
  std::string layer;
  std::int64_t train_context = 0;
  std::uint64_t seed = 0;
  std::int64_t position_begin = 0, position_end = 0;
  double nats_per_byte = not_known, stderr_nats = not_known;
  std::int64_t count = 0;
};

/// frozen.csv: the same with the inner learning rate scaled at test time (0: learning is off).
struct FrozenRow {
  std::string layer;
  std::int64_t train_context = 0;
  std::uint64_t seed = 0;
  double inner_rate_scale = 1;
  std::int64_t position_begin = 0, position_end = 0;
  double nats_per_byte = not_known, stderr_nats = not_known;
};

/// latency.csv
struct LatencyRow {
  std::string layer;
  std::int64_t context = 0, batch = 1;
  double prefill_tokens_per_second = not_known, decode_seconds_per_token = not_known;
  std::int64_t state_bytes = 0;
};

/// curves.csv: one point of a training run; `nats_per_byte` is the loss of the training batch.
struct TrainingPoint {
  std::string layer;
  std::int64_t train_context = 0;
  std::uint64_t seed = 0;
  std::int64_t step = 0, tokens = 0;
  double seconds = 0, flops = 0, nats_per_byte = not_known;
  double learning_rate = not_known, gradient_norm = not_known;
};

/// comparison.csv: the training loss that a layer had when it had used up `budget` in the unit of
/// the equality ("bytes", "flops" or "seconds"), a share of all that it went on to use.
struct ComparisonRow {
  std::string layer;
  std::int64_t train_context = 0;
  std::string equality;
  double budget = not_known, share_of_training = not_known;
  double nats_per_byte = not_known, stderr_nats = not_known;
};

/// inner_loss.csv: the inner loss l of the tokens at these positions under four inner weights:
/// W_0, the weights at the start of the mini-batch, those just before the token's own step, and
/// those just after it.
struct InnerLossRow {
  std::string layer;
  std::int64_t train_context = 0;
  std::int64_t block = 0, head = 0;
  std::int64_t position_begin = 0, position_end = 0;
  double initial = not_known, mini_batch_start = not_known, before = not_known, after = not_known;
};

/// Write one file each, replacing it atomically. Throw `std::runtime_error` where that fails.
void write_results(const std::filesystem::path& path, const std::vector<ResultRow>& rows);
void write_positions(const std::filesystem::path& path, const std::vector<PositionRow>& rows);
void write_frozen(const std::filesystem::path& path, const std::vector<FrozenRow>& rows);
void write_latency(const std::filesystem::path& path, const std::vector<LatencyRow>& rows);
void write_curves(const std::filesystem::path& path, const std::vector<TrainingPoint>& rows);
void write_comparison(const std::filesystem::path& path, const std::vector<ComparisonRow>& rows);
void write_inner_losses(const std::filesystem::path& path, const std::vector<InnerLossRow>& rows);

/// The results as an aligned table, row by row as soon as each is known.
class ResultPrinter {
 public:
  explicit ResultPrinter(std::ostream& out) : out_(&out) {}

  /// Prints `row`, before the first one the header.
  void print(const ResultRow& row);

 private:
  std::ostream* out_;
  bool header_printed_ = false;
};

}  // namespace ttt::examples
