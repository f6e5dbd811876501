// A state comes back bit by bit, numbers included, and only into the model it belongs to.
#include "ttt/io/state.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"
#include "ttt/core/random.hpp"
#include "ttt/train/adamw.hpp"

namespace ttt {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;

struct Memory {
  Matrix<float> keys;  // [width, capacity]
  Index length = 0;

  static auto fields(auto& self) {
    return std::tuple(field("keys", self.keys), field("length", self.length));
  }
};

struct Learner {
  Matrix<double> W;  // [3, 2 * 4], two heads
  Vector<float> b;   // [3]
  Matrix<float> unused;
  bool full = false;
  int position = 0;
  std::uint64_t seed = 0;
  float scale = 0;

  static auto fields(auto& self) {
    return std::tuple(field("W", self.W, 2), field("b", self.b), field("unused", self.unused),
                      field("full", self.full), field("position", self.position),
                      field("seed", self.seed), field("scale", self.scale));
  }
};

struct State {
  Learner learner;
  std::vector<std::variant<Memory, Learner>> layers;

  static auto fields(auto& self) {
    return std::tuple(field("learner", self.learner), field("layers", self.layers));
  }
};

struct Small {
  std::int8_t count = 1;
  static auto fields(auto& self) { return std::tuple(field("count", self.count)); }
};

struct Weights {
  Matrix<float> w;
  static auto fields(auto& self) { return std::tuple(field("w", self.w)); }
};

Learner random_learner(std::uint64_t seed) {
  Random random(seed);
  Learner learner{Matrix<double>(3, 8), Vector<float>(3), {}, true, -7, ~seed, 0.1f};
  random.fill_normal(learner.W, 1);
  random.fill_normal(learner.b, 1);
  return learner;
}

State random_state(std::uint64_t seed, Index capacity) {
  Memory memory{Matrix<float>(2, capacity), capacity};
  Random(seed).fill_normal(memory.keys, 1);
  return {random_learner(seed), {memory, random_learner(seed + 1)}};
}

TEST(ForEachNumberTest, VisitsTheNumbersThatForEachTensorPassesOver) {
  const State a = random_state(1, 4);
  State b = random_state(1, 4);
  b.learner.position = 5;
  std::vector<std::string> names;
  std::string different;
  for_each_number(
      [&](const std::string& name, const auto& x, auto& y) {
        names.push_back(name);
        if (x != y) different += name;
      },
      a, b);
  EXPECT_EQ(names,
            (std::vector<std::string>{"learner.full", "learner.position", "learner.seed",
                                      "learner.scale", "layers.0.length", "layers.1.full",
                                      "layers.1.position", "layers.1.seed", "layers.1.scale"}));
  EXPECT_EQ(different, "learner.position");
}

TEST(SavedStateTest, ComesBackBitByBit) {
  const TemporaryFolder folder;
  State state = random_state(1, 4), other = random_state(2, 4);
  state.learner.W(0, 0) = std::numeric_limits<double>::quiet_NaN();
  std::get<Memory>(state.layers[0]).length = Index{1} << 62;
  other.learner.full = false;
  other.learner.position = 0;
  other.learner.scale = 0;
  save_state(folder / "a", state, "model 1");
  load_state(folder / "a", other, "model 1");
  EXPECT_EQ(other.learner.seed, ~std::uint64_t{1});
  EXPECT_EQ(other.learner.position, -7);
  EXPECT_EQ(other.learner.scale, 0.1f);
  EXPECT_TRUE(other.learner.full);
  EXPECT_EQ(std::get<Memory>(other.layers[0]).length, Index{1} << 62);
  save_state(folder / "b", other, "model 1");
  EXPECT_EQ(read_bytes(folder / "a"), read_bytes(folder / "b"));
}

TEST(SavedStateTest, BringsItsOwnNumberOfColumns) {
  const TemporaryFolder folder;
  save_state(folder / "state", random_state(1, 5), "model");
  for (const Index capacity : {0, 2, 9}) {
    State state = random_state(2, capacity);
    load_state(folder / "state", state, "model");
    const auto& memory = std::get<Memory>(state.layers[0]);
    const State expected = random_state(1, 5);
    EXPECT_EQ(memory.length, 5);
    EXPECT_EQ(memory.keys, std::get<Memory>(expected.layers[0]).keys);
  }
  save_state(folder / "empty", random_state(1, 0), "model");
  State state = random_state(2, 3);
  load_state(folder / "empty", state, "model");
  EXPECT_EQ(std::get<Memory>(state.layers[0]).keys.cols(), 0);
}

TEST(SavedStateTest, RefusesAnotherModelAndChangesNothing) {
  const TemporaryFolder folder;
  const std::string path = (folder / "file").string();
  Memory memory{Matrix<float>::Ones(2, 3), 3};
  const auto attempt = [&] {
    return message_of([&] { load_state(folder / "file", memory, "width 2"); });
  };
  const auto save = [&](const Metadata& metadata, const std::vector<Index>& shape) {
    const std::vector<float> keys(8);
    const std::int64_t length = 2;
    write_safetensors(folder / "file",
                      {tensor_view<float>("keys", shape, keys),
                       tensor_view<std::int64_t>("length", {}, std::span(&length, 1))},
                      metadata);
  };
  save({}, {4, 2});
  EXPECT_EQ(attempt(), path + " does not hold a saved state");
  save({{"kind", "ttt_state"}, {"version", "2"}}, {4, 2});
  EXPECT_EQ(attempt(), path + " holds a state of version 2, expected 1");
  save({{"kind", "ttt_state"}, {"version", "1"}, {"fingerprint", "width 4"}}, {4, 2});
  EXPECT_EQ(attempt(), path +
                           " holds the state of another model: it was saved for width 4, "
                           "expected width 2");
  save({{"kind", "ttt_state"}, {"version", "1"}, {"fingerprint", "width 2"}}, {2, 4});
  EXPECT_EQ(attempt(), path +
                           " does not fit the state: misshapen keys F32 [2, 4], "
                           "expected floating-point [3, 2]");
  save_state(folder / "file", random_learner(1), "width 2");
  EXPECT_EQ(attempt().substr(0, path.size() + 54),
            path + " does not fit the state: missing keys [3, 2]; missing ");
  EXPECT_EQ(memory.keys, Matrix<float>::Ones(2, 3));
  EXPECT_EQ(memory.length, 3);
}

TEST(SavedStateTest, RefusesAnIntegerThatItsMemberCannotHold) {
  const TemporaryFolder folder;
  const std::int64_t count = 300;
  write_safetensors(folder / "file", {tensor_view<std::int64_t>("count", {}, std::span(&count, 1))},
                    {{"kind", "ttt_state"}, {"version", "1"}, {"fingerprint", ""}});
  Small small;
  EXPECT_EQ(message_of([&] { load_state(folder / "file", small, ""); }),
            (folder / "file").string() + ": count is out of range: 300");
  EXPECT_EQ(small.count, 1);
}

TEST(SavedStateTest, ContinuesAnOptimiserExactly) {
  const TemporaryFolder folder;
  Random random(1);
  Weights weights{Matrix<float>(5, 7)}, gradient = weights;
  random.fill_normal(weights.w, 1);
  AdamW<Weights> optimizer(weights);
  const auto step = [&](AdamW<Weights>& adamw, Weights& parameters, std::uint64_t seed) {
    Random(seed).fill_normal(gradient.w, 1);
    adamw.step(parameters, gradient, 0.01);
  };
  for (std::uint64_t i = 0; i < 3; ++i) step(optimizer, weights, i);
  save_state(folder / "optimizer", optimizer.state(), "weights 5 x 7");
  Weights continued = weights;
  AdamW<Weights> other(continued);
  load_state(folder / "optimizer", other.state(), "weights 5 x 7");
  for (std::uint64_t i = 3; i < 6; ++i) {
    step(optimizer, weights, i);
    step(other, continued, i);
  }
  EXPECT_EQ(other.state().updates, 6);
  EXPECT_TRUE((weights.w.array() == continued.w.array()).all());
}

}  // namespace
}  // namespace ttt
