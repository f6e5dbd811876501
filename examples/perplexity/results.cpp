#include "perplexity/results.hpp"

#include <array>
#include <cmath>
#include <ostream>

#include "support/csv.hpp"
#include "support/format.hpp"

namespace ttt::examples {

double ResultRow::bits_per_byte() const { return bits_from_nats(nats_per_byte); }
double ResultRow::perplexity_per_byte() const { return std::exp(nats_per_byte); }

bool is_count_layer(const std::string& layer) { return layer.rfind("count-", 0) == 0; }

void write_results(const std::filesystem::path& path, const std::vector<ResultRow>& rows) {
  CsvTable table({"layer", "backbone", "train_context", "seed", "learning_rate", "parameters",
                  "train_tokens", "train_seconds", "train_flops", "state_bytes", "nats_per_byte",
                  "stderr", "bits_per_byte", "perplexity_per_byte"});
  for (const ResultRow& row : rows)
    table.add(row.layer, row.backbone, row.train_context, row.seed, row.learning_rate,
              row.parameters, row.train_tokens, row.train_seconds, row.train_flops, row.state_bytes,
              row.nats_per_byte, row.stderr_nats, row.bits_per_byte(), row.perplexity_per_byte());
  table.write(path);
}

void write_positions(const std::filesystem::path& path, const std::vector<PositionRow>& rows) {
  CsvTable table({"layer", "train_context", "seed", "position_begin", "position_end",
                  "nats_per_byte", "stderr", "count"});
  for (const PositionRow& row : rows)
    table.add(row.layer, row.train_context, row.seed, row.position_begin, row.position_end,
              row.nats_per_byte, row.stderr_nats, row.count);
  table.write(path);
}

void write_frozen(const std::filesystem::path& path, const std::vector<FrozenRow>& rows) {
  CsvTable table({"layer", "train_context", "seed", "inner_rate_scale", "position_begin",
                  "position_end", "nats_per_byte", "stderr"});
  for (const FrozenRow& row : rows)
    table.add(row.layer, row.train_context, row.seed, row.inner_rate_scale, row.position_begin,
              row.position_end, row.nats_per_byte, row.stderr_nats);
  table.write(path);
}

void write_latency(const std::filesystem::path& path, const std::vector<LatencyRow>& rows) {
  CsvTable table({"layer", "context", "batch", "prefill_tokens_per_second",
                  "decode_seconds_per_token", "state_bytes"});
  for (const LatencyRow& row : rows)
    table.add(row.layer, row.context, row.batch, row.prefill_tokens_per_second,
              row.decode_seconds_per_token, row.state_bytes);
  table.write(path);
}

void write_curves(const std::filesystem::path& path, const std::vector<TrainingPoint>& rows) {
  CsvTable table({"layer", "train_context", "seed", "step", "tokens", "seconds", "flops",
                  "nats_per_byte", "learning_rate", "gradient_norm"});
  for (const TrainingPoint& row : rows)
    table.add(row.layer, row.train_context, row.seed, row.step, row.tokens, row.seconds, row.flops,
              row.nats_per_byte, row.learning_rate, row.gradient_norm);
  table.write(path);
}

void write_comparison(const std::filesystem::path& path, const std::vector<ComparisonRow>& rows) {
  CsvTable table({"layer", "train_context", "equality", "budget", "share_of_training",
                  "nats_per_byte", "stderr"});
  for (const ComparisonRow& row : rows)
    table.add(row.layer, row.train_context, row.equality, row.budget, row.share_of_training,
              row.nats_per_byte, row.stderr_nats);
  table.write(path);
}

void write_inner_losses(const std::filesystem::path& path, const std::vector<InnerLossRow>& rows) {
  CsvTable table({"layer", "train_context", "block", "head", "position_begin", "position_end",
                  "initial", "mini_batch_start", "before", "after"});
  for (const InnerLossRow& row : rows)
    table.add(row.layer, row.train_context, row.block, row.head, row.position_begin,
              row.position_end, row.initial, row.mini_batch_start, row.before, row.after);
  table.write(path);
}

void ResultPrinter::print(const ResultRow& row) {
  const double bits_error = bits_from_nats(row.stderr_nats);
  const std::string error = std::isnan(bits_error) ? "" : " ± " + fixed(bits_error, 4);
  const std::array<std::string, 8> header = {"context",   "parameters", "trained on", "time",
                                             "nats/byte", "bits/byte",  "perplexity", "state"};
  const std::array<std::string, 8> cells = {std::to_string(row.train_context),
                                            compact(static_cast<double>(row.parameters)),
                                            byte_size(static_cast<double>(row.train_tokens)),
                                            duration(row.train_seconds),
                                            fixed(row.nats_per_byte, 4),
                                            fixed(row.bits_per_byte(), 4) + error,
                                            fixed(row.perplexity_per_byte(), 3),
                                            byte_size(static_cast<double>(row.state_bytes))};
  const std::array<std::size_t, 8> widths = {8, 11, 11, 13, 10, 16, 11, 9};
  auto print_line = [&](const std::string& name, const std::array<std::string, 8>& line) {
    *out_ << pad_right(name, 18);
    for (std::size_t i = 0; i < line.size(); ++i) *out_ << pad_left(line[i], widths[i]);
    *out_ << '\n';
  };
  if (!header_printed_) print_line("layer", header);
  header_printed_ = true;
  print_line(row.layer, cells);
  out_->flush();
}

}  // namespace ttt::examples
