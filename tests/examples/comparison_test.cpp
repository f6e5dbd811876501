// What runs had reached at equal bytes, FLOPs and seconds, against numbers worked out by hand.
#include "perplexity/comparison.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace ttt::examples {
namespace {

const double bit = std::log(2.0);

/// 100 points of 1000 bytes each: the loss of point i is `bits(i)`.
template <class Bits>
std::vector<TrainingPoint> run(const std::string& layer, double seconds, double flops, Bits&& bits,
                               std::uint64_t seed = 1, int points = 100) {
  std::vector<TrainingPoint> curve;
  for (int i = 1; i <= points; ++i)
    curve.push_back({layer, 256, seed, i, 1000 * i, seconds * i, flops * i, bits(i) * bit, 0.1, 1});
  return curve;
}

std::vector<TrainingPoint> together(const std::vector<std::vector<TrainingPoint>>& runs) {
  std::vector<TrainingPoint> all;
  for (const auto& one : runs) all.insert(all.end(), one.begin(), one.end());
  return all;
}

const ComparisonRow& find(const std::vector<ComparisonRow>& rows, const std::string& layer,
                          const std::string& equality) {
  for (const ComparisonRow& row : rows)
    if (row.layer == layer && row.equality == equality) return row;
  throw std::invalid_argument("no row of " + layer + ", " + equality);
}

TEST(Comparison, TakesTheLargestBudgetThatAllReached) {
  // b needs twice the time and three times the arithmetic, and is better after as many bytes.
  const auto rows =
      compare_training(together({run("a", 1, 2, [](int i) { return 5 - 0.03 * i; }),
                                 run("b", 2, 6, [](int i) { return 4 - 0.02 * i; })}));
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(find(rows, "a", "bytes").budget, 100000);
  EXPECT_EQ(find(rows, "b", "seconds").budget, 100);
  EXPECT_EQ(find(rows, "b", "flops").budget, 200);
  EXPECT_DOUBLE_EQ(find(rows, "a", "seconds").share_of_training, 1);
  EXPECT_DOUBLE_EQ(find(rows, "b", "seconds").share_of_training, 0.5);
  EXPECT_NEAR(find(rows, "b", "flops").share_of_training, 1.0 / 3, 1e-12);
  // The last tenth: of a the points 91 to 100, of b at 100 seconds 46 to 50, at 200 FLOPs (point
  // 33.3) only 31 to 33 lie within a tenth, so the last four, 30 to 33.
  EXPECT_NEAR(find(rows, "a", "bytes").nats_per_byte, (5 - 0.03 * 95.5) * bit, 1e-12);
  EXPECT_NEAR(find(rows, "b", "seconds").nats_per_byte, (4 - 0.02 * 48) * bit, 1e-12);
  EXPECT_NEAR(find(rows, "b", "flops").nats_per_byte, (4 - 0.02 * 31.5) * bit, 1e-12);
  // Five points 0.02 apart: a variance of 2.5 * 0.02^2, over five points.
  EXPECT_NEAR(find(rows, "b", "seconds").stderr_nats, 0.02 * std::sqrt(0.5) * bit, 1e-12);
  EXPECT_EQ(rows[0].layer, "b");  // 2.09 against 2.135 bits, after equal bytes
  EXPECT_EQ(rows[2].layer, "a");  // 2.135 against 3.37, after equal FLOPs
}

TEST(Comparison, AveragesSeedsAndTakesTheLargerError) {
  const auto flat = [](double level) { return [=](int i) { return level + (i % 2) * 0.02; }; };
  const auto rows =
      compare_training(together({run("a", 1, 1, flat(2.0), 1), run("a", 1, 1, flat(2.2), 2),
                                 run("b", 1, 1, flat(2.0), 1), run("b", 1, 1, flat(2.0), 2, 50)}));
  const ComparisonRow& a = find(rows, "a", "bytes");
  EXPECT_EQ(a.budget, 50000);  // the shortest of all runs
  EXPECT_NEAR(a.nats_per_byte, 2.11 * bit, 0.005);
  EXPECT_NEAR(a.stderr_nats, 0.1 * bit, 1e-9);  // between the seeds: 0.2 / sqrt(2) / sqrt(2)
  const ComparisonRow& b = find(rows, "b", "bytes");
  EXPECT_DOUBLE_EQ(b.share_of_training, 0.75);
  EXPECT_GT(b.stderr_nats, 0.001 * bit);  // equal seeds: the noise within the runs
  EXPECT_LT(b.stderr_nats, 0.01 * bit);
}

TEST(Comparison, NeedsTwoLayersAndAQuantityThatWasCounted) {
  const auto flat = [](int) { return 2.0; };
  EXPECT_TRUE(compare_training({}).empty());
  EXPECT_TRUE(compare_training(run("a", 1, 1, flat)).empty());
  const auto rows = compare_training(together({run("a", 1, 0, flat), run("b", 1, 0, flat)}));
  EXPECT_EQ(rows.size(), 4u);        // no FLOPs
  auto late = run("b", 1, 1, flat);  // its beginning was not recorded
  late.erase(late.begin(), late.begin() + 60);
  EXPECT_TRUE(compare_training(together({run("a", 1, 1, flat, 1, 50), late})).empty());
}

TEST(ComparisonParagraphs, SayWhoLeadsAndWhoTies) {
  const std::vector<ComparisonRow> rows = {{"a", 256, "bytes", 1e6, 1, 2.0 * bit, 0.01 * bit},
                                           {"b", 256, "bytes", 1e6, 1, 2.02 * bit, 0.01 * bit},
                                           {"c", 256, "bytes", 1e6, 1, 2.2 * bit, 0.01 * bit},
                                           {"a", 256, "flops", 3e12, 0.95, 2.1 * bit, 0.01 * bit},
                                           {"c", 256, "flops", 3e12, 1, 2.2 * bit, 0.01 * bit},
                                           {"c", 256, "seconds", 200, 1, 2.2 * bit, 0.01 * bit},
                                           {"b", 256, "seconds", 200, 0.4, 2.3 * bit, 0.01 * bit},
                                           {"a", 256, "seconds", 200, 0.25, 2.4 * bit, 0.01 * bit}};
  EXPECT_EQ(comparison_sentence(rows),
            "By training loss under equal budgets, at context 256 a leads at equal bytes (a tie "
            "with b) and equal FLOPs; c at equal seconds.");
  const std::vector<std::string> paragraphs = comparison_paragraphs(rows);
  ASSERT_EQ(paragraphs.size(), 3u);
  EXPECT_EQ(paragraphs[0],
            "Context 256, equal bytes (1 MB): a 2.000 ± 0.010 bits per byte; within two standard "
            "errors of it, so a tie: b (2.020); behind: c (2.200).");
  EXPECT_EQ(
      paragraphs[1],
      "Context 256, equal FLOPs (3 TFLOP): a 2.100 ± 0.010 bits per byte; behind: c (2.200).");
  EXPECT_EQ(paragraphs[2],
            "Context 256, equal seconds (3 min 20 s): c 2.200 ± 0.010 bits per byte; behind: b "
            "(2.300) and a (2.400). There c had done 100 % of its training, but these were in the "
            "middle of theirs, with a learning rate that was still to fall: b (40 %) and a (25 %). "
            "That puts them at a disadvantage.");
  EXPECT_EQ(comparison_sentence({}), "");
  EXPECT_TRUE(comparison_paragraphs({}).empty());
}

TEST(ComparisonParagraphs, ATieIsLessThanTwoStandardErrorsOfTheDifference) {
  auto text = [](double difference) {
    return comparison_paragraphs(
        {{"a", 1, "bytes", 1e6, 1, 2, 0.03}, {"b", 1, "bytes", 1e6, 1, 2 + difference, 0.04}})[0];
  };
  EXPECT_NE(text(0.099).find("so a tie: b"), std::string::npos);
  EXPECT_EQ(text(0.101).find("tie"), std::string::npos);
  EXPECT_NE(text(0.101).find("behind: b"), std::string::npos);
}

TEST(Comparison, BudgetsHaveUnits) {
  EXPECT_EQ(budget_text({"", 1, "bytes", 12.3e6}), "12.3 MB");
  EXPECT_EQ(budget_text({"", 1, "flops", 4.5e15}), "4.5 PFLOP");
  EXPECT_EQ(budget_text({"", 1, "flops", 450}), "450 FLOP");
  EXPECT_EQ(budget_text({"", 1, "seconds", 200}), "3 min 20 s");
}

}  // namespace
}  // namespace ttt::examples
