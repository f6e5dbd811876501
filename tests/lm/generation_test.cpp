// A text that is saved and continued is the text that would have been written without a pause.
#include "ttt/lm/generation.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"
#include "ttt/io/state.hpp"
#include "ttt/layers/ttt_linear.hpp"

namespace ttt {
namespace {

using Model = LanguageModel<TTTLinear<float>>;
using Ids = std::vector<std::int32_t>;

constexpr Index V = 17;

Model make_model() {
  Model::Config config{.vocabulary = V, .tie_embeddings = true, .trunk = {}};
  const TTTConfig layer{.width = 8, .heads = 2, .mini_batch = 4, .share_qk = true, .gate = true};
  config.trunk = {2, {.width = 8, .intermediate = 6, .pre_conv = true}, {layer}, {}};
  Model model(config, Random(1));
  Random random(2);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        Matrix<float> noise(tensor.rows(), tensor.cols());
        random.fill_normal(noise, 0.5);
        tensor += noise;
      },
      model.parameters());
  return model;
}

class GenerationTest : public ::testing::Test {
 protected:
  Ids write(Generation<Model>& text, int count, const SamplingConfig& sampling = {}) {
    Ids ids;
    for (int i = 0; i < count; ++i) ids.push_back(write_token(model, sampling, text, workspace));
    return ids;
  }
  Generation<Model> begin(const Ids& start, std::uint64_t seed = 5) {
    Generation<Model> text{model.initial_state(), -1, seed};
    append(model, start, text, workspace);
    return text;
  }

  const Model model = make_model();
  Model::Workspace workspace = model.workspace(1);
  const Ids prompt{3, 1, 4, 1, 5, 9, 2};
};

TEST_F(GenerationTest, SavedAndContinuedIsTheTextWithoutAPause) {
  const testing::TemporaryFolder folder;
  for (const int pause : {0, 1, 9, 30}) {
    auto uninterrupted = begin(prompt), text = begin(prompt);
    const Ids expected = write(uninterrupted, 30);
    Ids written = write(text, pause);
    save_state(folder / "text", text, "model");
    Generation<Model> continued{model.initial_state()};
    load_state(folder / "text", continued, "model");
    const Ids rest = write(continued, 30 - pause);
    written.insert(written.end(), rest.begin(), rest.end());
    EXPECT_EQ(written, expected) << "paused after " << pause;
  }
}

TEST_F(GenerationTest, ACopyForksTheText) {
  auto text = begin(prompt);
  write(text, 4);
  auto same = text, other = text;
  other.random_seed += 1;
  const Ids expected = write(text, 30);
  EXPECT_EQ(write(same, 30), expected);
  EXPECT_NE(write(other, 30), expected);
}

/// Greedy writing equals reading the whole text anew for every token.
TEST_F(GenerationTest, GreedyTokensAreTheLargestLogitsOfAllThatStandsBefore) {
  for (const Ids& start : {Ids{3}, prompt}) {
    auto text = begin(start);
    Ids all = start;
    for (int i = 0; i < 20; ++i) {
      auto state = model.initial_state();
      Matrix<float> logits(V, std::ssize(all));
      model.logits(all, state, logits, workspace);
      Index largest = 0;
      logits.col(logits.cols() - 1).maxCoeff(&largest);
      all.push_back(write_token(model, {.temperature = 0}, text, workspace));
      EXPECT_EQ(all.back(), largest) << "token " << i;
    }
  }
}

TEST_F(GenerationTest, DrawsAreThoseOfOneGenerator) {
  auto text = begin(prompt), copy = text;
  Random random(5);
  for (int i = 0; i < 20; ++i) {
    Vector<float> logits(V);
    model.step(copy.last, copy.state, logits, workspace);
    copy.last = sample<float>(logits, {.temperature = 2}, random);
    EXPECT_EQ(write_token(model, {.temperature = 2}, text, workspace), copy.last) << i;
  }
  EXPECT_EQ(text.random_seed, random.state());
}

TEST_F(GenerationTest, AppendedInPiecesIsAppendedAtOnce) {
  const auto whole = begin(prompt);
  Generation<Model> pieces{model.initial_state(), -1, 5};
  for (const Ids& piece : {Ids{3}, Ids{}, Ids{1, 4, 1}, Ids{5, 9}, Ids{2}})
    append(model, piece, pieces, workspace);
  EXPECT_EQ(pieces.last, whole.last);
  // The same tokens in other products; rounding differs.
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b) {
        EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-4f) << info.name;
      },
      pieces.state, whole.state);
}

TEST_F(GenerationTest, AnEmptyTextCannotGoOn) {
  auto text = begin({});
  EXPECT_EQ(testing::message_of([&] { write(text, 1); }),
            "write_token: the text is empty, expected a prompt");
}

}  // namespace
}  // namespace ttt
