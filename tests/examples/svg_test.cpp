#include "support/svg.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <regex>
#include <set>
#include <string>

namespace ttt::examples {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++found;
  return found;
}

std::vector<std::string> labels(double low, double high, Scale scale, int wanted = 6) {
  std::vector<std::string> result;
  for (const Tick& tick : axis_ticks(low, high, scale, wanted)) result.push_back(tick.label);
  return result;
}

using Labels = std::vector<std::string>;

TEST(Ticks, StandAtRoundNumbers) {
  EXPECT_EQ(labels(0, 1, Scale::linear), (Labels{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(-1, 1, Scale::linear, 4), (Labels{"-1.0", "-0.5", "0.0", "0.5", "1.0"}));
  EXPECT_EQ(labels(2.031, 2.058, Scale::linear, 3), (Labels{"2.04", "2.05"}));
  EXPECT_EQ(labels(0, 3e6, Scale::linear, 3), (Labels{"0", "1M", "2M", "3M"}));
  EXPECT_EQ(labels(900, 2e6, Scale::log10), (Labels{"1k", "10k", "100k", "1M"}));
  EXPECT_EQ(labels(9, 200, Scale::log10), (Labels{"10", "20", "50", "100", "200"}));
  EXPECT_EQ(labels(2.2, 8.1, Scale::log10), (Labels{"2.5", "3", "4", "5", "6", "8"}));
  EXPECT_EQ(labels(1, 4096, Scale::log2, 4), (Labels{"1", "8", "64", "512", "4096"}));
  EXPECT_TRUE(labels(1, 1, Scale::linear).empty());
  EXPECT_TRUE(labels(-1, 1, Scale::log10).empty());
}

TEST(Ticks, AreFewAndWithinTheRange) {
  for (const Scale scale : {Scale::linear, Scale::log10, Scale::log2}) {
    for (const double low : {1e-6, 0.3, 1.0, 12345.0}) {
      for (const double ratio : {1.001, 1.5, 7.0, 60.0, 1e3, 1e12}) {
        const double high = low * ratio;
        const std::vector<Tick> ticks = axis_ticks(low, high, scale, 6);
        EXPECT_GE(ticks.size(), 2u) << low << " to " << high;
        EXPECT_LE(ticks.size(), 8u) << low << " to " << high;
        for (const Tick& tick : ticks) {
          EXPECT_GE(tick.at, low - 1e-6 * (high - low));
          EXPECT_LE(tick.at, high + 1e-6 * (high - low));
        }
      }
    }
  }
}

/// All coordinates of a picture are numbers within its view box.
void expect_drawable(const std::string& picture) {
  EXPECT_EQ(picture.find("nan"), std::string::npos) << picture;
  EXPECT_EQ(picture.find("inf"), std::string::npos) << picture;
  std::smatch box;
  ASSERT_TRUE(std::regex_search(picture, box, std::regex("viewBox=\"0 0 ([0-9.]+) ([0-9.]+)\"")));
  const double width = std::stod(box[1]), height = std::stod(box[2]);
  const std::regex point("[ML](-?[0-9.]+) (-?[0-9.]+)");
  for (std::sregex_iterator it(picture.begin(), picture.end(), point), end; it != end; ++it) {
    EXPECT_GE(std::stod((*it)[1]), 0);
    EXPECT_LE(std::stod((*it)[1]), width);
    EXPECT_GE(std::stod((*it)[2]), 0);
    EXPECT_LE(std::stod((*it)[2]), height);
  }
}

TEST(Svg, DrawsWhateverThereIs) {
  for (const Scale x : {Scale::linear, Scale::log10, Scale::log2}) {
    for (const Scale y : {Scale::linear, Scale::log10}) {
      expect_drawable(svg({"nothing", "x", "y", x, y}));
      expect_drawable(svg({"empty", "x", "y", x, y, {{"a", {}, {}}}}));
      expect_drawable(svg({"one", "x", "y", x, y, {{"a", {3}, {2}, {0.5}}}}));
      expect_drawable(svg({"zero", "x", "y", x, y, {{"a", {0}, {0}}}}));
      expect_drawable(svg({"flat", "x", "y", x, y, {{"a", {1, 2, 3}, {2, 2, 2}}}}));
      expect_drawable(svg({"signs", "x", "y", x, y, {{"a", {-1, 0, 5}, {-2, 0, 7}, {9, 9, 9}}}}));
      expect_drawable(svg({"ends", "x", "y", x, y, {{"a", {1, 2, 3}, {2, 2}}}}));
      expect_drawable(svg({"odd",
                           "x",
                           "y",
                           x,
                           y,
                           {{"a", {1, 2, nan, 4}, {nan, 3, 3, infinity}, {nan, nan, 1, 1}}},
                           {{"h", 5}, {"none", nan}},
                           {{"v", 7}, {"none", -infinity}}}));
    }
  }
  EXPECT_NE(svg({"nothing", "x", "y"}).find("no data"), std::string::npos);
}

TEST(Svg, LeavesOutPointsThatAreNotNumbers) {
  const std::string with =
      svg({"t", "x", "y", Scale::linear, Scale::linear, {{"a", {1, 2, 3}, {1, nan, 3}}}});
  const std::string without =
      svg({"t", "x", "y", Scale::linear, Scale::linear, {{"a", {1, 3}, {1, 3}}}});
  EXPECT_EQ(with, without);
}

TEST(Svg, HigherValuesStandHigher) {
  const std::string picture =
      svg({"", "", "", Scale::linear, Scale::log10, {{"", {0, 1}, {1, 100}}}});
  std::smatch line;
  ASSERT_TRUE(std::regex_search(
      picture, line, std::regex("d=\"M([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)\" fill=\"none\"")));
  EXPECT_LT(std::stod(line[1]), std::stod(line[3]));
  EXPECT_GT(std::stod(line[2]), std::stod(line[4]));
}

TEST(Svg, SeriesDifferWithoutColour) {
  Chart chart{"t", "x", "y"};
  for (int i = 0; i < 20; ++i) chart.series.push_back({"s", {1}, {1}});
  const std::string picture = svg(chart);
  // In the legend each entry is a line with a dash and a marker with a shape.
  const std::regex entry("stroke-dasharray=\"([^\"]*)\"/>\n<path d=\"M[0-9.]+ [0-9.]+([^\"]*)\"");
  std::set<std::string> looks;
  for (std::sregex_iterator it(picture.begin(), picture.end(), entry), end; it != end; ++it)
    looks.insert((*it)[1].str() + (*it)[2].str());
  EXPECT_EQ(looks.size(), 20u);
}

TEST(Svg, ALookCanBeChosen) {
  auto drawn = [](Series series) {
    return svg({"t", "x", "y", Scale::linear, Scale::linear, {std::move(series)}});
  };
  EXPECT_EQ(drawn({"a", {1}, {1}, {}, 0}), drawn({"a", {1}, {1}}));
  EXPECT_NE(drawn({"a", {1}, {1}, {}, 3}), drawn({"a", {1}, {1}}));
}

TEST(Svg, BandsOnlyWhereAnErrorIsKnown) {
  auto drawn = [](std::vector<double> error) {
    return svg({"t", "x", "y", Scale::linear, Scale::linear, {{"a", {1, 2}, {1, 2}, error}}});
  };
  EXPECT_EQ(count(drawn({0.1, 0.1}), "fill-opacity"), 1u);
  EXPECT_EQ(count(drawn({0.1, nan}), "fill-opacity"), 1u);
  EXPECT_EQ(count(drawn({}), "fill-opacity"), 0u);
  EXPECT_EQ(count(drawn({nan, nan}), "fill-opacity"), 0u);
}

TEST(Svg, EscapesNamesAndNeedsNothingElse) {
  const std::string picture = svg({"a < b & \"c\"",
                                   "x<",
                                   "y>",
                                   Scale::linear,
                                   Scale::linear,
                                   {{"<script>", {1}, {1}}},
                                   {{"h<", 1}},
                                   {{"v<", 1}}});
  EXPECT_EQ(picture.find("<script>"), std::string::npos);
  EXPECT_NE(picture.find("a &lt; b &amp; &quot;c&quot;"), std::string::npos);
  EXPECT_EQ(picture.find("href"), std::string::npos);
  EXPECT_EQ(picture.find("url("), std::string::npos);
  EXPECT_EQ(count(picture, "<text"), count(picture, "</text>"));
}

}  // namespace
}  // namespace ttt::examples
