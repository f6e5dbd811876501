#include "perplexity/report.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "perplexity/glossary.hpp"
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
  EXPECT_EQ(where({3, 3, 3.001}, 0.01), "it pays at no position.");
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
  EXPECT_DOUBLE_EQ(mean.standard_error(), 3.5);  // the same bytes: seeds do not shrink it
  mean.add(12, 1);  // 1, 2 and 12 spread more than their errors say: a variance of 37
  EXPECT_DOUBLE_EQ(mean.standard_error(), std::sqrt(37.0 / 3));
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

TEST(ResultsSentences, NameAllTiesAndAverageSeeds) {
  ResultRow lucky = result("lucky", 1.9, 0.001), unlucky = result("lucky", 2.5, 0.001);
  unlucky.seed = 2;
  const std::string text =
      results_sentences({lucky, unlucky, result("a", 2.0, 0.05), result("b", 2.05, 0.05),
                         result("c", 2.06, 0.05), result("d", 2.07, 0.05), result("e", 2.3, 0.05)});
  EXPECT_TRUE(has(text, "The best model is a,")) << text;
  EXPECT_TRUE(has(text,
                  "b (context 1024) with 2.050, which is within two standard errors of the "
                  "best. So are lucky, c and d."))
      << text;  // lucky: 2.2 with an error of 0.3 between its seeds
}

/// Rows of two layers with these decode times at contexts 256, 1024, 4096.
std::vector<LatencyRow> decode_rows(std::int64_t batch, const double (&ttt)[3],
                                    const double (&attention)[3]) {
  std::vector<LatencyRow> rows;
  for (int i = 0; i < 3; ++i) {
    const std::int64_t context = 256 << 2 * i;
    rows.push_back({"ttt-linear", context, batch, 1e5, ttt[i], 100});
    rows.push_back({"attention", context, batch, 1e5, attention[i], 100});
  }
  return rows;
}

TEST(LatencySentence, FindsTheCrossing) {
  // Attention from a half to twice between 1024 and 4096: equal in the middle of the logarithms.
  EXPECT_EQ(latency_sentence(decode_rows(1, {2, 2, 2}, {0.5, 1, 4})),
            "Writing a byte costs less than with attention: with ttt-linear, for one stream from a "
            "context of about 2000 bytes on.");
  EXPECT_TRUE(has(latency_sentence(decode_rows(1, {2, 2, 2}, {0.5, 1, 16})), "about 1400 bytes"));
  // Cheaper at first, then not, then for good.
  EXPECT_TRUE(has(latency_sentence(decode_rows(1, {2, 2, 2}, {3, 1, 4})), "about 2000 bytes"));
}

TEST(LatencySentence, SaysAlwaysAndNever) {
  std::vector<LatencyRow> rows = decode_rows(1, {2, 2, 2}, {3, 3, 3});
  for (const LatencyRow& row : decode_rows(8, {2, 2, 3}, {3, 3, 3})) rows.push_back(row);
  EXPECT_EQ(latency_sentence(rows),
            "Writing a byte costs less than with attention: with ttt-linear, for one stream at "
            "every measured context (256 to 4096 bytes) and for 8 streams at once at none of the "
            "measured contexts (256 to 4096 bytes).");
  EXPECT_EQ(latency_sentence({{"ttt-linear", 256, 1, 1, 1, 1}}), "");
  EXPECT_EQ(latency_sentence({{"ttt-linear", 256, 1, 1, 1, 1}, {"attention", 512, 1, 1, 1, 1}}),
            "");
}

TEST(ExtrapolationSentence, ComparesTheLastPositionsWithinAndBeyond) {
  const std::vector<PositionRow> rows = {{"attention", 64, 1, 0, 32, 3 * bit, 0.01, 9},
                                         {"attention", 64, 1, 32, 64, 2 * bit, 0.01, 9},
                                         {"attention", 64, 1, 64, 96, 3 * bit, 0.01, 9},
                                         {"attention", 64, 1, 96, 128, 4 * bit, 0.01, 9},
                                         {"lstm", 64, 1, 32, 64, 2 * bit, 0.01, 9},
                                         {"lstm", 64, 1, 96, 128, 1.99 * bit, 0.01, 9},
                                         {"within", 64, 1, 32, 64, 2 * bit, 0.01, 9}};
  EXPECT_EQ(extrapolation_sentence(rows),
            "From the end of the training context (positions 32–63) to positions never met in "
            "training (96–127) the bits per byte change: attention +2.000 and lstm −0.010 (within "
            "two standard errors of none).");
  EXPECT_EQ(extrapolation_sentence({}), "");
}

