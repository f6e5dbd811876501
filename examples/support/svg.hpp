/// @file
/// Line charts as SVG: axes with ticks, titles, bands of error, a legend below the picture. Series
/// differ in colour, dash and marker, so that they can be told apart in black and white and by
/// people who do not see colours alike (palette of Okabe and Ito, 2008). Points that cannot be
/// drawn (not finite, not positive on a logarithmic axis) are left out.
#pragma once

#include <string>
#include <vector>

namespace ttt::examples {

enum class Scale { linear, log10, log2 };

struct Series {
  std::string name;
  std::vector<double> x, y;
  std::vector<double> error =
      {};         // standard error of y, drawn as a band of y +- error; may be empty
  int look = -1;  // number of colour, dash and marker; -1: its place in the chart
};

/// A straight line across the picture with a word at it: a yardstick or a border.
struct ReferenceLine {
  std::string name;
  double at = 0;
};

struct Chart {
  std::string title, x_title, y_title;  // titles of axes name the unit
  Scale x_scale = Scale::linear, y_scale = Scale::linear;
  std::vector<Series> series = {};
  std::vector<ReferenceLine> horizontal = {}, vertical = {};
};

/// Positions and labels of an axis.
struct Tick {
  double at = 0;
  std::string label;
};

/// At most about `wanted` ticks within [low, high]: steps of 1, 2 or 5 times a power of ten; whole
/// powers on logarithmic axes (with 2 and 5 between them where there is room).
std::vector<Tick> axis_ticks(double low, double high, Scale scale, int wanted);

/// The chart as one `<svg>` element that needs nothing else; it takes the text colour of the page
/// around it, and scales to its width.
std::string svg(const Chart& chart);

}  // namespace ttt::examples
