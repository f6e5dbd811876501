#include "support/svg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "support/format.hpp"
#include "support/html.hpp"

namespace ttt::examples {

namespace {

// One unit is a CSS pixel at a width of 440: the text stays readable at the width of a phone.
constexpr double width = 440, plot_left = 50, plot_right = 428, plot_height = 240, line_height = 18;

constexpr const char* colours[] = {"#0072b2", "#d55e00",      "#009e73", "#cc79a7",
                                   "#e69f00", "currentColor", "#56b4e9", "#8c7fd6"};
constexpr const char* dashes[] = {"none", "7 3", "2 2.5", "9 3 2 3", "14 4", "5 2 2 2 2 2"};

template <std::size_t N>
const char* cycled(const char* const (&list)[N], std::size_t i) {
  return list[i % N];
}

std::string number(double value) { return fixed(value, 1); }

/// A marker of series `i` around (x, y), about 7 units wide.
std::string marker(std::size_t i, double x, double y) {
  static constexpr const char* shapes[] = {"m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z",
                                           "m-3 -3h6v6h-6z",
                                           "m0 -3.8l3.6 6.4h-7.2z",
                                           "m0 -4.2l4.2 4.2l-4.2 4.2l-4.2 -4.2z",
                                           "m-3 -3l6 6m0 -6l-6 6",
                                           "m-3.8 0h7.6m-3.8 -3.8v7.6",
                                           "m0 3.8l3.6 -6.4h-7.2z"};
  const char* colour = cycled(colours, i);
  return "<path d=\"M" + number(x) + " " + number(y) + cycled(shapes, i) + "\" fill=\"" + colour +
         "\" stroke=\"" + colour + "\" stroke-width=\"1.5\"/>\n";
}

std::string line(double x1, double y1, double x2, double y2, const std::string& style) {
  return "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) +
         "\" y2=\"" + number(y2) + "\" stroke=\"currentColor\" " + style + "/>\n";
}

std::string label(double x, double y, const char* anchor, const std::string& content,
                  const std::string& style = "") {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\" " +
         style + ">" + escape(content) + "</text>\n";
}

/// Values to coordinates: `low` lies at `from`, `high` at `to`.
struct Axis {
  Scale scale = Scale::linear;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  double from = 0, to = 1;

