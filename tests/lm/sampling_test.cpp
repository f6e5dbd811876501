// Sampling: shares of many draws against the probabilities, ties, and what is refused.
#include "ttt/lm/sampling.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "support/temporary_folder.hpp"

namespace ttt {
namespace {

using testing::message_of;

Vector<float> logits_of(std::initializer_list<double> probabilities) {
  Vector<float> logits(static_cast<Index>(probabilities.size()));
  Index v = 0;
  for (const double p : probabilities) logits(v++) = static_cast<float>(std::log(p)) + 3;
  return logits;
}

/// The share of each token among many draws.
std::map<std::int32_t, double> shares(const Vector<float>& logits, const SamplingConfig& config) {
  constexpr int draws = 20000;
  std::map<std::int32_t, double> result;
  Random random(1);
  for (int i = 0; i < draws; ++i) result[sample<float>(logits, config, random)] += 1.0 / draws;
  return result;
}

void expect_shares(const std::map<std::int32_t, double>& actual,
                   const std::map<std::int32_t, double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  // Four standard deviations of a share of 20000 draws are at most 0.014.
  for (const auto& [id, share] : expected) EXPECT_NEAR(actual.at(id), share, 0.014) << id;
}

const Vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});

TEST(SamplingTest, DrawsByProbability) {
  expect_shares(shares(logits, {}), {{0, 0.1}, {1, 0.4}, {2, 0.05}, {3, 0.25}, {4, 0.2}});
}

TEST(SamplingTest, TemperatureIsAPowerOfTheProbabilities) {
  // p^2: 0.01 0.16 0.0025 0.0625 0.04, in all 0.275
  expect_shares(shares(logits, {.temperature = 0.5}), {{0, 0.01 / 0.275},
                                                       {1, 0.16 / 0.275},
                                                       {2, 0.0025 / 0.275},
                                                       {3, 0.0625 / 0.275},
                                                       {4, 0.04 / 0.275}});
}

TEST(SamplingTest, TopKKeepsTheLargest) {
  expect_shares(shares(logits, {.top_k = 2}), {{1, 0.4 / 0.65}, {3, 0.25 / 0.65}});
  expect_shares(shares(logits, {.top_k = 99}), shares(logits, {}));
}

TEST(SamplingTest, TopPKeepsTheFewestThatReachIt) {
  expect_shares(shares(logits, {.top_p = 0.6}), {{1, 0.4 / 0.65}, {3, 0.25 / 0.65}});
  expect_shares(shares(logits, {.top_p = 0.7}),
                {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
  expect_shares(shares(logits, {.top_p = 1e-9}), {{1, 1.0}});
}

TEST(SamplingTest, TopPCountsWhatTopKHasLeft) {
  // Of 0.4 and 0.25, the first alone is 0.615 of the whole.
  expect_shares(shares(logits, {.top_k = 2, .top_p = 0.61}), {{1, 1.0}});
}

TEST(SamplingTest, TemperatureZeroTakesTheLargestAndDrawsNothing) {
  Random random(7);
  EXPECT_EQ(sample<float>(logits, {.temperature = 0}, random), 1);
  EXPECT_EQ(random.state(), 7u);
  sample<float>(logits, {}, random);
  EXPECT_NE(random.state(), 7u);
}

TEST(SamplingTest, EqualLogitsRankByIndex) {
  const Vector<float> equal = Vector<float>::Zero(4);
  Random random(1);
  EXPECT_EQ(sample<float>(equal, {.temperature = 0}, random), 0);
  expect_shares(shares(equal, {.top_k = 2}), {{0, 0.5}, {1, 0.5}});
}

TEST(SamplingTest, LargeLogitsAndImpossibleTokens) {
  Vector<float> extreme(3);
  extreme << 3e38f, -std::numeric_limits<float>::infinity(), -3e38f;
  expect_shares(shares(extreme, {}), {{0, 1.0}});
  expect_shares(shares(extreme, {.temperature = 1e-3}), {{0, 1.0}});
}

TEST(SamplingTest, TheSameSeedDrawsTheSame) {
  const auto draw = [] {
    Random random(3);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(sample<float>(logits, {}, random));
    return ids;
  };
  EXPECT_EQ(draw(), draw());
}

TEST(SamplingTest, WrongArgumentsAreRefusedInWords) {
  Random random(1);
  const auto message = [&](const Vector<float>& values, const SamplingConfig& config) {
    return message_of([&] { sample<float>(values, config, random); });
  };
  const float infinity = std::numeric_limits<float>::infinity();
  Vector<float> nan = logits;
  nan(2) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(message(logits, {.temperature = -1}),
            "SamplingConfig: temperature is -1, expected a finite number, 0 or more");
  EXPECT_EQ(message(logits, {.top_k = -1}), "SamplingConfig: top_k is -1, expected 0 or more");
  EXPECT_EQ(message(logits, {.top_p = 0}),
            "SamplingConfig: top_p is 0, expected a number above 0, at most 1");
  EXPECT_EQ(message(logits, {.top_p = 1.5}),
            "SamplingConfig: top_p is 1.5, expected a number above 0, at most 1");
  EXPECT_EQ(message({}, {}), "sample: there are no logits");
  EXPECT_EQ(message(nan, {}), "sample: a logit is not a number");
  EXPECT_EQ(message(Vector<float>::Constant(3, -infinity), {}),
            "sample: the largest logit is -inf, expected a finite number");
}

}  // namespace
}  // namespace ttt
