// Strict loading of parameters: all differences in one sentence, and nothing half-loaded.
#include "ttt/io/checkpoint.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"
#include "ttt/core/random.hpp"

namespace ttt {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;

template <class S>
struct Linear {
  Matrix<S> weight;  // [in, out]
  Vector<S> bias;    // [out], may be empty

  static auto fields(auto& self) {
    return std::tuple(field("weight", self.weight), field("bias", self.bias));
  }
};

template <class S>
struct Model {
  Matrix<S> W1;  // [3, 2 * 4], two heads
  std::vector<Linear<S>> layers;
  Index heads = 2;

  static auto fields(auto& self) {
    return std::tuple(field("W1", self.W1, 2), field("layers", self.layers),
                      field("heads", self.heads));
  }
};

template <class S>
Model<S> random_model(std::uint64_t seed) {
  Model<S> model{Matrix<S>(3, 8), {{Matrix<S>(4, 2), Vector<S>(2)}, {Matrix<S>(2, 5), {}}}, 2};
  Random random(seed);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 1); }, model);
  return model;
}

template <class S>
void expect_equal(const Model<S>& a, const Model<S>& b) {
  for_each_tensor([](const TensorInfo& info, const auto& x,
                     const auto& y) { EXPECT_TRUE((x.array() == y.array()).all()) << info.name; },
                  a, b);
}

