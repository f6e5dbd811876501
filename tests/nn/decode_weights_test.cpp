// Decoding with packed weights gives the numbers of the layers and models that they were made from.
#include "ttt/nn/decode_weights.hpp"

#include "support/count_allocations.hpp"
#include "support/layer_cases.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/lm/generation.hpp"
#include "ttt/lm/sequence_model.hpp"

namespace ttt::test {
namespace {

constexpr WeightFormat formats[] = {WeightFormat::float32, WeightFormat::bfloat16,
                                    WeightFormat::int8};

/// Calls `body(layer)` for one of each kind, with their switches.
template <class Body>
void each_float_layer(Body&& body) {
  const TTTConfig ttt{.width = 24, .heads = 3, .mini_batch = 4};
  TTTConfig gated = ttt;
  gated.share_qk = gated.gate = true;
  body(TTTLinear<float>(ttt));
  body(TTTLinear<float>(gated));
  body(TTTMLP<float>(ttt));
  body(Attention<float>({.width = 24, .heads = 4, .key_value_heads = 2}));
  body(LinearAttention<float>({.width = 24, .heads = 3}));
  body(Mamba<float>({.width = 24, .bias = true}));
  body(LSTM<float>(LSTMConfig{24}));
}

template <class L>
Matrix<float> by_step(const L& layer, const Matrix<float>& x, const RunOptions& options = {}) {
  auto state = initial_state(layer, x.cols());
  auto workspace = layer.workspace(1);
  Matrix<float> y(layer.width(), x.cols());
  for (Index t = 0; t < x.cols(); ++t) layer.step(x.col(t), state, y.col(t), workspace, options);
  return y;
}

Matrix<float> tokens(Index width, Index count) {
  Random random(3);
  return random_matrix<float>(width, count, random);
}

TEST(DecodeWeightsTest, StepsOfEveryLayerEqualItsForwardWithTheRoundedWeights) {
  each_float_layer([](auto layer) {
    const auto x = tokens(layer.width(), 11);
    const auto exact = by_step(layer, x);
    for (const WeightFormat format : formats) {
      auto rounded = layer;
      const DecodeWeights weights(rounded, format);
      const auto y = by_step(rounded, x, {.decode_weights = &weights});
      Matrix<float> whole(x.rows(), x.cols());
      auto state = rounded.initial_state();
      rounded.forward(x, state, whole);
      EXPECT_LE(relative_error(y, by_step(rounded, x)), tolerance::stream<float>);
      EXPECT_LE(relative_error(y, whole), tolerance::stream<float>);
      EXPECT_LE(relative_error(y, exact), 0.1);
      EXPECT_EQ(relative_error(whole, exact) < tolerance::stream<float>,
                format == WeightFormat::float32);
    }
  });
}

TEST(DecodeWeightsTest, StepReadsThePackedWeightsAndNotTheLayersOwn) {
  each_float_layer([](auto layer) {
    const auto x = tokens(layer.width(), 6);
    const DecodeWeights weights(layer, WeightFormat::int8);
    const auto y = by_step(layer, x, {.decode_weights = &weights});
    for_each_tensor(
        [](const TensorInfo& info, auto& tensor) {
          if (info.streamed) tensor.setConstant(std::numeric_limits<float>::quiet_NaN());
        },
        layer.parameters());
    EXPECT_TRUE(same_bits(by_step(layer, x, {.decode_weights = &weights}), y));
  });
}

TEST(DecodeWeightsTest, ACopyOfTheLayerUsesItsOwnWeights) {
  each_float_layer([](auto layer) {
    const auto x = tokens(layer.width(), 6);
    const DecodeWeights weights(layer, WeightFormat::bfloat16);
    const auto copy = layer;
    EXPECT_TRUE(same_bits(by_step(copy, x, {.decode_weights = &weights}), by_step(copy, x)));
  });
}

struct Forgetting : PublishedRule {
  static constexpr bool token_factors = false;
  static constexpr ForgetAfterGradient forgetting{};
};

TEST(DecodeWeightsTest, AnyNumberOfThreadsGivesTheSameBits) {
  const ThreadCount guard(3);
  const auto check = [](const auto& original, Index count) {
    const auto x = tokens(original.width(), count);
    for (const WeightFormat format : formats) {
      std::vector<Matrix<float>> y;
      for (const Index threads : {1, 2, 3}) {
        auto layer = original;
        const DecodeWeights weights(layer, format, threads);
        y.push_back(by_step(layer, x, {.decode_weights = &weights}));
      }
      EXPECT_TRUE(same_bits(y[1], y[0]));
      EXPECT_TRUE(same_bits(y[2], y[0]));
    }
  };
  check(TTTLinear<float>({.width = 768, .heads = 12, .gate = true}), 5);
  // Heads that are enough work for three threads, mini-batch borders among their tokens, ...
  const TTTConfig wide{.width = 320, .heads = 5, .mini_batch = 3};
  check(TTTMLP<float>(wide), 7);
  check(TTTLayer<float, MLPModel, Forgetting>(wide), 7);
  // ... and from some token on, groups of heads.
  check(Attention<float>({.width = 512, .heads = 8, .key_value_heads = 4}), 400);
}

struct TwoWeights {
  Matrix<float> a, b;
  static auto fields(auto& self) {
    return std::tuple(streamed(field("a", self.a)), streamed(field("b", self.b)));
  }
};
struct TwoProjections {
  TwoWeights weights;
  TwoWeights& parameters() { return weights; }
};

TEST(DecodeWeightsTest, ThreadsShareOneProductToTheBit) {
  const ThreadCount guard(3);
  Random random(4);
  for (const WeightFormat format : formats) {
    const TwoWeights original{random_matrix<float>(1030, 700, random),
                              random_matrix<float>(1030, 601, random)};
    const Vector<float> x = random_matrix<float>(1030, 1, random);
    std::vector<Vector<float>> a, b;
    for (const Index threads : {1, 2, 3}) {
      TwoProjections model{original};
      const DecodeWeights packed(model, format, threads);
      a.emplace_back(700);
      b.emplace_back(601);
      Linear<float>::step(x, {{model.weights.a, a.back()}, {model.weights.b, b.back()}}, &packed);
      Vector<float> alone(601);
      Linear<float>::step(x, model.weights.b, alone, &packed);
      EXPECT_TRUE(same_bits(alone, b.back()));
      const Vector<float> expected = model.weights.a.transpose() * x;
      EXPECT_LE(relative_error(a.back(), expected), tolerance::rounding<float>);
    }
    for (const std::size_t other : {1u, 2u}) {
      EXPECT_TRUE(same_bits(a[other], a[0]));
      EXPECT_TRUE(same_bits(b[other], b[0]));
    }
  }
}

TEST(DecodeWeightsTest, StepAllocatesNothingOnOneThread) {
  if constexpr (!counts_allocations) {
    GTEST_SKIP() << "allocations are counted with glibc and without sanitizers only";
  } else {
    each_float_layer([](auto layer) {
      const auto x = tokens(layer.width(), 9);
      for (const WeightFormat format : formats) {
        const DecodeWeights weights(layer, format);
        const RunOptions options{.decode_weights = &weights};
        auto state = initial_state(layer, x.cols());
        auto workspace = layer.workspace(1);
        Vector<float> y(layer.width());
        const AllocationCounter counter;
        for (Index t = 0; t < x.cols(); ++t) layer.step(x.col(t), state, y, workspace, options);
        EXPECT_EQ(counter.count(), 0u);
      }
    });
  }
}

using Model = LanguageModel<TTTLinear<float>>;

Model language_model(bool tied) {
  Model::Config config{.vocabulary = 40, .tie_embeddings = tied, .trunk = {}};
  const TTTConfig layer{.width = 24, .heads = 3, .mini_batch = 4, .share_qk = true, .gate = true};
  config.trunk = {2, {.width = 24, .intermediate = 36, .pre_conv = true}, {layer}, {}};
  config.trunk.block.initializer_range = 0.2;
  return Model(config, Random(1));
}

TEST(DecodeWeightsTest, PacksTheProjectionsOfALanguageModelAndItsHead) {
  for (const bool tied : {true, false}) {
    Model model = language_model(tied);
    const DecodeWeights weights(model, WeightFormat::bfloat16);
    std::vector<std::string> packed;
    Index numbers = 0;
    for_each_tensor(
        [&](const TensorInfo& info, const auto& tensor) {
          EXPECT_EQ(weights.find(tensor.data()) != nullptr, info.streamed) << info.name;
          if (!info.streamed) return;
          packed.push_back(info.name);
          numbers += tensor.size();
          EXPECT_EQ(tensor, tensor.template cast<Eigen::bfloat16>().template cast<float>());
        },
        model.parameters());
    ASSERT_EQ(packed.size(), 15u);  // of each block q, v, o, gate; gate, up, down
    EXPECT_EQ(tied ? packed.front() : packed.back(),
              tied ? "model.embed_tokens.weight" : "lm_head.weight");
    EXPECT_GE(weights.bytes(), 2 * numbers);
  }
}

TEST(DecodeWeightsTest, PrefillAndDecodingOfALanguageModelAgree) {
  const std::vector<std::int32_t> ids{3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
  for (const bool tied : {true, false}) {
    for (const WeightFormat format : formats) {
      Model model = language_model(tied);
      const DecodeWeights weights(model, format);
      const RunOptions options{.decode_weights = &weights};
      auto workspace = model.workspace(1);
      Matrix<float> whole(40, std::ssize(ids)), y(40, std::ssize(ids)), batch(40, 1);
      auto state = model.initial_state(), stepped = state, read = state, together = state;
      model.logits(ids, state, whole, workspace);
      for (Index t = 0; t < y.cols(); ++t) {
        model.step(ids[static_cast<std::size_t>(t)], stepped, y.col(t), workspace, options);
        typename Model::State* const states[] = {&together};
        model.step_batch({&ids[static_cast<std::size_t>(t)], 1}, states, batch, workspace, options);
      }
      EXPECT_LE(relative_error(y, whole), tolerance::stream<float>);
      EXPECT_LE(relative_error(batch, whole.rightCols(1)), tolerance::stream<float>);
      expect_close(stepped, state, tolerance::stream<float>);
      Vector<float> last(40);
      model.prefill(ids, read, last, workspace, options);
      EXPECT_LE(relative_error(last, whole.rightCols(1)), tolerance::stream<float>);
    }
  }
}

TEST(DecodeWeightsTest, AMovedLanguageModelKeepsItsPackedWeights) {
  Model model = language_model(true);
  const DecodeWeights weights(model, WeightFormat::int8);
  const Model moved = std::move(model);
  EXPECT_NE(weights.find(moved.parameters().embedding.data()), nullptr);
}

TEST(DecodeWeightsTest, SequenceModelStepsWithPackedWeights) {
  using Signals = SequenceModel<LSTM<float>>;
  Signals::Config config{.input_width = 3, .output_width = 2, .trunk = {}};
  config.trunk = {1, {.width = 8}, {LSTMConfig{8}}, {}};
  Signals model(config, Random(2));
  const DecodeWeights weights(model, WeightFormat::int8);
  const auto x = tokens(3, 7);
  Matrix<float> whole(2, 7), y(2, 7);
  auto state = model.initial_state(), stepped = state;
  auto workspace = model.workspace(7);
  model.forward(x, state, whole, workspace);
  for (Index t = 0; t < 7; ++t)
    model.step(x.col(t), stepped, y.col(t), workspace, {.decode_weights = &weights});
  EXPECT_LE(relative_error(y, whole), tolerance::stream<float>);
  for (const auto* weight : {&model.parameters().input_weight, &model.parameters().output_weight})
    EXPECT_NE(weights.find(weight->data()), nullptr);
}

template <class Model>
std::string refusal(Model& model, Index threads) {
  try {
    DecodeWeights(model, WeightFormat::int8, threads);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return {};
}

TEST(DecodeWeightsTest, RefusesInWords) {
  TTTLinear<float> layer({.width = 8, .heads = 2});
  EXPECT_EQ(refusal(layer, 1), "");
  EXPECT_EQ(refusal(layer, 0), "DecodeWeights: threads is 0, expected a positive number");
  layer.parameters().v_proj(2, 1) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(refusal(layer, 1), "DecodeWeights: v_proj.weight is not finite");
  TTTLinear<double> wide({.width = 8, .heads = 2});
  EXPECT_EQ(refusal(wide, 1), "DecodeWeights: the model has no float weights to pack");
}

}  // namespace
}  // namespace ttt::test
