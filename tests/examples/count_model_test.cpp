#include "perplexity/count_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

namespace ttt::examples {
namespace {

/// Words in random order: contexts of all kinds, seen often, seldom and never.
std::string random_text(unsigned seed, int words) {
  static const char* const list[] = {"the ", "a ", "king ", "kin ", "sea, ", "shall ", "O! ", "\n"};
  std::mt19937 engine(seed);
  std::string text;
  for (int i = 0; i < words; ++i) text += list[engine() % 8];
  return text;
}

double mean_bits(const CountModel& model, const std::string& text, int context_bytes) {
  double sum = 0;
  for (const double nats : model.window_nats(as_bytes(text), context_bytes)) sum += nats;
  return sum / static_cast<double>(text.size()) / std::log(2.0);
}

TEST(CountModel, ProbabilitiesOfAllBytesSumToOne) {
  const std::string first = random_text(1, 300), second = random_text(2, 10);
  for (const std::vector<std::string_view>& documents :
       {std::vector<std::string_view>{first, second}, {std::string_view("a")}, {"", "abab"}}) {
    const CountModel model(documents, 4);
    for (const std::string_view context :
         {"", "t", "th", "the", "the ", "king", "zzzz", "zzt", "more than four bytes: the "}) {
      double sum = 0, smallest = 1;
      for (int next = 0; next < 256; ++next) {
        const double p = std::exp(-model.nats(as_bytes(context), static_cast<unsigned char>(next)));
        sum += p;
        smallest = std::min(smallest, p);
      }
      EXPECT_NEAR(sum, 1, 1e-12) << "after '" << context << "'";
      EXPECT_GT(smallest, 0) << "after '" << context << "'";
    }
  }
}

/// With one byte of context the formula is short enough to be written out from counts.
TEST(CountModel, EqualsTheFormulaByHand) {
  // Pairs: aa x4, ab x3, ba x2, bb x1, so n_1 = n_2 = n_3 = n_4 = 1 and Y = 1 / 3.
  const CountModel model({"aaaaabbabab"}, 1);
  ASSERT_EQ(model.distinct(1), 4u);
  const double D[] = {0, 1 - 2.0 / 3, 2 - 3.0 / 3, 3 - 4.0 / 3};
  // a and b each have two different bytes in front. n_2 = 2 alone gives no estimate of the
  // discount, so it is half of the count: 1.
  const double shorter = (2 - 1) / 4.0 + (1 + 1) / 4.0 / 256;
  const double gamma_a = (D[3] + D[3]) / 7, gamma_b = (D[2] + D[1]) / 3;
  const double expected[] = {(4 - D[3]) / 7 + gamma_a * shorter, (3 - D[3]) / 7 + gamma_a * shorter,
                             (2 - D[2]) / 3 + gamma_b * shorter,
                             (1 - D[1]) / 3 + gamma_b * shorter};
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("a"), 'a')), expected[0], 1e-14);
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("a"), 'b')), expected[1], 1e-14);
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("b"), 'a')), expected[2], 1e-14);
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("b"), 'b')), expected[3], 1e-14);
  // A context that was never seen leaves the shorter one; an unseen byte the uniform share.
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("z"), 'a')), shorter, 1e-14);
  EXPECT_NEAR(std::exp(-model.nats(as_bytes("z"), 'z')), (1 + 1) / 4.0 / 256, 1e-14);
}

/// Each byte repeats the one four places before it nine times out of ten: three bytes of context
/// say nothing, four say nearly everything.
TEST(CountModel, UsesAllOfItsContextAndNoMore) {
  std::mt19937 engine(3);
  std::string text = "abcd";
  while (text.size() < 30000)
    text += engine() % 10 > 0 ? text[text.size() - 4] : "abcd"[engine() % 4];
  const std::string train = text.substr(0, 20000), test = text.substr(20000);
  const CountModel model({std::string_view(train)}, 5);
  const double entropy = -(0.925 * std::log2(0.925) + 0.075 * std::log2(0.025));
  EXPECT_NEAR(mean_bits(model, test, 0), 2, 0.02);
  EXPECT_NEAR(mean_bits(model, test, 3), 2, 0.05);
  EXPECT_NEAR(mean_bits(model, test, 4), entropy, 0.05);
  EXPECT_NEAR(mean_bits(model, test, 5), entropy, 0.08);
}

TEST(CountModel, AModelOfFewerBytesIsPartOfALargerOne) {
  const std::string train = random_text(5, 300), test = random_text(6, 50);
  const CountModel large({std::string_view(train)}, 4), small({std::string_view(train)}, 2);
  EXPECT_EQ(large.window_nats(as_bytes(test), 2), small.window_nats(as_bytes(test), 2));
}

TEST(CountModel, NoContextFromBeforeTheWindowOrAcrossDocuments) {
  const std::string text = random_text(7, 300);
  const CountModel model({std::string_view(text)}, 4);
  const std::string window = "the king";
  const std::vector<double> all = model.window_nats(as_bytes(window), 3);
  ASSERT_EQ(all.size(), window.size());
  EXPECT_EQ(all[0], model.nats({}, 't'));
  EXPECT_EQ(all[5], model.nats(as_bytes("e k"), 'i'));
  const std::vector<double> later = model.window_nats(as_bytes(window), 3, 2);
  EXPECT_EQ(later, std::vector<double>(all.begin() + 2, all.end()));

  const CountModel apart({"xa", "bx"}, 1), joined({"xabx"}, 1);
  EXPECT_EQ(apart.distinct(1), 2u);   // xa, bx
  EXPECT_EQ(joined.distinct(1), 3u);  // and ab
}

TEST(CountModel, SmallTextsAndWrongArguments) {
  EXPECT_THROW(CountModel({}, 4), std::invalid_argument);
  EXPECT_THROW(CountModel({""}, 4), std::invalid_argument);
  EXPECT_THROW(CountModel({"abc"}, 0), std::invalid_argument);
  EXPECT_THROW(CountModel({"abc"}, 7), std::invalid_argument);
  const CountModel model({"abc"}, 2);
  EXPECT_THROW(model.window_nats(as_bytes("abc"), 3), std::invalid_argument);
  EXPECT_TRUE(model.window_nats({}, 2).empty());
}

}  // namespace
}  // namespace ttt::examples
