// A tiny language model, with every switch and as a hybrid: one stream read in any way gives the
// same logits and losses; its gradient; what it refuses.
#include "ttt/lm/language_model.hpp"

#include <gtest/gtest.h>

#include "support/count_allocations.hpp"
#include "support/gradient_check.hpp"
#include "support/layer_runs.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

using testing::message_of;
using Ids = std::vector<std::int32_t>;

constexpr Index V = 13, T = 11;

struct Variant {
  std::string name;
  std::vector<std::size_t> layer_types;  // 0 TTT-Linear, 1 TTT-MLP
  bool tied, pre_conv, mamba;            // mamba: shared q and k, gate
};
const std::vector<Variant> variants = {{"linear, tied", {0}, true, false, false},
                                       {"mlp, own head, Mamba backbone", {1}, false, true, true},
                                       {"hybrid, tied", {0, 1}, true, true, true},
                                       {"hybrid, own head", {1, 0, 0}, false, false, false}};

template <class S>
using Model = LanguageModel<TTTLinear<S>, TTTMLP<S>>;

/// Noise on all parameters, so that nothing is zero or one by initialization.
template <class S>
Model<S> make_model(const Variant& variant) {
  const TTTConfig linear{
      .width = 8, .heads = 2, .mini_batch = 4, .share_qk = variant.mamba, .gate = variant.mamba};
  TTTConfig mlp = linear;
  mlp.base_learning_rate = 0.5;
  typename Model<S>::Config config{.vocabulary = V, .tie_embeddings = variant.tied, .trunk = {}};
  config.trunk = {std::ssize(variant.layer_types),
                  {.width = 8, .intermediate = 6, .pre_conv = variant.pre_conv},
                  {linear, mlp},
                  variant.layer_types};
  Model<S> model(config, Random(1));
  Random random(2);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        tensor += 0.3 * random_matrix<S>(tensor.rows(), tensor.cols(), random);
      },
      model.parameters());
  return model;
}

/// Calls `body(model)` for every variant.
template <class S, class Body>
void each_model(Body&& body) {
  for (const Variant& variant : variants) {
    SCOPED_TRACE(variant.name);
    body(make_model<S>(variant));
  }
}

Ids random_ids(Index count, std::uint64_t seed) {
  Ids ids;
  Random random(seed);
  for (Index t = 0; t < count; ++t) ids.push_back(static_cast<std::int32_t>(random.below(V)));
  return ids;
}

template <class S>
class LanguageModelTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LanguageModelTest, Scalars);

TYPED_TEST(LanguageModelTest, StepsAndPrefillEqualLogits) {
  using S = TypeParam;
  each_model<S>([](const Model<S>& model) {
    const Ids ids = random_ids(T, 3);
    auto workspace = model.workspace(T);
    auto state = model.initial_state(), stepped = state;
    Matrix<S> logits = unwritten<S>(V, T);
    model.logits(ids, state, logits, workspace);
    Vector<S> one = unwritten<S>(V, 1);
    for (Index t = 0; t < T; ++t) {
      model.step(ids[static_cast<std::size_t>(t)], stepped, one, workspace);
      EXPECT_LE(relative_error(one, logits.col(t)), tolerance::stream<S>) << "token " << t;

      auto prefilled = model.initial_state();
      model.prefill(std::span(ids).first(static_cast<std::size_t>(t + 1)), prefilled, one,
                    workspace);
      EXPECT_LE(relative_error(one, logits.col(t)), tolerance::stream<S>) << "prompt of " << t + 1;
      expect_close(prefilled, stepped, tolerance::stream<S>);
    }
    expect_close(stepped, state, tolerance::stream<S>);
  });
}

