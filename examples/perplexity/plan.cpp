#include "perplexity/plan.hpp"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "support/format.hpp"
#include "ttt/io/file.hpp"
#include "ttt/io/json_value.hpp"

namespace ttt::examples {
namespace {

/// The bytes that an earlier run of the program has planned, 0 where there is no plan.
std::int64_t stored_plan(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) return 0;
  const auto json = nlohmann::json::parse(stream, nullptr, false);
  const auto bytes =
      json.is_discarded() ? 0 : ttt::detail::json_value<std::int64_t>(json, "train_tokens", 0);
  if (bytes <= 0)
    throw std::runtime_error(file.string() +
                             " does not hold a plan of training, expected a number above 0 under "
                             "the key train_tokens");
  return bytes;
}

std::int64_t measured_plan(const std::vector<Run>& runs, const Options& options,
                           const std::vector<Document>& text) {
  double seconds_per_byte = 0;
  for (const Run& run : runs) {
    const double step = measure_step(run, options, text);
    const auto bytes = static_cast<double>(sequences_per_step(options, run.context) * run.context);
    std::cerr << "measured " << run.kind.name << ", context " << run.context << ": "
              << compact(bytes / step) << " bytes a second\n";
    seconds_per_byte += step / bytes;
  }
  const double seconds = options.minutes * 60 * static_cast<double>(runs.size());
  return static_cast<std::int64_t>(seconds / seconds_per_byte);
}

}  // namespace

std::int64_t plan_training(const std::vector<Run>& runs, const Options& options,
                           const std::vector<Document>& text, const std::filesystem::path& file) {
  if (options.steps > 0) return 0;
  if (options.tokens > 0) return options.tokens;
  std::int64_t bytes = options.resume ? stored_plan(file) : 0;
  if (bytes == 0) {
    bytes = std::max<std::int64_t>(1, measured_plan(runs, options, text));
    write_text_file(file, nlohmann::json{{"train_tokens", bytes}}.dump() + "\n");
  }
  std::cerr << "each model is trained on " << byte_size(static_cast<double>(bytes)) << '\n';
  return bytes;
}

Index planned_steps(const Options& options, Index context, std::int64_t bytes) {
  if (options.steps > 0) return options.steps;
  return std::max<Index>(1, bytes / (sequences_per_step(options, context) * context));
}

}  // namespace ttt::examples
