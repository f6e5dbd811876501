#include "perplexity/pictures.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <utility>

#include "perplexity/summary.hpp"
#include "support/format.hpp"

namespace ttt::examples {

namespace {

constexpr const char* position_title = "position in the window (bytes)";

std::string at_context(std::int64_t context) {
  return "training context " + std::to_string(context);
}

std::string streams(std::int64_t batch) {
  return batch == 1 ? "one stream" : std::to_string(batch) + " streams at once";
}

/// Where the bytes at positions [begin, end) stand on a logarithmic axis that counts from one.
double middle(std::int64_t begin, std::int64_t end) {
  return std::sqrt(static_cast<double>(begin + 1) * static_cast<double>(end));
}

void append(Series& series, double x, const MeanWithError& nats) {
  series.x.push_back(x);
  series.y.push_back(bits_from_nats(nats.mean()));
  series.error.push_back(bits_from_nats(nats.standard_error()));
}

/// The first eight positions, where every model is close to guessing, are left out of long windows:
/// they would press all that follows into a corner.
void append(Series& series, const LossByPosition& losses) {
  const bool long_window = !losses.empty() && losses.rbegin()->first.second >= 64;
  for (const auto& [positions, nats] : losses) {
    if (long_window && positions.first < 8) continue;
    append(series, middle(positions.first, positions.second), nats);
  }
}

/// Averages the points within each of 60 bins of equal width in log x.
void append_averaged(Series& series, std::vector<std::pair<double, double>> points) {
  std::erase_if(
      points, [](const auto& point) { return !(point.first > 0) || !std::isfinite(point.second); });
  if (points.empty()) return;
  std::sort(points.begin(), points.end());
  const double first = std::log(points.front().first);
  const double width = std::max(1e-9, (std::log(points.back().first) - first) / 60);
  auto bin_of = [&](double x) { return std::min(59.0, std::floor((std::log(x) - first) / width)); };
  for (std::size_t begin = 0, end = 0; begin < points.size(); begin = end) {
    const double bin = bin_of(points[begin].first);
    double x = 0, y = 0;
    for (; end < points.size() && bin_of(points[end].first) == bin; ++end) {
      x += points[end].first;
      y += points[end].second;
    }
    const auto count = static_cast<double>(end - begin);
    series.x.push_back(x / count);
    series.y.push_back(y / count);
  }
}

void keep(Chart& chart, Series series) {
  if (!series.x.empty()) chart.series.push_back(std::move(series));
}

}  // namespace

Series Pictures::series(const std::string& layer) const {
  const auto place = std::find(layers_.begin(), layers_.end(), layer);
  return {layer, {}, {}, {}, static_cast<int>(std::distance(layers_.begin(), place))};
}

Chart Pictures::results_by_context(const std::vector<ResultRow>& rows) const {
  Chart chart{"Test loss by training context", "training context (bytes)", "bits per byte",
              Scale::log2};
  std::vector<ReferenceLine> counting;
  double worst = 0;
  for (const std::string& layer : distinct(rows, &ResultRow::layer)) {
    std::map<std::int64_t, MeanWithError> by_context;
    for (const ResultRow& row : rows)
      if (row.layer == layer && !std::isnan(row.nats_per_byte))
        by_context[row.train_context].add(row.nats_per_byte, row.stderr_nats);
    Series curve = series(layer);
    for (const auto& [context, nats] : by_context)
      append(curve, static_cast<double>(context), nats);
    if (is_count_layer(layer)) {  // its loss hardly depends on the length of the windows
      if (!curve.y.empty()) counting.push_back({layer, curve.y.back()});
      continue;
    }
    for (const double bits : curve.y) worst = std::max(worst, bits);
    keep(chart, std::move(curve));
  }
  // Yardsticks far above all models would press these together; the best one is always shown.
  std::sort(counting.begin(), counting.end(),
            [](const ReferenceLine& a, const ReferenceLine& b) { return a.at < b.at; });
  for (const ReferenceLine& line : counting)
    if (chart.horizontal.empty() || line.at <= worst) chart.horizontal.push_back(line);
  return chart;
}

template <class Number>
Chart Pictures::training(const std::vector<TrainingPoint>& rows, std::int64_t train_context,
                         Number TrainingPoint::*against, const std::string& x_title) const {
  Chart chart{"Training loss, context " + std::to_string(train_context), x_title, "bits per byte",
              Scale::log10, Scale::log10};
  std::map<std::string, std::vector<std::pair<double, double>>> points;
  for (const TrainingPoint& row : rows)
    if (row.train_context == train_context)
      points[row.layer].emplace_back(static_cast<double>(row.*against),
                                     bits_from_nats(row.nats_per_byte));
  double shortest = std::numeric_limits<double>::infinity();
  for (const auto& [layer, curve] : points)
    shortest = std::min(shortest, std::max_element(curve.begin(), curve.end())->first);
  for (const std::string& layer : distinct(rows, &TrainingPoint::layer)) {
    std::erase_if(points[layer], [&](const auto& point) { return point.first < shortest / 20; });
    Series curve = series(layer);
    append_averaged(curve, std::move(points[layer]));
    keep(chart, std::move(curve));
  }
  return chart;
}

template Chart Pictures::training(const std::vector<TrainingPoint>&, std::int64_t,
                                  std::int64_t TrainingPoint::*, const std::string&) const;
template Chart Pictures::training(const std::vector<TrainingPoint>&, std::int64_t,
                                  double TrainingPoint::*, const std::string&) const;

Chart Pictures::positions(const std::vector<PositionRow>& rows, std::int64_t train_context,
                          bool border) const {
  Chart chart{"Loss by position, " + at_context(train_context), position_title, "bits per byte",
              Scale::log2};
  for (const std::string& layer : distinct(rows, &PositionRow::layer)) {
    LossByPosition losses;
    for (const PositionRow& row : rows)
      if (row.layer == layer && row.train_context == train_context &&
          !(border && row.position_end <= train_context / 8) && !std::isnan(row.nats_per_byte))
        losses[{row.position_begin, row.position_end}].add(row.nats_per_byte, row.stderr_nats);
    Series curve = series(layer);
    append(curve, losses);
    keep(chart, std::move(curve));
  }
  if (border) chart.vertical.push_back({"training context", static_cast<double>(train_context)});
  return chart;
}

Chart Pictures::frozen(const std::vector<FrozenRow>& rows, const std::string& layer,
                       std::int64_t train_context) const {
  Chart chart{layer + ", " + at_context(train_context), position_title, "bits per byte",
              Scale::log2};
  std::vector<double> scales = distinct(rows, &FrozenRow::inner_rate_scale);
  std::sort(scales.begin(), scales.end());
  for (const double scale : scales) {
    const std::string meaning = scale == 0 ? " (no learning)" : scale == 1 ? " (as trained)" : "";
    Series curve{"rate × " + brief(scale) + meaning, {}, {}};
    append(curve, frozen_losses(rows, layer, train_context, scale));
    keep(chart, std::move(curve));
  }
  return chart;
}

Chart Pictures::inner_losses(const std::vector<InnerLossRow>& rows, const std::string& layer,
                             std::int64_t train_context, std::int64_t block) const {
  Chart chart{
      layer + ", context " + std::to_string(train_context) + ", block " + std::to_string(block),
      position_title, "inner loss", Scale::log2};
  const std::pair<const char*, double InnerLossRow::*> kinds[] = {
      {"under W₀", &InnerLossRow::initial},
      {"at mini-batch start", &InnerLossRow::mini_batch_start},
      {"before own step", &InnerLossRow::before},
      {"after own step", &InnerLossRow::after}};
  for (const auto& [name, member] : kinds) {
    LossByPosition losses;
    for (const InnerLossRow& row : rows) {
      if (row.layer != layer || row.train_context != train_context || row.block != block) continue;
      if (!std::isnan(row.*member))
        losses[{row.position_begin, row.position_end}].add(row.*member, not_known);
    }
    Series curve{name, {}, {}};
    for (const auto& [at, loss] : losses) {
      curve.x.push_back(middle(at.first, at.second));
      curve.y.push_back(loss.mean());
    }
    chart.series.push_back(std::move(curve));  // an empty one too: each kind keeps its look
  }
  return chart;
}

void Pictures::add_latency(Chart& chart, const std::vector<LatencyRow>& rows, std::int64_t batch,
                           double LatencyRow::*member, double factor) const {
  for (const std::string& layer : distinct(rows, &LatencyRow::layer)) {
    Series curve = series(layer);
    for (const LatencyRow& row : rows) {
      if (row.layer != layer || row.batch != batch || std::isnan(row.*member)) continue;
      curve.x.push_back(static_cast<double>(row.context));
      curve.y.push_back(factor * row.*member);
    }
    keep(chart, std::move(curve));
  }
}

Chart Pictures::decode_latency(const std::vector<LatencyRow>& rows, std::int64_t batch) const {
  Chart chart{"Writing one byte, " + streams(batch), "context (bytes)", "milliseconds per byte",
              Scale::log2, Scale::log10};
  add_latency(chart, rows, batch, &LatencyRow::decode_seconds_per_token, 1e3);
  return chart;
}

Chart Pictures::prefill_speed(const std::vector<LatencyRow>& rows, std::int64_t batch) const {
  Chart chart{"Reading a context, " + streams(batch), "context (bytes)", "bytes per second",
              Scale::log2, Scale::log10};
  add_latency(chart, rows, batch, &LatencyRow::prefill_tokens_per_second, 1);
  return chart;
}

}  // namespace ttt::examples