TYPED_TEST(LanguageModelTest, APromptLongerThanItsTileIsReadInPieces) {
  using S = TypeParam;
  const auto model = make_model<S>(variants[2]);
  const Ids ids = random_ids(1024 + 7, 3);
  auto workspace = model.workspace(1);
  auto state = model.initial_state(), prefilled = state;
  Matrix<S> logits(V, std::ssize(ids));
  Vector<S> last(V);
  model.logits(ids, state, logits, workspace);
  model.prefill(ids, prefilled, last, workspace);
  // A stream a hundred times as long as those that the tolerance is for; rounding adds up.
  EXPECT_LE(relative_error(last, logits.col(logits.cols() - 1)), 10 * tolerance::stream<S>);
}

TYPED_TEST(LanguageModelTest, LossIsTheCrossEntropyOfTheLogits) {
  using S = TypeParam;
  each_model<S>([](const Model<S>& model) {
    const Ids ids = random_ids(T, 3), targets = random_ids(T, 4);
    auto workspace = model.workspace(T);
    auto state = model.initial_state();
    Matrix<S> logits(V, T);
    model.logits(ids, state, logits, workspace);
    Vector<double> expected(T);
    for (Index t = 0; t < T; ++t) {
      double sum = 0;
      for (Index v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits(v, t)));
      expected(t) =
          std::log(sum) - static_cast<double>(logits(targets[static_cast<std::size_t>(t)], t));
    }
    Vector<S> nats = unwritten<S>(T, 1);
    state = model.initial_state();
    const double loss =
        model.loss(ids, targets, state, workspace, {}, std::span<S>(nats.data(), std::size_t{T}));
    EXPECT_LE(relative_error(nats, expected), tolerance::stream<S>);
    EXPECT_NEAR(loss, expected.sum(), expected.sum() * tolerance::stream<S>);
  });
}

TYPED_TEST(LanguageModelTest, SeveralSequencesEqualSeparateOnes) {
  using S = TypeParam;
  each_model<S>([](const Model<S>& model) {
    const std::vector<Index> lengths{5, 0, 1, 5};
    const Ids ids = random_ids(T, 3), targets = random_ids(T, 4);
    auto workspace = model.workspace(T);
    typename Model<S>::Cache cache;
    std::vector<typename Model<S>::State> together(4, model.initial_state()), apart = together;
    std::vector<typename Model<S>::State*> states, d_states;
    for (auto& state : together) states.push_back(&state);
    Vector<S> nats = unwritten<S>(T, 1), expected = nats;
    const double loss = model.loss_batch(ids, targets, lengths, states, workspace, &cache, {},
                                         std::span<S>(nats.data(), std::size_t{T}));
    auto d_together = together;
    for (std::size_t s = 0; s < 4; ++s) d_together[s] = random_like(together[s], s);
    for (auto& d_state : d_together) d_states.push_back(&d_state);
    auto grad = zeros_like(model.parameters()), grad_apart = grad;
    model.backward_batch(cache, 0.5, d_states, grad, workspace);

    double sum = 0;
    std::size_t begin = 0;
    for (std::size_t s = 0; s < 4; ++s) {
      const auto size = static_cast<std::size_t>(lengths[s]);
      const auto piece = std::span(ids).subspan(begin, size);
      const auto piece_targets = std::span(targets).subspan(begin, size);
      auto fresh = apart[s];
      model.loss(piece, piece_targets, fresh, workspace, {},
                 std::span<S>(expected.data() + begin, size));
      sum += model.loss(piece, piece_targets, apart[s], workspace, cache);
      auto d_state = random_like(apart[s], s);
      model.backward(cache, 0.5, d_state, grad_apart, workspace);
      expect_close(d_together[s], d_state, tolerance::stream<S>);
      begin += size;
    }
    EXPECT_NEAR(loss, sum, sum * tolerance::stream<S>);
    EXPECT_LE(relative_error(nats, expected), tolerance::stream<S>);
    expect_close(together, apart, tolerance::stream<S>);
    expect_close(grad, grad_apart, tolerance::stream<S>);
  });
}