TEST(CheckpointTest, HasTheNamesAndShapesOfTheFields) {
  const TemporaryFolder folder;
  save_parameters(folder / "model", random_model<float>(1));
  const SafetensorsFile file(folder / "model");
  EXPECT_EQ(file.entries().size(), 4u);
  EXPECT_EQ(file.shape("W1"), (std::vector<Index>{2, 4, 3}));
  EXPECT_EQ(file.shape("layers.0.weight"), (std::vector<Index>{2, 4}));
  EXPECT_EQ(file.shape("layers.0.bias"), (std::vector<Index>{2}));
  EXPECT_EQ(file.shape("layers.1.weight"), (std::vector<Index>{5, 2}));
  EXPECT_EQ(file.dtype("W1"), "F32");
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

template <class S>
class CheckpointScalarTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(CheckpointScalarTest, Scalars);

TYPED_TEST(CheckpointScalarTest, SavedLoadedAndSavedIsBitEqual) {
  const TemporaryFolder folder;
  auto model = random_model<TypeParam>(1), other = random_model<TypeParam>(2);
  model.W1(0, 0) = -TypeParam(0);
  model.W1(1, 0) = std::numeric_limits<TypeParam>::denorm_min();
  model.W1(2, 0) = std::numeric_limits<TypeParam>::quiet_NaN();
  save_parameters(folder / "a", model, {{"step", "12"}});
  load_parameters(folder / "a", other);
  save_parameters(folder / "b", other, {{"step", "12"}});
  EXPECT_EQ(read_bytes(folder / "a"), read_bytes(folder / "b"));
}

TEST(CheckpointTest, ConvertsFromTheOtherFloatingPointTypes) {
  const TemporaryFolder folder;
  const auto wide = random_model<double>(1);
  save_parameters(folder / "f64", wide);
  auto narrow = random_model<float>(2);
  load_parameters(folder / "f64", narrow);
  EXPECT_EQ(narrow.W1(2, 5), static_cast<float>(wide.W1(2, 5)));

  save_parameters(folder / "f32", narrow);
  auto again = random_model<double>(3);
  load_parameters(folder / "f32", again);
  EXPECT_EQ(again.layers[1].weight(1, 4), static_cast<double>(narrow.layers[1].weight(1, 4)));

  const std::vector<Eigen::half> half(6, Eigen::half(1.5f));
  const std::vector<Eigen::bfloat16> brain(3, Eigen::bfloat16(-2.5f));
  write_safetensors(folder / "f16", {tensor_view<Eigen::half>("weight", {3, 2}, half),
                                     tensor_view<Eigen::bfloat16>("bias", {3}, brain)});
  Linear<float> layer{Matrix<float>(2, 3), Vector<float>(3)};
  load_parameters(folder / "f16", layer);
  EXPECT_TRUE((layer.weight.array() == 1.5f).all());
  EXPECT_TRUE((layer.bias.array() == -2.5f).all());
}

TEST(CheckpointTest, ListsEveryDifferenceAndChangesNothing) {
  const TemporaryFolder folder;
  const std::vector<float> values(24);
  const std::vector<std::int64_t> integers(8);
  const std::span<const float> floats(values);
  write_safetensors(folder / "other",
                    {tensor_view<float>("W1", {2, 3, 4}, floats),
                     tensor_view<std::int64_t>("layers.0.weight", {2, 4}, integers),
                     tensor_view<float>("layers.1.weight", {5, 2}, floats.first(10)),
                     tensor_view<float>("layers.1.bias", {5}, floats.first(5))});
  auto model = random_model<float>(1);
  EXPECT_EQ(message_of([&] { load_parameters(folder / "other", model); }),
            (folder / "other").string() +
                " does not fit the parameters: "
                "misshapen W1 F32 [2, 3, 4], expected floating-point [2, 4, 3]; "
                "misshapen layers.0.weight I64 [2, 4], expected floating-point [2, 4]; "
                "missing layers.0.bias [2]; unexpected layers.1.bias [5]");
  expect_equal(model, random_model<float>(1));
}

TEST(CheckpointTest, ChangesNothingWhenTheFileEndsWhileItIsRead) {
  const TemporaryFolder folder;
  save_parameters(folder / "model", random_model<float>(1));
  const SafetensorsFile file(folder / "model");
  std::filesystem::resize_file(folder / "model", read_bytes(folder / "model").size() - 4);
  auto model = random_model<float>(2);
  EXPECT_EQ(message_of([&] { load_parameters(file, model); }),
            file.path() + " became shorter while being read");
  expect_equal(model, random_model<float>(2));
}

TEST(CheckpointTest, LeavesOutWhatTheOptionsName) {
  const TemporaryFolder folder;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const auto tensor = [&](const std::string& name, const std::vector<Index>& shape) {
    return tensor_view<float>(
        name, shape,
        std::span(values).first(static_cast<std::size_t>(element_count(shape).value())));
  };
  write_safetensors(folder / "file", {tensor("model.weight", {3, 2}), tensor("grad.weight", {3, 2}),
                                      tensor("grad.input", {4}), tensor("lm_head.weight", {2})});
  const auto fresh = [] { return Linear<float>{Matrix<float>(2, 3), Vector<float>::Zero(3)}; };
  const std::string path = (folder / "file").string();

  auto layer = fresh();
  load_parameters(folder / "file", layer, {.prefix = "model.", .optional = {"model.bias"}});
  EXPECT_EQ(layer.weight(1, 2), 6);
  EXPECT_EQ(layer.bias, Vector<float>::Zero(3));
  EXPECT_EQ(message_of([&] { load_parameters(folder / "file", layer, {.prefix = "model."}); }),
            path + " does not fit the parameters: missing model.bias [3]");

  Linear<float> gradient{Matrix<float>(2, 3), {}};
  load_parameters(folder / "file", gradient, {.prefix = "grad.", .optional = {"grad.input"}});
  EXPECT_EQ(gradient.weight(0, 1), 3);
  EXPECT_EQ(message_of([&] { load_parameters(folder / "file", gradient, {.prefix = "grad."}); }),
            path + " does not fit the parameters: unexpected grad.input [4]");

  const LoadOptions everything{.prefix = {}, .optional = {"grad.*", "model.*", "weight", "bias"}};
  EXPECT_EQ(message_of([&] { load_parameters(folder / "file", layer, everything); }),
            path + " does not fit the parameters: unexpected lm_head.weight [2]");
}

TEST(CheckpointTest, KeepsTheOldFileWhenItCannotWrite) {
  const TemporaryFolder folder;
  save_parameters(folder / "model", random_model<float>(1));
  const std::string before = read_bytes(folder / "model");
  Linear<float> nameless{Matrix<float>(1, 1), Vector<float>(1)};
  const auto tensors = tensors_of(nameless);
  EXPECT_NE(message_of([&] { write_safetensors(folder / "model", {tensors[0], tensors[0]}); }), "");
  EXPECT_EQ(read_bytes(folder / "model"), before);
  EXPECT_NE(message_of([&] { save_parameters(folder / "model/below", nameless); }), "");
  EXPECT_EQ(folder.size(), 1u);
}

}  // namespace
}  // namespace ttt