  bool can_show(double value) const {
    return std::isfinite(value) && (scale == Scale::linear || value > 0);
  }
  double warped(double value) const { return scale == Scale::linear ? value : std::log2(value); }
  double unwarped(double value) const { return scale == Scale::linear ? value : std::exp2(value); }
  double at(double value) const {
    const double share = (warped(value) - warped(low)) / (warped(high) - warped(low));
    return from + share * (to - from);
  }
  void include(double value) {
    if (!can_show(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }

  /// Room of `share` of the range at both ends; some room where all values are one.
  void widen(double share) {
    if (empty()) {
      low = scale == Scale::linear ? 0 : 1;
      high = scale == Scale::linear ? 1 : 10;
      return;
    }
    double margin = share * (warped(high) - warped(low));
    const double least = scale == Scale::linear ? 1e-9 * std::max(1.0, std::abs(high)) : 1e-9;
    if (warped(high) - warped(low) < least)
      margin = scale == Scale::linear && high != 0 ? 0.1 * std::abs(high) : 1;
    const double below = warped(low) - margin, above = warped(high) + margin;
    low = unwarped(below);
    high = unwarped(above);
  }
};

/// Whole multiples of `step` within [low, high].
std::vector<double> multiples(double low, double high, double step) {
  std::vector<double> values;
  const double slack = 1e-9 * (high - low);
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i)
    values.push_back(i * step + 0.0);  // + 0.0 turns -0 into 0
  return values;
}

std::vector<Tick> linear_ticks(double low, double high, int wanted) {
  const double rough = (high - low) / std::max(1, wanted);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * (1 - 1e-9)) step = factor * power;
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  std::vector<Tick> ticks;
  for (const double value : multiples(low, high, step)) {
    const bool large = std::max(std::abs(low), std::abs(high)) >= 1e4;
    ticks.push_back({value, large ? compact(value, 4) : fixed(value, digits)});
  }
  return ticks;
}

std::vector<Tick> power_ticks(double low, double high, double base, int wanted) {
  const double first = std::log2(low) / std::log2(base), last = std::log2(high) / std::log2(base);
  double step = 1;
  while ((last - first) / step > wanted) ++step;
  std::vector<Tick> ticks;
  for (const double exponent : multiples(first, last, step)) {
    const double value = std::pow(base, exponent);
    ticks.push_back(
        {value, base == 2 && value >= 1 && value < 1e6 ? fixed(value, 0) : compact(value)});
  }
  return ticks;
}

/// The `factors` of each power of ten.
std::vector<Tick> decade_ticks(double low, double high, const std::vector<double>& factors) {
  std::vector<Tick> ticks;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10)
    for (const double factor : factors)
      if (const double value = factor * power; value >= low && value <= high)
        ticks.push_back({value, compact(value)});
  return ticks;
}

/// One chart on its way to text.
class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    x_.scale = chart.x_scale;
    y_.scale = chart.y_scale;
    for (std::size_t i = 0; i < chart.series.size(); ++i) include(chart.series[i]);
    has_points_ = !x_.empty();
    for (const ReferenceLine& reference : chart.horizontal) y_.include(reference.at);
    for (const ReferenceLine& reference : chart.vertical) x_.include(reference.at);
    x_.widen(0.02);
    y_.widen(0.05);
    x_.from = plot_left;
    x_.to = plot_right;
    plot_top_ = (chart.title.empty() ? 8 : 28) + (chart.y_title.empty() ? 0 : line_height);
    plot_bottom_ = plot_top_ + plot_height;
    y_.from = plot_bottom_;
    y_.to = plot_top_;
  }

  std::string text() {
    if (!chart_.title.empty())
      body_ += label(6, 18, "start", chart_.title,
                     "class=\"title\" font-size=\"14\" font-weight=\"bold\"");
    draw_axes();
    draw_reference_lines();
    for (std::size_t i = 0; i < chart_.series.size(); ++i) draw_band(i);
    for (std::size_t i = 0; i < chart_.series.size(); ++i) draw_series(i);
    draw_reference_labels();
    if (!has_points_)
      body_ += label((plot_left + plot_right) / 2, (plot_top_ + plot_bottom_) / 2, "middle",
                     "no data", "font-style=\"italic\"");
    const double height = draw_legend();
    const std::string size = number(width) + " " + number(height);
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + size +
           "\" width=\"100%\" role=\"img\" aria-label=\"" + escape(chart_.title) +
           "\" font-family=\"system-ui, -apple-system, 'DejaVu Sans', sans-serif\""
           " font-size=\"12\" fill=\"currentColor\">\n" +
           body_ + "</svg>\n";
  }

 private:
  using Points = std::vector<std::pair<double, double>>;

  bool can_show(const Series& series, std::size_t i) const {
    return x_.can_show(series.x[i]) && y_.can_show(series.y[i]);
  }

  /// The number of colour, dash and marker of a series.
  std::size_t look(std::size_t index) const {
    const int wanted = chart_.series[index].look;
    return wanted >= 0 ? static_cast<std::size_t>(wanted) : index;
  }

  static std::size_t size(const Series& series) {
    return std::min(series.x.size(), series.y.size());
  }

  /// The error of point `i`, 0 where none is known.
  static double error(const Series& series, std::size_t i) {
    const bool known = i < series.error.size() && std::isfinite(series.error[i]);
    return known ? std::abs(series.error[i]) : 0;
  }

  void include(const Series& series) {
    for (std::size_t i = 0; i < size(series); ++i) {
      if (!can_show(series, i)) continue;
      x_.include(series.x[i]);
      y_.include(series.y[i]);
      y_.include(series.y[i] - error(series, i));
      y_.include(series.y[i] + error(series, i));
    }
  }

  static std::string path(const Points& points) {
    std::string d;
    for (const auto& [x, y] : points) d += (d.empty() ? "M" : "L") + number(x) + " " + number(y);
    return d;
  }

  void draw_axes() {
    const std::string grid = "stroke-width=\"0.6\" stroke-opacity=\"0.18\"";
    for (const Tick& tick : axis_ticks(x_.low, x_.high, x_.scale, 6)) {
      const double x = x_.at(tick.at);
      body_ += line(x, plot_top_, x, plot_bottom_ + 4, grid);
      body_ += label(x, plot_bottom_ + 17, "middle", tick.label);
    }
    for (const Tick& tick : axis_ticks(y_.low, y_.high, y_.scale, 6)) {
      const double y = y_.at(tick.at);
      body_ += line(plot_left - 4, y, plot_right, y, grid);
      body_ += label(plot_left - 7, y + 4, "end", tick.label);
    }
    body_ += line(plot_left, plot_top_, plot_left, plot_bottom_, "stroke-width=\"1\"");
    body_ += line(plot_left, plot_bottom_, plot_right, plot_bottom_, "stroke-width=\"1\"");
    body_ += label(6, plot_top_ - 7, "start", chart_.y_title);
    body_ += label((plot_left + plot_right) / 2, plot_bottom_ + 35, "middle", chart_.x_title);
  }

  void draw_reference_lines() {
    const std::string style = "stroke-width=\"1\" stroke-opacity=\"0.7\" stroke-dasharray=\"1 3\"";
    for (const ReferenceLine& reference : chart_.horizontal)
      if (const double y = y_.at(reference.at); y_.can_show(reference.at))
        body_ += line(plot_left, y, plot_right, y, style);
    for (const ReferenceLine& reference : chart_.vertical)
      if (const double x = x_.at(reference.at); x_.can_show(reference.at))
        body_ += line(x, plot_top_, x, plot_bottom_, style);
  }

  /// Above the series, with a rim in the colour of the page.
  void draw_reference_labels() {
    const std::string style =
        "font-size=\"10.5\" style=\"paint-order:stroke;stroke:var(--page,#fff);stroke-width:3px\"";
    double right = plot_right;  // side by side, so that the labels of near lines do not collide
    for (const ReferenceLine& reference : chart_.horizontal) {
      if (!y_.can_show(reference.at)) continue;
      body_ += label(right, y_.at(reference.at) + 3.5, "end", reference.name, style);
      right -= 6.5 * static_cast<double>(display_width(reference.name)) + 10;
    }
    for (const ReferenceLine& reference : chart_.vertical) {
      if (!x_.can_show(reference.at)) continue;
      const double x = x_.at(reference.at);
      const bool left_half = x < (plot_left + plot_right) / 2;
      body_ += label(x + (left_half ? 4 : -4), plot_top_ + 10, left_half ? "start" : "end",
                     reference.name, style);
    }
  }

  void draw_band(std::size_t index) {
    const Series& series = chart_.series[index];
    Points upper, lower;
    bool visible = false;
    for (std::size_t i = 0; i < size(series); ++i) {
      if (!can_show(series, i)) continue;
      const double x = x_.at(series.x[i]), e = error(series, i);
      visible = visible || e > 0;
      upper.emplace_back(x, y_.at(series.y[i] + e));
      // On a logarithmic axis the lower end may not exist: then the band ends at the axis.
      const double low = series.y[i] - e;
      lower.emplace_back(x, y_.can_show(low) ? y_.at(low) : plot_bottom_);
    }
    if (!visible) return;
    const char* colour = cycled(colours, look(index));
    if (upper.size() == 1) {  // a band of no width: an error bar
      body_ += "<path d=\"" + path({upper[0], lower[0]}) + "\" stroke=\"" + colour +
               "\" stroke-width=\"1.5\"/>\n";
      return;
    }
    upper.insert(upper.end(), lower.rbegin(), lower.rend());
    body_ += "<path d=\"" + path(upper) + "Z\" fill=\"" + colour + "\" fill-opacity=\"0.18\"/>\n";
  }

  void draw_series(std::size_t index) {
    const Series& series = chart_.series[index];
    Points points;
    for (std::size_t i = 0; i < size(series); ++i)
      if (can_show(series, i)) points.emplace_back(x_.at(series.x[i]), y_.at(series.y[i]));
    if (points.empty()) return;
    body_ += stroke(look(index), path(points));
    // Markers at least 30 apart where points are many, at different places on different lines.
    const bool sparse = points.size() <= 14;
    double next = points.front().first + static_cast<double>(look(index) % 5) * 6;
    for (const auto& [x, y] : points) {
      if (!sparse && x < next) continue;
      body_ += marker(look(index), x, y);
      next = x + 30;
    }
  }

  static std::string stroke(std::size_t look, const std::string& d) {
    return "<path d=\"" + d + "\" fill=\"none\" stroke=\"" + cycled(colours, look) +
           "\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke-dasharray=\"" +
           cycled(dashes, look) + "\"/>\n";
  }

  /// Draws it in one column or two, and returns the height of the whole picture.
  double draw_legend() {
    std::size_t longest = 0, entries = 0;
    for (const Series& series : chart_.series)
      longest = std::max(longest, display_width(series.name));
    const std::size_t columns = longest <= 22 ? 2 : 1;
    const double top = plot_bottom_ + (chart_.x_title.empty() ? 28 : 44) + line_height / 2;
    for (std::size_t i = 0; i < chart_.series.size(); ++i) {
      if (chart_.series[i].name.empty()) continue;
      const double x = plot_left + static_cast<double>(entries % columns) * (width - plot_left) / 2;
      const double y = top + static_cast<double>(entries / columns) * line_height;
      body_ += stroke(look(i), path({{x, y}, {x + 34, y}}));
      body_ += marker(look(i), x + 17, y);
      body_ += label(x + 41, y + 4, "start", chart_.series[i].name);
      ++entries;
    }
    return top + static_cast<double>((entries + columns - 1) / columns) * line_height;
  }

  const Chart& chart_;
  Axis x_, y_;
  double plot_top_ = 0, plot_bottom_ = 0;
  bool has_points_ = false;
  std::string body_;
};

}  // namespace

std::vector<Tick> axis_ticks(double low, double high, Scale scale, int wanted) {
  if (!(low < high) || (scale != Scale::linear && !(low > 0))) return {};
  const double ratio = high / low;
  if (scale == Scale::linear || ratio < 2.5) return linear_ticks(low, high, wanted);
  if (scale == Scale::log2)
    return ratio < 4 ? linear_ticks(low, high, wanted) : power_ticks(low, high, 2, wanted);
  if (ratio < 8) return decade_ticks(low, high, {1, 1.5, 2, 2.5, 3, 4, 5, 6, 8});
  const std::vector<Tick> ticks = power_ticks(low, high, 10, wanted);
  return ticks.size() > 2 ? ticks : decade_ticks(low, high, {1, 2, 5});
}

std::string svg(const Chart& chart) { return Drawing(chart).text(); }

}  // namespace ttt::examples
