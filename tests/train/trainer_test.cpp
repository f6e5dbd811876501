// What Trainer promises: the same bytes for any number of threads and after a restart, and a clear
// stop at a number that is not finite. (trajectory_test.cpp compares its numbers.)
#include "ttt/train/trainer.hpp"

#include <limits>

#include "nn/operation_test.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/io/state.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;

using Hybrid = LanguageModel<TTTLinear<float>, TTTMLP<float>>;

/// Large enough that products and loops are cut into parts which threads share.
Hybrid hybrid_model() {
  TTTConfig linear{.width = 64, .heads = 2, .share_qk = true, .gate = true}, mlp = linear;
  mlp.base_learning_rate = 0.1;
  Hybrid::Config config;
  config.trunk = {2, {.width = 64, .intermediate = 128}, {linear, mlp}, {0, 1}};
  return Hybrid(config, Random(3));
}

TrainingConfig short_training() {
  TrainingConfig training;
  training.schedule = {.peak = 3e-3, .warmup_steps = 2, .total_steps = 6};
  training.inner_rate.warmup_steps = 2;
  return training;
}

std::string text() {
  std::string bytes;
  Random random(4);
  for (int word = 0; word < 400; ++word)
    bytes += std::string(std::size_t(1 + random.below(5)), char('a' + random.below(26))) + ' ';
  return bytes;
}

/// Steps `first` to `last` of three windows each.
void train(Trainer<Hybrid>& trainer, Index first, Index last) {
  const std::string bytes = text();
  TokenWindows windows({bytes}, 100, 5);
  for (Index step = first; step <= last; ++step) trainer.step(windows.batch(3 * (step - 1), 3));
}

/// All that is saved of a model in training.
std::string checkpoint_bytes(const Hybrid& model, const Trainer<Hybrid>& trainer) {
  const TemporaryFolder folder;
  save_parameters(folder / "model.safetensors", model.parameters());
  save_state(folder / "training.safetensors", trainer.state(), "test");
  return read_bytes(folder / "model.safetensors") + read_bytes(folder / "training.safetensors");
}

struct Checkpoint {
  Hybrid::Parameters parameters;
  Trainer<Hybrid>::State training;
  static auto fields(auto& self) {
    return std::tuple(field("parameters", self.parameters), field("training", self.training));
  }
};

TEST(TrainerTest, SavesTheSameBytesForAnyNumberOfThreads) {
  std::vector<std::string> saved;
  expect_same_bits_for_any_threads([&] {
    Hybrid model = hybrid_model();
    Trainer trainer(model, short_training());
    train(trainer, 1, 2);
    saved.push_back(checkpoint_bytes(model, trainer));
    return Checkpoint{model.parameters(), trainer.state()};
  });
  ASSERT_EQ(saved.size(), 3u);
  EXPECT_GT(saved[0].size(), 100'000u);
  EXPECT_TRUE(saved[1] == saved[0]) << "two threads";
  EXPECT_TRUE(saved[2] == saved[0]) << "three threads";
}

TEST(TrainerTest, SavesTheSameBytesWhereBlocksRunAgain) {
  const auto saved = [](bool recompute) {
    Hybrid model = hybrid_model();
    TrainingConfig training = short_training();
    training.recompute = recompute;
    Trainer trainer(model, training);
    train(trainer, 1, 2);
    return checkpoint_bytes(model, trainer);
  };
  EXPECT_TRUE(saved(true) == saved(false));
}

TEST(TrainerTest, ContinuesFromACheckpointAsIfItHadNotStopped) {
  const TemporaryFolder folder;
  Hybrid straight = hybrid_model(), second = hybrid_model();
  Trainer without_stop(straight, short_training());
  train(without_stop, 1, 4);
  {
    Hybrid first = hybrid_model();
    Trainer trainer(first, short_training());
    train(trainer, 1, 2);
    save_parameters(folder / "model.safetensors", first.parameters());
    save_state(folder / "training.safetensors", trainer.state(), "test");
  }
  load_parameters(folder / "model.safetensors", second.parameters());
  Trainer resumed(second, short_training());
  auto state = resumed.state();
  load_state(folder / "training.safetensors", state, "test");
  resumed.restore(state);
  EXPECT_EQ(resumed.steps(), 2);
  train(resumed, 3, 4);
  EXPECT_TRUE(checkpoint_bytes(second, resumed) == checkpoint_bytes(straight, without_stop));
}

/// Layer 0 TTT-Linear, layer 1 TTT-MLP.
Hybrid small_model() {
  const TTTConfig layer{.width = 8, .heads = 2, .mini_batch = 4};
  Hybrid::Config config{.vocabulary = 12, .trunk = {}};
  config.trunk = {2, {.width = 8, .intermediate = 8}, {layer, layer}, {0, 1}};
  return Hybrid(config, Random(6));
}

/// Calls `change` with the parameter of that name.
template <class Change>
void with_parameter(Hybrid& model, const std::string& name, Change&& change) {
  bool found = false;
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor) {
        if (info.name != name) return;
        found = true;
        change(tensor);
      },
      model.parameters());
  ASSERT_TRUE(found) << name;
}