/// A cache that keeps everything, and one whose blocks run again; loss and gradient one after the
/// other, and at once: the same operations, so the same bits.
TYPED_TEST(LanguageModelTest, GradientsDoNotDependOnWhatIsKept) {
  using S = TypeParam;
  each_model<S>([](const Model<S>& model) {
    const std::vector<Index> lengths{6, 0, 5};
    const Ids ids = random_ids(T, 3), targets = random_ids(T, 4);
    auto workspace = model.workspace(T);
    struct Run {
      double loss;
      typename Model<S>::Parameters grad;
      std::vector<typename Model<S>::State> states;
    };
    const auto run = [&](bool recompute, bool at_once) {
      Run result{0, zeros_like(model.parameters()), {3, model.initial_state()}};
      std::vector<typename Model<S>::State*> states;
      for (auto& state : result.states) states.push_back(&state);
      typename Model<S>::Cache cache;
      cache.trunk.recompute = recompute;
      if (at_once) {
        result.loss = model.loss_and_gradient_batch(ids, targets, lengths, states, 0.5, result.grad,
                                                    workspace, cache);
      } else {
        result.loss = model.loss_batch(ids, targets, lengths, states, workspace, &cache);
        for (auto* state : states) set_zero(*state);
        model.backward_batch(cache, 0.5, states, result.grad, workspace);
      }
      EXPECT_EQ(cache.trunk.layers.empty(), recompute);
      return result;
    };
    const Run expected = run(false, false);
    for (const auto& [recompute, at_once] : {std::pair{true, false}, {false, true}, {true, true}}) {
      const Run other = run(recompute, at_once);
      EXPECT_EQ(other.loss, expected.loss);
      expect_close(other.grad, expected.grad, 0.0);
      expect_close(other.states, expected.states, 0.0);
    }
  });
}

TYPED_TEST(LanguageModelTest, PromptsAndStepsOfABatchEqualSeparateOnes) {
  using S = TypeParam;
  each_model<S>([](const Model<S>& model) {
    // Together longer than a tile, so that some prompts end within it and some go on.
    const std::vector<Index> lengths{5, 700, 1, 344};
    const Ids ids = random_ids(1050, 3), next = random_ids(4, 5);
    auto workspace = model.workspace(T);
    std::vector<typename Model<S>::State> together(4, model.initial_state()), apart = together;
    std::vector<typename Model<S>::State*> states;
    for (auto& state : together) states.push_back(&state);
    Matrix<S> after_prompt = unwritten<S>(V, 4), after_step = after_prompt;
    model.prefill_batch(ids, lengths, states, after_prompt, workspace);
    model.step_batch(next, states, after_step, workspace);
    std::size_t begin = 0;
    for (std::size_t s = 0; s < 4; ++s) {
      const auto size = static_cast<std::size_t>(lengths[s]);
      const auto column = static_cast<Index>(s);
      Vector<S> one = unwritten<S>(V, 1);
      model.prefill(std::span(ids).subspan(begin, size), apart[s], one, workspace);
      // A hundred times as many tokens as the tolerance is for; rounding adds up.
      EXPECT_LE(relative_error(after_prompt.col(column), one), 10 * tolerance::stream<S>);
      model.step(next[s], apart[s], one, workspace);
      EXPECT_LE(relative_error(after_step.col(column), one), 10 * tolerance::stream<S>);
      begin += size;
    }
    expect_close(together, apart, 10 * tolerance::stream<S>);
  });
}

TYPED_TEST(LanguageModelTest, StepAllocatesNothing) {
  if constexpr (!counts_allocations) {
    GTEST_SKIP() << "allocations are counted with glibc and without sanitizers only";
  } else {
    using S = TypeParam;
    each_model<S>([](const Model<S>& model) {
      auto workspace = model.workspace(1);
      auto state = model.initial_state();
      Vector<S> logits(V);
      for (Index t = 0; t < T; ++t) {
        const AllocationCounter counter;
        model.step(static_cast<std::int32_t>(t), state, logits, workspace);
        EXPECT_EQ(counter.count(), 0u) << "token " << t;
      }
    });
  }
}

