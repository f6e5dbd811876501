/// @file
/// report.html: what an experiment did and found, in one file that needs no other (style and
/// pictures are inside), for a reader who knows nothing of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "perplexity/results.hpp"
#include "support/machine.hpp"

namespace ttt::examples {

/// What a model wrote after a prompt.
struct SampleText {
  std::string layer;
  std::int64_t train_context = 0;
  std::string prompt, text;  // bytes; whatever is not UTF-8 is shown as a replacement character
};

/// Everything a report shows. Parts that are empty are left out of it.
struct Report {
  std::string title = "Sequence layers compared on a text that they have not seen";
  std::vector<std::string> notes;  // paragraphs: the text, its division, the budget
  Machine machine;
  std::vector<ResultRow> results;  // count models among them
  std::vector<PositionRow> positions;
  std::vector<PositionRow> extrapolation;  // beyond the training context too
  std::vector<FrozenRow> frozen;
  std::vector<TrainingPoint> curves;
  std::vector<InnerLossRow> inner_losses;
  std::vector<LatencyRow> latency;
  std::vector<SampleText> samples;
};

/// What was found, a few sentences for each question; the console shows them too.
std::vector<std::string> summary_sentences(const Report& report);

/// The report as HTML.
std::string report_html(const Report& report);

/// Writes it, replacing the file atomically. Throws `std::runtime_error` where that fails.
void write_report(const std::filesystem::path& path, const Report& report);

}  // namespace ttt::examples
