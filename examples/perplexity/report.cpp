#include "perplexity/report.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

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

constexpr const char* terms = R"html(<h2>What the words mean</h2>
<dl>
<dt>Bits per byte</dt>
<dd>How surprised a model is by the next byte of a text that it was not trained on, on average:
minus the logarithm to base two of the probability that it gave to that byte. Knowing nothing costs
8 bits; less is better. Nats per byte are the same in natural logarithms (one bit is 0.693 nats).
± is the standard error of the mean.</dd>
<dt>Perplexity per byte</dt>
<dd>2 to the power of the bits per byte: the number of equally likely bytes that would be as hard
to choose from.</dd>
<dt>Context</dt>
<dd>How many bytes of a text a model sees in one piece. Papers count tokens of about four bytes
each: a context of 4096 bytes is about 1024 of their tokens.</dd>
<dt>Test-time training (TTT)</dt>
<dd>A layer whose memory is a small model. While the layer reads, that inner model learns from every
piece of text by gradient descent, also in use, after training is over. <i>ttt-linear</i> has a
linear inner model, <i>ttt-mlp</i> one with a hidden layer; a name that ends in <i>-t</i> is the
variant with a Transformer's surroundings.</dd>
<dt>Rate × 0, 0.5, 1, 2</dt>
<dd>The same trained model reads the same bytes with the learning rate of its inner models scaled.
With rate × 0 nothing is learned while reading: the distance between that curve and rate × 1 is what
learning while reading is worth.</dd>
<dt>Inner loss</dt>
<dd>What the inner models minimise. W₀ are the weights with which every text begins. If the loss
before a token's own step lies below that under W₀, what was learned from earlier tokens helps with
later ones.</dd>
<dt>count-1 … count-4</dt>
<dd>No neural network: how often each byte followed the last 1 to 4 bytes in the training text
(smoothed by the method of Kneser and Ney). The yardstick that a model must beat to have learned
more than spelling.</dd>
<dt>State</dt>
<dd>The memory that a model carries from one byte to the next while it reads one text.</dd>
</dl>
)html";

std::string heading(const std::string& text) { return "<h2>" + escape(text) + "</h2>\n"; }
std::string paragraph(const std::string& text) { return "<p>" + escape(text) + "</p>\n"; }

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

std::string results_html(const std::vector<ResultRow>& results) {
  if (results.empty()) return "";
  std::vector<std::vector<std::string>> rows;
  for (const ResultRow& row : results) {
    const std::string error =
        std::isnan(row.stderr_nats) ? "" : " ± " + fixed(bits_from_nats(row.stderr_nats), 4);
    rows.push_back({row.layer, std::to_string(row.train_context),
                    fixed(row.bits_per_byte(), 4) + error, fixed(row.perplexity_per_byte(), 3),
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
                         "bytes read, against time, and against arithmetic where it was counted.",
                         charts);
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
         picture_section("Beyond the training context",
                         "The same at positions that no model met in training (right of the line).",
                         beyond);
}

std::string frozen_html(const Report& report, const Pictures& pictures) {
  std::vector<Chart> charts;
  for (const std::string& layer : distinct(report.frozen, &FrozenRow::layer))
    for (const std::int64_t context : distinct(report.frozen, &FrozenRow::train_context))
      charts.push_back(pictures.frozen(report.frozen, layer, context));
  const std::string sentence = frozen_sentence(report.frozen);
  return picture_section("What learning while reading is worth",
                         (sentence.empty() ? "" : sentence + " ") +
                             "Each picture shows one trained model on the same bytes, with the "
                             "learning rate of its inner models scaled at test time.",
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
  return picture_section(
      "Speed",
      "Time to generate one byte after a context, and the rate at which a "
      "context is read.",
      {pictures.decode_latency(report.latency), pictures.prefill_speed(report.latency)});
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

std::string summary_html(const Report& report) {
  std::string text = results_sentences(report.results);
  const std::string frozen = frozen_sentence(report.frozen);
  std::string out = paragraph(frozen.empty() ? text : text + " " + frozen);
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

std::string report_html(const Report& report) {
  const Pictures pictures(layers_of(report));
  const bool several_contexts = distinct(report.results, &ResultRow::train_context).size() > 1;
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape(report.title) + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<h1>" +
      escape(report.title) + "</h1>\n";
  out += summary_html(report);
  out += results_html(report.results);
  if (several_contexts) out += pictures_html({pictures.results_by_context(report.results)});
  out += positions_html(report, pictures);
  out += frozen_html(report, pictures);
  out += training_html(report, pictures);
  out += inner_losses_html(report, pictures);
  out += latency_html(report, pictures);
  out += samples_html(report.samples);
  out += terms;
  out += machine_html(report.machine);
  return out + "</body>\n</html>\n";
}

void write_report(const std::filesystem::path& path, const Report& report) {
  write_file_atomically(path, report_html(report));
}

}  // namespace ttt::examples
