// Speed is measured for every context and batch, in the right units, within time and memory; and
// windows longer than the training context are scored in pieces that end at it.
#include "perplexity/latency.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "perplexity/evaluation.hpp"

namespace ttt::examples {
namespace {

Options small_options() {
  Options options;
  options.width = 16;
  options.depth = 1;
  options.heads = 2;
  return options;
}

Model small_model() {
  return Model(model_config(layer_kind("ttt-linear"), small_options()), Random(1));
}

TEST(Latency, MeasuresEveryContextAndBatch) {
  const Model model = small_model();
  const auto rows = measure_latency(model, "x", "some text ", {{32, 64}, {1, 3}, 20, 1 << 30});
  ASSERT_EQ(rows.size(), 4u);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const LatencyRow& row = rows[i];
    EXPECT_EQ(row.layer, "x");
    EXPECT_EQ(row.batch, i < 2 ? 1 : 3);
    EXPECT_EQ(row.context, i % 2 == 0 ? 32 : 64);
    EXPECT_EQ(row.state_bytes, state_bytes(model, row.context));
    EXPECT_GT(row.prefill_tokens_per_second, 0);
    EXPECT_GT(row.decode_seconds_per_token, 0);
  }
}

TEST(Latency, CountsEachStream) {
  // Without time to repeat: one prefill and 16 steps of 64 streams are all that is done.
  const Model model = small_model();
  const auto start = std::chrono::steady_clock::now();
  const auto rows = measure_latency(model, "x", "some text ", {{256}, {64}, 1e-9, 1 << 30});
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_EQ(rows.size(), 1u);
  const double prefill = 256 * 64 / rows[0].prefill_tokens_per_second;
  const double decode = 16 * 64 * rows[0].decode_seconds_per_token;
  EXPECT_LE(prefill + decode, elapsed);
  EXPECT_GE(prefill + decode, 0.1 * elapsed);
}

TEST(Latency, KeepsWithinTimeAndMemory) {
  const Model model = small_model();
  const std::string text = "some text ";
  const auto hurried = measure_latency(model, "x", text, {{16, 256, 4096}, {1, 2}, 1e-9, 1 << 30});
  ASSERT_EQ(hurried.size(), 2u);  // the shortest context of each batch
  EXPECT_EQ(hurried[0].context, 16);
  EXPECT_EQ(hurried[1].context, 16);
  const auto cramped =
      measure_latency(model, "x", text, {{16}, {1, 2}, 0.01, state_bytes(model, 16) * 3 / 2});
  ASSERT_EQ(cramped.size(), 1u);
  EXPECT_EQ(cramped[0].batch, 1);
  EXPECT_THROW(measure_latency(model, "x", ""), std::invalid_argument);
}

TEST(Extrapolation, PiecesEndAtTheTrainingContext) {
  const Model model = small_model();
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>('a' + i * i % 17);
  const std::vector<Document> documents = {{"long", text}, {"short", "too short"}};
  const auto rows = extrapolate(model, "x", 12, 5, documents, 100);
  const std::int64_t borders[] = {0, 1, 2, 4, 8, 12, 18, 24, 30, 36, 42, 48};
  ASSERT_EQ(rows.size(), std::size(borders) - 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].position_begin, borders[i]);
    EXPECT_EQ(rows[i].position_end, borders[i + 1]);
    EXPECT_EQ(rows[i].count, 3 * (borders[i + 1] - borders[i]));  // 100 bytes need 3 windows of 48
    EXPECT_EQ(rows[i].train_context, 12);
    EXPECT_EQ(rows[i].seed, 5u);
  }
  // The same numbers as those of the windows scored whole.
  const LossByWindow whole = evaluate(model, test_windows(documents, 48, 100), 1, false);
  double sum = 0;
  for (const PositionRow& row : rows) sum += row.nats_per_byte * static_cast<double>(row.count);
  EXPECT_NEAR(sum / static_cast<double>(whole.all.count), whole.all.nats, 1e-6);
  EXPECT_NEAR(rows[3].nats_per_byte, whole.buckets[3].loss.nats, 1e-6);
  EXPECT_TRUE(extrapolate(model, "x", 60, 5, documents, 100).empty());
}

}  // namespace
}  // namespace ttt::examples
