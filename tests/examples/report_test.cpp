#include "perplexity/report.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "perplexity/pictures.hpp"
#include "perplexity/summary.hpp"

namespace ttt::examples {
namespace {

const double bit = std::log(2.0);

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Rows of one layer for scales 1 and 0, in bits, at positions [0, 8), [8, 64), [64, 128).
std::vector<FrozenRow> frozen_rows(const std::string& layer, std::int64_t context,
                                   const double (&on)[3], const double (&off)[3], double error) {
  const std::int64_t borders[] = {0, 8, 64, 128};
  std::vector<FrozenRow> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back({layer, context, 1, 1, borders[i], borders[i + 1], on[i] * bit, error * bit});
    rows.push_back({layer, context, 1, 0, borders[i], borders[i + 1], off[i] * bit, error * bit});
  }
  return rows;
}

ResultRow result(const std::string& layer, double bits, double error = 0.001) {
  ResultRow row;
  row.layer = layer;
  row.train_context = 1024;
  row.nats_per_byte = bits * bit;
  row.stderr_nats = error * bit;
  return row;
}

TEST(FrozenSentence, SaysWhatLearningIsWorthAndWhere) {
  // Weighted by positions: on (8 * 4 + 56 * 3 + 64 * 2) / 128, off (8 * 4 + 56 * 3.5 + 64 * 3) /
  // 128.
  EXPECT_EQ(
      frozen_sentence(frozen_rows("ttt-mlp", 128, {4, 3, 2}, {4, 3.5, 3}, 0.01)),
      "Learning while reading: ttt-mlp (trained at 128 bytes of context) needs 2.562 bits per "
      "byte with inner learning on and 3.281 with it off, a gain of 0.719, and it pays from "
      "position 8 on.");
}

TEST(FrozenSentence, NamesThePositions) {
  auto where = [](const double(&on)[3], double error) {
    const std::string text = frozen_sentence(frozen_rows("x", 128, on, {3, 3, 3}, error));
    return text.substr(text.find("and it ") + 4);
  };
  EXPECT_EQ(where({2, 2, 2}, 0.01), "it pays at every position.");
  EXPECT_EQ(where({3, 3, 3}, 0.01), "it pays at no position.");
  EXPECT_EQ(where({4, 4, 4}, 0.01), "it pays at no position.");
  EXPECT_EQ(where({2, 3, 3}, 0.01), "it pays at positions 0 to 7.");
  EXPECT_EQ(where({2, 3, 2}, 0.01), "it pays at positions 0 to 7 and from position 64 on.");
  // 0.1 bits better is more than two standard errors of the difference, or not.
  EXPECT_EQ(where({3, 3, 2.9}, 0.035), "it pays from position 64 on.");
  EXPECT_EQ(where({3, 3, 2.9}, 0.036), "it pays at no position.");
}

TEST(FrozenSentence, SaysWhenLearningHarms) {
  EXPECT_TRUE(has(frozen_sentence(frozen_rows("x", 128, {3, 3, 3}, {2, 2, 2}, 0.01)),
                  "needs 3.000 bits per byte with inner learning on and 2.000 with it off, a loss "
                  "of 1.000"));
}

TEST(FrozenSentence, TakesTheLongestContextOfEachLayer) {
  std::vector<FrozenRow> rows = frozen_rows("a", 128, {2, 2, 2}, {3, 3, 3}, 0.01);
  for (const auto& more : {frozen_rows("a", 256, {1, 1, 1}, {3, 3, 3}, 0.01),
                           frozen_rows("b", 128, {2.5, 2.5, 2.5}, {3, 3, 3}, 0.01)})
    rows.insert(rows.end(), more.begin(), more.end());
  const std::string text = frozen_sentence(rows);
  EXPECT_TRUE(has(text, "a (trained at 256 bytes of context) needs 1.000")) << text;
  EXPECT_TRUE(has(text, "; b (trained at 128 bytes of context) needs 2.500")) << text;
  EXPECT_FALSE(has(text, "a (trained at 128")) << text;
}

TEST(FrozenSentence, AveragesSeeds) {
  std::vector<FrozenRow> rows = frozen_rows("a", 128, {2, 2, 2}, {3, 3, 3}, 0.01);
  for (FrozenRow row : frozen_rows("a", 128, {2.5, 2.5, 2.5}, {3, 3, 3}, 0.01)) {
    row.seed = 2;
    rows.push_back(row);
  }
  EXPECT_TRUE(has(frozen_sentence(rows), "needs 2.250 bits per byte"));
}

TEST(FrozenSentence, IsEmptyWithoutAPair) {
  EXPECT_EQ(frozen_sentence({}), "");
  EXPECT_EQ(frozen_sentence({{"a", 128, 1, 1.0, 0, 128, 1, 0.1}}), "");
}

TEST(MeanWithError, CombinesSeeds) {
  MeanWithError mean;
  EXPECT_TRUE(std::isnan(mean.mean()));
  mean.add(1, 3);
  mean.add(2, 4);
  EXPECT_DOUBLE_EQ(mean.mean(), 1.5);
  EXPECT_DOUBLE_EQ(mean.standard_error(), 2.5);
}

TEST(ResultsSentences, CompareWithTheNextAndWithCounting) {
  const std::string text = results_sentences(
      {result("count-3", 2.5), result("count-4", 2.3), result("mamba", 2.2), result("lstm", 2.1)});
  EXPECT_EQ(
      text,
      "The best model is lstm, trained at a context of 1024 bytes: it needs 2.100 ± 0.001 bits "
      "per byte (a perplexity of 4.29 per byte) on text that it was not trained on. The next "
      "architecture is mamba (context 1024) with 2.200. Counting (count-4) reaches 2.300 bits "
      "per byte, which the best model beats by 0.200.");
}

TEST(ResultsSentences, AreHonestAboutTiesAndDefeat) {
  EXPECT_TRUE(has(results_sentences({result("a", 2.0, 0.1), result("b", 2.1, 0.1)}),
                  "b (context 1024) with 2.100, which is within two standard errors of the best."));
  EXPECT_TRUE(has(results_sentences({result("a", 2.5), result("count-4", 2.0)}),
                  "which no trained model beats (the best one is 0.500 behind)"));
  EXPECT_TRUE(has(results_sentences({result("count-4", 2.0)}), "No model is trained yet"));
  EXPECT_EQ(results_sentences({}), "There is no result yet.");
}

TEST(Pictures, AveragesManyTrainingPoints) {
  std::vector<TrainingPoint> points;
  for (int step = 1; step <= 5000; ++step) {
    TrainingPoint point;
    point.layer = "a";
    point.train_context = 256;
    point.tokens = step * 100;
    point.nats_per_byte = (2 + (step % 2 == 0 ? 0.5 : -0.5)) * bit;  // noise around 2 bits
    points.push_back(point);
  }
  const Chart chart = Pictures({"a"}).training(points, 256, &TrainingPoint::tokens, "bytes");
  ASSERT_EQ(chart.series.size(), 1u);
  const Series& curve = chart.series[0];
  EXPECT_GE(curve.x.size(), 30u);
  EXPECT_LE(curve.x.size(), 60u);
  EXPECT_NEAR(curve.y.back(), 2, 0.05);
  EXPECT_TRUE(Pictures({"a"}).training(points, 512, &TrainingPoint::tokens, "b").series.empty());
}

TEST(Pictures, ALayerLooksTheSameEverywhere) {
  const Pictures pictures({"a", "b"});
  const Chart chart = pictures.positions({{"b", 256, 1, 0, 16, 1.5, 0.1, 10}}, 256, true);
  ASSERT_EQ(chart.series.size(), 1u);
  EXPECT_EQ(chart.series[0].look, 1);
  EXPECT_DOUBLE_EQ(chart.series[0].x.at(0), 4);  // between the first position and the sixteenth
  EXPECT_DOUBLE_EQ(chart.series[0].y.at(0), 1.5 / bit);
  EXPECT_DOUBLE_EQ(chart.series[0].error.at(0), 0.1 / bit);
  EXPECT_EQ(chart.vertical.at(0).at, 256);
}

TEST(Pictures, YardsticksAreTheBestCountModelAndThoseAmongTheModels) {
  ResultRow far = result("a", 2.4);
  far.train_context = 4096;
  const Chart chart =
      Pictures({"a"}).results_by_context({result("count-1", 3.6), result("count-3", 2.45),
                                          result("count-4", 2.0), result("a", 2.5), far});
  ASSERT_EQ(chart.series.size(), 1u);
  EXPECT_EQ(chart.series[0].x, (std::vector<double>{1024, 4096}));
  ASSERT_EQ(chart.horizontal.size(), 2u);
  EXPECT_EQ(chart.horizontal[0].name, "count-4");
  EXPECT_EQ(chart.horizontal[1].name, "count-3");
}

Report full_report() {
  Report report;
  report.notes = {"Read from <somewhere>."};
  report.machine = {"a CPU", 2, "GCC", "-O3", "3.4.0", "AVX2", 2, "perplexity --text 'a b'"};
  report.results = {result("count-4", 2.3), result("ttt-mlp", 2.2)};
  report.results.push_back(result("ttt-mlp", 2.1));
  report.results.back().train_context = 2048;
  report.positions = {{"ttt-mlp", 1024, 1, 0, 16, 1.5, 0.1, 10}};
  report.extrapolation = {{"ttt-mlp", 1024, 1, 1024, 2048, 1.5, 0.1, 10}};
  report.frozen = frozen_rows("ttt-mlp", 128, {4, 3, 2}, {4, 3.5, 3}, 0.01);
  report.curves = {{"ttt-mlp", 1024, 1, 1, 8192, 2, 1e9, 5, 0.1, 1}};
  report.inner_losses = {{"ttt-mlp", 1024, 0, 0, 0, 16, 1, 0.9, 0.8, 0.7}};
  report.latency = {{"ttt-mlp", 1024, 1, 1000, 0.001, 4096}};
  report.samples = {{"ttt-mlp", 1024, "<p>", "tongue & \xFF cheek"}};
  return report;
}

TEST(Report, ShowsEveryPartAndNeedsNoOtherFile) {
  const std::string html = report_html(full_report());
  for (const char* part : {"The best model is ttt-mlp",
                           "Learning while reading: ttt-mlp",
                           "Read from &lt;somewhere&gt;.",
                           "Test loss by training context",
                           "Loss by position, training context 1024",
                           "Beyond the training context",
                           "What learning while reading is worth",
                           "rate × 0 (no learning)",
                           "bytes trained on",
                           "training time (seconds)",
                           "floating-point operations",
                           "ttt-mlp, context 1024, block 0",
                           "Generating one byte",
                           "Reading a context",
                           "<b>&lt;p&gt;</b>tongue &amp; \xEF\xBF\xBD cheek",
                           "What the words mean",
                           "perplexity --text &#39;a b&#39;",
                           "instruction sets AVX2",
                           "prefers-color-scheme: dark",
                           "@media print",
                           "name=\"viewport\""})
    EXPECT_TRUE(has(html, part)) << part;
  for (const char* outside : {"href=", "src=", "@import", "url(", "<script"})
    EXPECT_FALSE(has(html, outside)) << outside;
}

TEST(Report, LeavesOutWhatIsNotThere) {
  Report report;
  const std::string html = report_html(report);
  EXPECT_TRUE(has(html, "There is no result yet."));
  EXPECT_FALSE(has(html, "<svg"));
  for (const char* title : {"<h2>Results", "<h2>Speed", "<h2>Training", "<h2>Inner losses"})
    EXPECT_FALSE(has(html, title)) << title;
}

TEST(Report, IsWrittenAsAFile) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "ttt_report_test.html";
  write_report(path, full_report());
  EXPECT_EQ(std::filesystem::file_size(path), report_html(full_report()).size());
  std::filesystem::remove(path);
  EXPECT_THROW(write_report("/no/such/folder/report.html", Report{}), std::runtime_error);
}

}  // namespace
}  // namespace ttt::examples