TEST(LanguageModelDoubleTest, BackwardEqualsDifferencesOfTheWholeModel) {
  each_model<double>([](Model<double> model) {
    const Ids ids = random_ids(T, 3), targets = random_ids(T, 4);
    auto workspace = model.workspace(T);
    Model<double>::Cache first, second;
    const double scale = 1.0 / T;
    const auto loss = [&] {
      auto state = model.initial_state();
      return scale * model.loss(ids, targets, state, workspace);
    };
    // In two pieces, so that the adjoint of a state inside a mini-batch is at work.
    const auto all = std::span(ids), all_targets = std::span(targets);
    auto state = model.initial_state();
    model.loss(all.first(6), all_targets.first(6), state, workspace, first);
    model.loss(all.subspan(6), all_targets.subspan(6), state, workspace, second);
    auto grad = zeros_like(model.parameters());
    auto d_state = zeros_like(state);
    model.backward(second, scale, d_state, grad, workspace);
    model.backward(first, scale, d_state, grad, workspace);
    model.backward_initial_state(d_state, grad);
    GradientCheckOptions options;
    options.elements_per_tensor = 5;
    options.step = 4e-4;  // three blocks bend more than one: truncation falls with h^4
    EXPECT_TRUE(check_gradient(model.parameters(), grad, loss, options));
    EXPECT_EQ(first_non_finite(grad), std::nullopt);
  });
}

TEST(LanguageModelDoubleTest, ATiedHeadIsTheEmbedding) {
  const auto tied = make_model<double>(variants[0]);
  auto untied_variant = variants[0];
  untied_variant.tied = false;
  auto untied = make_model<double>(untied_variant);
  EXPECT_EQ(count_elements(untied.parameters()), count_elements(tied.parameters()) + 8 * V);
  untied.parameters().embedding = tied.parameters().embedding;
  untied.parameters().trunk = tied.parameters().trunk;
  untied.parameters().head = tied.parameters().embedding;
  const Ids ids = random_ids(T, 3), targets = random_ids(T, 4);
  auto tied_grad = zeros_like(tied.parameters());
  auto untied_grad = zeros_like(untied.parameters());
  const auto run_model = [&](const Model<double>& model, Model<double>::Parameters& grad) {
    auto workspace = model.workspace(T);
    auto state = model.initial_state();
    Model<double>::Cache cache;
    const double loss = model.loss(ids, targets, state, workspace, cache);
    auto d_state = zeros_like(state);
    model.backward(cache, 1, d_state, grad, workspace);
    return loss;
  };
  EXPECT_EQ(run_model(tied, tied_grad), run_model(untied, untied_grad));
  EXPECT_LE(relative_error(tied_grad.embedding, untied_grad.embedding + untied_grad.head),
            tolerance::rounding<double>);
}

