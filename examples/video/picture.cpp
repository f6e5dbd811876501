#include "video/picture.hpp"

#include <algorithm>
#include <cmath>

#include "support/format.hpp"
#include "support/html.hpp"
#include "video/kernel.hpp"

namespace ttt::examples {
namespace {

constexpr double image = 80, gap = 14, margin = 16, top = 74, row_height = 112;
constexpr double map_margin = 34;  // more on both sides of a map: its captions are wide
constexpr double chart_width = 500;
constexpr int shades = 24;
constexpr double brightest = 2.5;  // standard deviations of a frame that are white; minus it: black

std::string number(double value) { return brief(value, 5); }

std::string text(double x, double y, const std::string& content, const std::string& style) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + style + ">" + escape(content) +
         "</text>\n";
}

std::string rectangle(double x, double y, double size, const std::string& style) {
  return "<rect x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(size) +
         "\" height=\"" + number(size) + "\" " + style + "/>\n";
}

std::string moved_to(double x, double y, double scale, const std::string& content) {
  return "<g transform=\"translate(" + number(x) + " " + number(y) + ") scale(" + number(scale) +
         ")\">\n" + content + "</g>\n";
}

/// A frame, one unit a pixel: one path for each shade of grey.
std::string draw_frame(const Vector<float>& frame) {
  std::vector<std::string> paths(shades);
  for (Index p = 0; p < pixels; ++p) {
    const double share = (static_cast<double>(frame[p]) / brightest + 1) / 2;
    const int shade = std::clamp(static_cast<int>(share * shades), 0, shades - 1);
    paths[static_cast<std::size_t>(shade)] +=
        "M" + std::to_string(p % side) + " " + std::to_string(p / side) + "h1v1h-1z";
  }
  std::string result;
  for (int i = 0; i < shades; ++i) {
    const std::string& path = paths[static_cast<std::size_t>(i)];
    const std::string grey = std::to_string(i * 255 / (shades - 1));
    if (!path.empty())
      result += "<path fill=\"rgb(" + grey + "," + grey + "," + grey + ")\" d=\"" + path + "\"/>\n";
  }
  return "<g shape-rendering=\"crispEdges\">\n" + result + "</g>\n";
}

/// From the middle of the map to the true displacement, one unit a pixel of motion.
std::string draw_arrow(Displacement d) {
  const double x = static_cast<double>(d.right), y = static_cast<double>(d.down);
  const double length = std::hypot(x, y), middle = diameter / 2.0;
  const double right = x / length, down = y / length, head = 0.42;
  const auto point = [&](double along, double across) {
    return number(middle + x + along * right - across * down) + " " +
           number(middle + y + along * down + across * right);
  };
  const std::string shaft = "M" + number(middle) + " " + number(middle) + "L" + point(-head / 2, 0);
  const std::string tip =
      "M" + point(0.12, 0) + "L" + point(-head, head / 2) + "L" + point(-head, -head / 2) + "z";
  const std::string rim = "stroke=\"#fff\" stroke-linejoin=\"round\" ";
  return "<path d=\"" + shaft + tip + "\" fill=\"#fff\" " + rim + "stroke-width=\"0.32\"/>\n" +
         "<path d=\"" + shaft + "\" stroke=\"#d55e00\" stroke-width=\"0.14\"/>\n<path d=\"" + tip +
         "\" fill=\"#d55e00\"/>\n";
}

/// A map of motion, one unit an entry: blue above zero, the darker the larger; pink below.
std::string draw_map(const Matrix<float>& map, Displacement d) {
  const float largest = std::max(map.cwiseAbs().maxCoeff(), 1e-9f);
  std::string result;
  for (Index row = 0; row < diameter; ++row) {
    for (Index col = 0; col < diameter; ++col) {
      const float entry = map(row, col) / largest;
      const std::string colour = entry < 0 ? "#cc79a7" : "#0072b2";
      result += rectangle(static_cast<double>(col), static_cast<double>(row), 1,
                          "fill=\"" + colour + "\" fill-opacity=\"" +
                              fixed(static_cast<double>(std::abs(entry)), 2) +
                              "\" stroke=\"#bbb\" stroke-width=\"0.03\"");
    }
  }
  return result + draw_arrow(d);
}

std::string pair(Displacement d) {
  return "(" + std::to_string(d.down) + ", " + std::to_string(d.right) + ")";
}

constexpr const char* middle = "text-anchor=\"middle\" font-size=\"11\"";

double column(std::size_t i) { return margin + (image + gap) * static_cast<double>(i); }
double map_left(std::size_t columns) { return column(columns) + map_margin; }

std::string draw_clip_row(const ClipPicture& clip, double y) {
  std::string row;
  for (std::size_t i = 0; i < clip.frames.size(); ++i)
    row += moved_to(column(i), y, image / side, draw_frame(clip.frames[i])) +
           rectangle(column(i), y, image, "fill=\"none\" stroke=\"#bbb\"");
  const double map_at = map_left(clip.frames.size());
  row += moved_to(map_at, y, image / diameter, draw_map(clip.map, clip.displacement));
  return row + text(map_at + image / 2, y + image + 14,
                    "true " + pair(clip.displacement) + ", peak " + pair(peak(clip.map)), middle);
}

}  // namespace

std::string draw_picture(const std::vector<std::string>& column_titles,
                         const std::vector<ClipPicture>& clips, const Chart& errors) {
  const double map_at = map_left(column_titles.size());
  const double width = map_at + image + map_margin + margin;
  const double chart_top = top + row_height * static_cast<double>(clips.size()) + 8;
  // A chart is 440 wide, and a legend of so many lines stands below it.
  const double chart_height =
      chart_width / 440 * (340 + 18 * static_cast<double>(errors.series.size()));
  std::string body =
      text(margin, 26, "Moving shapes: what comes next?", "font-size=\"16\" font-weight=\"bold\"");
  for (std::size_t i = 0; i < column_titles.size(); ++i)
    body += text(column(i) + image / 2, top - 10, column_titles[i], middle);
  body += text(map_at + image / 2, top - 24, "fast kernel of TTT-Conv", middle);
  body += text(map_at + image / 2, top - 10, "(arrow: true motion)", middle);
  for (std::size_t row = 0; row < clips.size(); ++row)
    body += draw_clip_row(clips[row], top + row_height * static_cast<double>(row));
  const std::string size = number(width) + " " + number(chart_top + chart_height + margin);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + size + "\" width=\"" +
         number(width) +
         "\" font-family=\"system-ui, -apple-system, 'DejaVu Sans', sans-serif\" font-size=\"12\""
         " fill=\"#222\" color=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n" +
         body + "<svg x=\"" + number(margin) + "\" y=\"" + number(chart_top) + "\" width=\"" +
         number(chart_width) + "\" height=\"" + number(chart_height) + "\">\n" + svg(errors) +
         "</svg>\n</svg>\n";
}

}  // namespace ttt::examples