TEST(Glossary, ExplainsTheLayersThatAppear) {
  const std::string html = glossary_html({"lstm", "window-attention"});
  EXPECT_TRUE(has(html, "<dt>lstm</dt>"));
  EXPECT_TRUE(has(html, "<dt>window-attention</dt>"));
  EXPECT_FALSE(has(html, "<dt>attention</dt>"));
  EXPECT_FALSE(has(html, "W₀"));
  for (const char* learning : {"ttt-mlp-t", "hybrid"})
    EXPECT_TRUE(has(glossary_html({learning}), "W₀")) << learning;
}

TEST(Limits, ComeFromTheRows) {
  ResultRow a = result("a", 2), b = result("b", 2);
  a.parameters = 990'000;
  b.parameters = 1'010'000;
  EXPECT_TRUE(has(limits_text({result("count-4", 2), a, b}), "These models have 990k to 1.01M"));
  EXPECT_TRUE(has(limits_text({a, b}), "trained once, with one seed"));
  b.seed = 7;
  EXPECT_TRUE(has(limits_text({a, b}), "trained with 2 seeds"));
  EXPECT_EQ(limits_text({result("count-4", 2)}), "");
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

TEST(Pictures, TrainingBeginsWhereCurvesCanBeToldApart) {
  std::vector<TrainingPoint> points;
  for (int i = 1; i <= 1000; ++i) {
    points.push_back({"short", 256, 1, i, i, 1.0 * i, 0, 2});
    points.push_back({"long", 256, 1, i, i, 100.0 * i, 0, 2});
  }
  const Chart chart = Pictures({"a"}).training(points, 256, &TrainingPoint::seconds, "s");
  ASSERT_EQ(chart.series.size(), 2u);
  for (const Series& curve : chart.series) EXPECT_GE(curve.x.front(), 50);  // 1000 / 20
  EXPECT_LT(chart.series[0].x.front(), 55);
  EXPECT_LT(chart.series[1].x.front(), 201);
}

TEST(Pictures, ALayerLooksTheSameEverywhere) {
  const Pictures pictures({"a", "b"});
  const Chart chart = pictures.positions({{"b", 64, 1, 0, 16, 1.5, 0.1, 10}}, 64, true);
  ASSERT_EQ(chart.series.size(), 1u);
  EXPECT_EQ(chart.series[0].look, 1);
  EXPECT_DOUBLE_EQ(chart.series[0].x.at(0), 4);  // between the first position and the sixteenth
  EXPECT_DOUBLE_EQ(chart.series[0].y.at(0), 1.5 / bit);
  EXPECT_DOUBLE_EQ(chart.series[0].error.at(0), 0.1 / bit);
  EXPECT_EQ(chart.vertical.at(0).at, 64);
  EXPECT_TRUE(pictures.positions({{"b", 64, 1, 0, 8, 1.5, 0.1, 10}}, 64, true).series.empty());
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
  report.curves = {{"ttt-mlp", 1024, 1, 1, 8192, 2, 1e9, 5, 0.1, 1},
                   {"mamba", 1024, 1, 1, 8192, 2, 1e9, 4, 0.1, 1}};
  report.inner_losses = {{"ttt-mlp", 1024, 0, 0, 0, 16, 1, 0.9, 0.8, 0.7}};
  report.latency = {{"ttt-mlp", 1024, 1, 1000, 0.001, 4096},
                    {"ttt-mlp", 1024, 8, 1000, 0.001, 4096}};
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
                           "at context 1024 mamba leads at equal bytes",
                           "bits per byte at equal seconds (2 s)",
                           "<h2>What cannot be concluded",
                           "Writing one byte, one stream",
                           "Writing one byte, 8 streams at once",
                           "Reading a context, 8 streams at once",
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
  for (const char* title : {"<h2>Results", "<h2>Speed", "<h2>Training", "<h2>Inner losses",
                            "<h2>Layers under", "<h2>What cannot be"})
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