TEST(LanguageModelDoubleTest, EachBlockHoldsTheMixerOfItsLayerType) {
  const auto model = make_model<double>(variants[3]);
  const auto& layers = model.trunk().parameters().layers;
  ASSERT_EQ(layers.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(layers[i].mixer().index(), variants[3].layer_types[i]) << "block " << i;
  std::vector<std::string> inner;
  for_each_tensor(
      [&](const TensorInfo& info, const auto&) {
        if (info.name.ends_with(".W1") || info.name.ends_with(".W2")) inner.push_back(info.name);
      },
      model.parameters());
  EXPECT_EQ(inner,
            (std::vector<std::string>{
                "model.layers.0.seq_modeling_block.W1", "model.layers.0.seq_modeling_block.W2",
                "model.layers.1.seq_modeling_block.W1", "model.layers.2.seq_modeling_block.W1"}));
}

TEST(LanguageModelRefusalTest, WrongIdsTargetsAndLengths) {
  const auto model = make_model<double>(variants[2]);
  auto workspace = model.workspace(T);
  auto state = model.initial_state();
  std::vector<Model<double>::State*> states{&state};
  const Ids good = random_ids(4, 3), three = random_ids(3, 3), low{1, -1, 2, 3}, high{1, 2, 3, V};
  const auto loss = [&](const Ids& ids, const Ids& targets, const std::vector<Index>& lengths) {
    return message_of([&] { model.loss_batch(ids, targets, lengths, states, workspace, nullptr); });
  };
  EXPECT_EQ(loss(low, good, {4}),
            "Embedding.forward: the id at position 1 is -1, expected 0 to V - 1 with V = 13");
  EXPECT_EQ(
      loss(good, high, {4}),
      "CrossEntropy.forward: the target at position 3 is 13, expected 0 to V - 1 with V = 13");
  EXPECT_EQ(loss(good, three, {4}), "LanguageModel.loss: 4 ids and 3 targets, expected as many");
  EXPECT_EQ(loss(good, good, {3}), "Trunk.forward: the lengths sum to 3, x has 4 columns");
  EXPECT_EQ(loss(good, good, {2, 2}), "Trunk.forward: 2 lengths for 1 states");
  EXPECT_EQ(loss(good, good, {-4}), "Trunk.forward: a sequence has the negative length -4");

  Vector<double> nats(3), logits(V);
  Matrix<double> too_few(V - 1, 4);
  EXPECT_EQ(message_of([&] {
              model.loss(good, good, state, workspace, {}, std::span<double>(nats.data(), 3));
            }),
            "LanguageModel.loss: room for 3 nats, expected 4");
  EXPECT_EQ(message_of([&] { model.logits(good, state, too_few, workspace); }),
            "LanguageModel.logits: logits has shape 12 x 4, expected 13 x 4");
  EXPECT_EQ(message_of([&] { model.prefill({}, state, logits, workspace); }),
            "LanguageModel.prefill: no tokens, expected at least one");
  const auto prefill = [&](const std::vector<Index>& lengths, Index columns) {
    Matrix<double> last(V, columns);
    std::vector<Model<double>::State*> both{&state, &state};
    return message_of([&] { model.prefill_batch(good, lengths, both, last, workspace); });
  };
  EXPECT_EQ(prefill({2, 2}, 3),
            "LanguageModel.prefill_batch: last_logits has shape 13 x 3, expected 13 x 2");
  EXPECT_EQ(prefill({2, 1}, 2),
            "LanguageModel.prefill_batch: the lengths do not sum to the 4 tokens");
  EXPECT_EQ(prefill({4, 0}, 2),
            "LanguageModel.prefill_batch: a prompt of 0 tokens, expected at least one");
  EXPECT_EQ(message_of([&] { model.step_batch(three, states, too_few, workspace); }),
            "LanguageModel.step_batch: logits has shape 12 x 4, expected 13 x 3");
  EXPECT_EQ(message_of([&] { model.step(V, state, logits, workspace); }),
            "Embedding.step: the id at position 0 is 13, expected 0 to V - 1 with V = 13");
}

TEST(LanguageModelRefusalTest, AStateOfAnotherModel) {
  const auto model = make_model<double>(variants[2]);
  auto workspace = model.workspace(T);
  const Ids ids = random_ids(4, 3);
  const auto message = [&](const Variant& other) {
    auto state = make_model<double>(other).initial_state();
    return message_of([&] { model.loss(ids, ids, state, workspace); });
  };
  EXPECT_EQ(message(variants[0]), "Trunk: the state has 1 layers, expected 2");
  Variant swapped = variants[2], no_conv = variants[2], transformer = variants[2];
  swapped.layer_types = {1, 0};
  no_conv.pre_conv = false;
  transformer.mamba = false;
  EXPECT_EQ(message(swapped), "Block: the state belongs to another mixer");
  EXPECT_EQ(message(no_conv), "Block: the state's conv_tail has shape 0 x 0, expected 8 x 3");
  EXPECT_EQ(message(transformer),
            "TTTLayer: the state's conv_tail has shape 8 x 0, expected 8 x 3");
}

TEST(LanguageModelRefusalTest, AnEmptyVocabulary) {
  auto config = make_model<double>(variants[0]).config();
  config.vocabulary = 0;
  EXPECT_EQ(message_of([&] { Model<double> model(config); }),
            "LanguageModelConfig: vocabulary is 0, expected a positive number");
}

}  // namespace
}  // namespace ttt::test
