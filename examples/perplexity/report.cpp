#include "perplexity/report.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "perplexity/comparison.hpp"
#include "perplexity/glossary.hpp"
#include "perplexity/pictures.hpp"
#include "perplexity/summary.hpp"
#include "support/csv.hpp"
#include "support/format.hpp"
#include "support/html.hpp"

namespace ttt::examples {

namespace {

constexpr const char* style = R"css(
:root { color-scheme: light dark; --page: #fff; --ink: #1a1a1a; --line: #d4d4d4; --soft: #f5f5f3; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e4e4e0; --line: #3b3f45; --soft: #202327; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
p, dl { max-width: 46rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
.text { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.pictures { display: grid; gap: 1.5rem; margin-top: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; break-inside: avoid; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .7rem;
  font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
dt { font-weight: bold; margin-top: .6rem; }
dd { margin: 0 0 0 1rem; }
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --line: #bbb; --soft: #fff; }
  body { max-width: none; font-size: 10pt; }
  .pictures { display: block; orphans: 1; widows: 1; }
  h2 { break-after: avoid; }
  figure { display: inline-block; width: 48%; }
  .wide { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .1rem .25rem; }
}
)css";

std::string heading(const std::string& text) { return "<h2>" + escape(text) + "</h2>\n"; }
std::string paragraph(const std::string& text) { return "<p>" + escape(text) + "</p>\n"; }

/// Two texts with a space between them, where neither is empty.
std::string joined(const std::string& first, const std::string& second) {
  return first + (first.empty() || second.empty() ? "" : " ") + second;
}

/// A row of pictures; charts without any point are left out.
std::string pictures_html(const std::vector<Chart>& charts) {
  std::string out;
  for (const Chart& chart : charts) {
    const bool drawn = std::any_of(chart.series.begin(), chart.series.end(),
                                   [](const Series& series) { return !series.x.empty(); });
    if (drawn) out += "<figure>" + svg(chart) + "</figure>\n";
  }
  return out.empty() ? out : "<div class=\"pictures\">\n" + out + "</div>\n";
}

/// Heading, explanation and pictures, or nothing where there is no picture.
std::string picture_section(const std::string& title, const std::string& explanation,
                            const std::vector<Chart>& charts) {
  const std::string pictures = pictures_html(charts);
  return pictures.empty() ? pictures : heading(title) + paragraph(explanation) + pictures;
}

/// Bits from nats, with the standard error where it is known.
std::string bits_text(double nats, double standard_error) {
  return fixed(bits_from_nats(nats), 4) +
         (std::isnan(standard_error) ? "" : " ± " + fixed(bits_from_nats(standard_error), 4));
}

std::string results_html(const std::vector<ResultRow>& results) {
  if (results.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const ResultRow& row : results) {
    rows.push_back({row.layer, std::to_string(row.train_context),
                    bits_text(row.nats_per_byte, row.stderr_nats),
                    fixed(row.perplexity_per_byte(), 3),
                    compact(static_cast<double>(row.parameters)),
                    byte_size(static_cast<double>(row.train_tokens)), duration(row.train_seconds),
                    compact(row.train_flops), byte_size(static_cast<double>(row.state_bytes)),
                    brief(row.learning_rate), std::to_string(row.seed), row.backbone});
  }
  return heading("Results") +
         html_table({"layer", "context", "bits per byte", "perplexity", "parameters", "trained on",
                     "time", "FLOPs", "state", "learning rate", "seed", "backbone"},
                    rows);
}

std::string training_html(const Report& report, const Pictures& pictures) {
  std::vector<Chart> charts;
  const bool flops = std::any_of(report.curves.begin(), report.curves.end(),
                                 [](const TrainingPoint& point) { return point.flops > 0; });
  for (const std::int64_t context : distinct(report.curves, &TrainingPoint::train_context)) {
    charts.push_back(
        pictures.training(report.curves, context, &TrainingPoint::tokens, "bytes trained on"));
    charts.push_back(pictures.training(report.curves, context, &TrainingPoint::seconds,
                                       "training time (seconds)"));
    if (flops)
      charts.push_back(pictures.training(report.curves, context, &TrainingPoint::flops,
                                         "floating-point operations"));
  }
  return picture_section("Training",
                         "Loss of the training batches (neighbouring batches averaged) against the "
                         "bytes read, against time, and against arithmetic where it was counted; "
                         "from a twentieth of the shortest training on.",
                         charts);
}

/// Layers down, equalities across, in the order of the first equality's ranking.
std::string comparison_table(const std::vector<ComparisonRow>& rows, std::int64_t train_context) {
  std::vector<std::string> header = {"layer, context " + std::to_string(train_context)};
  std::vector<std::string> equalities, layers;
  for (const ComparisonRow& row : rows) {
    if (row.train_context != train_context) continue;
    if (std::find(layers.begin(), layers.end(), row.layer) == layers.end())
      layers.push_back(row.layer);
    if (!equalities.empty() && equalities.back() == row.equality) continue;
    equalities.push_back(row.equality);
    header.push_back("bits per byte at equal " +
                     (row.equality == "flops" ? "FLOPs" : row.equality) + " (" + budget_text(row) +
                     ")");
    header.push_back("share of its training");
  }
  std::vector<std::vector<std::string>> cells;
  for (const std::string& layer : layers) {
    cells.push_back({layer});
    cells.back().resize(header.size());
    for (const ComparisonRow& row : rows) {
      if (row.layer != layer || row.train_context != train_context) continue;
      const auto place = std::find(equalities.begin(), equalities.end(), row.equality);
      const auto column = static_cast<std::size_t>(1 + 2 * (place - equalities.begin()));
      cells.back()[column] = bits_text(row.nats_per_byte, row.stderr_nats);
      cells.back()[column + 1] = fixed(100 * row.share_of_training, 0) + " %";
    }
  }
  return html_table(header, cells);
}

std::string comparison_html(const std::vector<ComparisonRow>& rows) {
  if (rows.empty()) return "";
  std::string out =
      heading("Layers under equal budgets") +
      paragraph(
          "Training loss after the same number of bytes, of floating-point operations, or of "
          "seconds: the most that all layers reached, over its last tenth. A layer needs a whole "
          "schedule of its learning rate to be at its best; the share says how much of it was "
          "done. ± is the standard error of the mean over the batches.");
  for (const std::int64_t context : distinct(rows, &ComparisonRow::train_context))
    out += comparison_table(rows, context);
  for (const std::string& text : comparison_paragraphs(rows)) out += paragraph(text);
  return out;
}

std::string positions_html(const Report& report, const Pictures& pictures) {
  std::vector<Chart> within, beyond;
  for (const std::int64_t context : distinct(report.positions, &PositionRow::train_context))
    within.push_back(pictures.positions(report.positions, context, false));
  for (const std::int64_t context : distinct(report.extrapolation, &PositionRow::train_context))
    beyond.push_back(pictures.positions(report.extrapolation, context, true));
  return picture_section(
             "Loss by position",
             "How well a byte is predicted after so many bytes of the same text, within "
             "the context of training. A curve that keeps falling makes use of a long "
             "context. Bands are one standard error. Long windows are drawn from position 8 on.",
             within) +
         picture_section(
             "Beyond the training context",
             joined(extrapolation_sentence(report.extrapolation),
                    "Windows four times as long as in training: the positions right "
                    "of the line were never met there. A curve that rises there belongs "
                    "to a layer that should not be used beyond the context of its "
                    "training."),
             beyond);
}

std::string frozen_html(const Report& report, const Pictures& pictures) {
  std::vector<Chart> charts;
  for (const std::string& layer : distinct(report.frozen, &FrozenRow::layer))
    for (const std::int64_t context : distinct(report.frozen, &FrozenRow::train_context))
      charts.push_back(pictures.frozen(report.frozen, layer, context));
  return picture_section("What learning while reading is worth",
                         joined(frozen_sentence(report.frozen),
                                "Each picture shows one trained model on the same bytes, with the "
                                "learning rate of its inner models scaled at test time."),
                         charts);
}

std::string inner_losses_html(const Report& report, const Pictures& pictures) {
  const auto& rows = report.inner_losses;
  std::vector<Chart> charts;
  for (const std::string& layer : distinct(rows, &InnerLossRow::layer))
    for (const std::int64_t context : distinct(rows, &InnerLossRow::train_context))
      for (const std::int64_t block : distinct(rows, &InnerLossRow::block))
        charts.push_back(pictures.inner_losses(rows, layer, context, block));
  return picture_section("Inner losses",
                         "The loss that the inner models minimise while they read, averaged over "
                         "heads, for each block.",
                         charts);
}

std::string latency_html(const Report& report, const Pictures& pictures) {
  std::vector<Chart> charts;
  const auto batches = distinct(report.latency, &LatencyRow::batch);
  for (const std::int64_t batch : batches)
    charts.push_back(pictures.decode_latency(report.latency, batch));
  for (const std::int64_t batch : batches)
    charts.push_back(pictures.prefill_speed(report.latency, batch));
  return picture_section("Speed",
                         joined(latency_sentence(report.latency),
                                "Time to write one byte after a context (of all streams together "
                                "for one byte of each, divided by their number), and the rate at "
                                "which a context is read. Medians of repeated measurements."),
                         charts);
}

std::string samples_html(const std::vector<SampleText>& samples) {
  if (samples.empty()) return "";
  std::string out = heading("What the models write");
  for (const SampleText& sample : samples) {
    out += paragraph(sample.layer + ", training context " + std::to_string(sample.train_context) +
                     (sample.prompt.empty() ? "" : "; the prompt is in bold"));
    out += "<pre><b>" + escape(sample.prompt) + "</b>" + escape(sample.text) + "</pre>\n";
  }
  return out;
}

std::string machine_html(const Machine& machine) {
  std::string out = heading("Machine and command") + "<table class=\"facts\">\n";
  for (const auto& [name, value] : machine_facts(machine))
    out += "<tr><td>" + escape(name) + "</td><td>" +
           (name == "command" ? "<code>" + escape(value) + "</code>" : escape(value)) +
           "</td></tr>\n";
  return out + "</table>\n";
}

/// What was found, then what was done.
std::string summary_html(const Report& report) {
  std::string out;
  for (const std::string& text : summary_sentences(report)) out += paragraph(text);
  for (const std::string& note : report.notes) out += paragraph(note);
  return out;
}

/// All layers of a report but count models, in the order of their first appearance.
std::vector<std::string> layers_of(const Report& report) {
  std::vector<std::string> layers;
  auto add = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names)
      if (std::find(layers.begin(), layers.end(), name) == layers.end()) layers.push_back(name);
  };
  for (const ResultRow& row : report.results)
    if (!is_count_layer(row.layer)) add({row.layer});
  add(distinct(report.curves, &TrainingPoint::layer));
  add(distinct(report.positions, &PositionRow::layer));
  add(distinct(report.extrapolation, &PositionRow::layer));
  add(distinct(report.latency, &LatencyRow::layer));
  return layers;
}

}  // namespace

std::vector<std::string> summary_sentences(const Report& report) {
  std::vector<std::string> sentences = {
      results_sentences(report.results), comparison_sentence(compare_training(report.curves)),
      frozen_sentence(report.frozen), latency_sentence(report.latency),
      extrapolation_sentence(report.extrapolation)};
  std::erase(sentences, "");
  return sentences;
}

std::string report_html(const Report& report) {
  const std::vector<std::string> layers = layers_of(report);
  const Pictures pictures(layers);
  const bool several_contexts = distinct(report.results, &ResultRow::train_context).size() > 1;
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape(report.title) + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<h1>" +
      escape(report.title) + "</h1>\n";
  out += summary_html(report);
  out += results_html(report.results);
  if (several_contexts) out += pictures_html({pictures.results_by_context(report.results)});
  out += comparison_html(compare_training(report.curves));
  out += training_html(report, pictures);
  out += positions_html(report, pictures);
  out += frozen_html(report, pictures);
  out += inner_losses_html(report, pictures);
  out += latency_html(report, pictures);
  out += samples_html(report.samples);
  const std::string limits = limits_text(report.results);
  if (!limits.empty()) out += heading("What cannot be concluded") + paragraph(limits);
  out += glossary_html(layers);
  out += machine_html(report.machine);
  return out + "</body>\n</html>\n";
}

void write_report(const std::filesystem::path& path, const Report& report) {
  write_file_atomically(path, report_html(report));
}

}  // namespace ttt::examples