/// What stops two sequences, ids 1 2 3 4 5 6 and 3 4 5 6 7 8, in a model that `spoil` has changed;
/// parameters and optimiser must stay as they were.
template <class Spoil>
std::string stop_of(Spoil&& spoil) {
  Hybrid model = small_model();
  spoil(model);
  Trainer trainer(model, short_training());
  const TokenBatch batch{
      {1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9}, {6, 6}};
  const auto parameters = model.parameters();
  EXPECT_THROW(trainer.step(batch), std::runtime_error);
  EXPECT_EQ(trainer.steps(), 0);
  EXPECT_EQ(trainer.state().optimizer.updates, 0);
  const auto is_same = [](const TensorInfo& info, const auto& a, const auto& b) {
    EXPECT_TRUE(((a.array() == b.array()) || (a.array() != a.array())).all()) << info.name;
  };
  for_each_tensor(is_same, parameters, model.parameters());
  const auto state = trainer.state(), zero = zeros_like(state);
  for_each_tensor(is_same, state, zero);
  const std::string message = message_of([&] { trainer.step(batch); });
  TrainingConfig recompute = short_training();
  recompute.recompute = true;
  Trainer recomputing(model, recompute);
  EXPECT_EQ(message_of([&] { recomputing.step(batch); }), message);
  return message;
}

const std::string stopped = "training stopped at step 1: a value is not finite, first in ";
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

TEST(TrainerStopTest, NamesTheTokenOfABadEmbedding) {
  const auto spoil = [](Index id) {
    return [id](Hybrid& model) { model.parameters().embedding(3, id) = not_a_number; };
  };
  EXPECT_EQ(stop_of(spoil(5)), stopped + "layer 0, token 4 (input)");
  EXPECT_EQ(stop_of(spoil(7)), stopped + "layer 0, token 10 (input)");
}

/// All parameters are finite. Channel 0 of the embedding is 0 but for one id, whose value in head 1
/// then overflows: sqrt(8) 2e38.
TEST(TrainerStopTest, NamesLayerHeadAndTokenOfAnOverflow) {
  EXPECT_EQ(stop_of([](Hybrid& model) {
              model.parameters().embedding.row(0).setZero();
              model.parameters().embedding.col(6).setZero();
              model.parameters().embedding(0, 6) = 1;
              with_parameter(model, "model.layers.0.seq_modeling_block.v_proj.weight",
                             [](auto& weight) { weight.coeffRef(0, 5) = 2e38F; });
            }),
            stopped + "layer 0, head 1, token 5 (value)");
}

TEST(TrainerStopTest, NamesLayerAndHeadOfBadParameters) {
  const auto spoil = [](const char* name, Index row, Index column) {
    return [=](Hybrid& model) {
      with_parameter(model, concat("model.layers.1.", name),
                     [&](auto& tensor) { tensor.coeffRef(row, column) = not_a_number; });
    };
  };
  EXPECT_EQ(stop_of(spoil("seq_modeling_block.W1", 0, 6)),
            stopped + "layer 1, head 1, token 0 (inner output)");
  EXPECT_EQ(stop_of(spoil("seq_modeling_block.q_proj.weight", 0, 2)),
            stopped + "layer 1, head 0, token 0 (query)");
  EXPECT_EQ(stop_of(spoil("seq_modeling_block.k_proj.weight", 0, 7)),
            stopped + "layer 1, head 1, token 0 (key)");
  EXPECT_EQ(stop_of(spoil("seq_modeling_block.o_proj.weight", 0, 7)),
            stopped + "layer 1 (mixer output)");
  EXPECT_EQ(stop_of(spoil("mlp.down_proj.weight", 0, 0)), stopped + "the loss");
}

TEST(TrainerStopTest, NamesABadGradient) {
  const Hybrid model = small_model();
  auto grad = zeros_like(model.parameters());
  grad.trunk.parameters().norm[2] = not_a_number;
  EXPECT_EQ(describe_non_finite(model, {}, grad), "the gradient of model.norm.weight");
}

TEST(TrainerTest, RefusesABatchWithoutTokens) {
  Hybrid model = hybrid_model();
  Trainer trainer(model, short_training());
  EXPECT_EQ(message_of([&] { trainer.step(TokenBatch{}); }),
            "Trainer.step: no tokens, expected at least one");
  EXPECT_EQ(trainer.steps(), 0);
}

}  // namespace
}  // namespace ttt::test
