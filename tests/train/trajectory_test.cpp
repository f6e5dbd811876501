// Ten optimiser steps against golden values, by the pieces of the library and by Trainer, whole and
// in micro-batches.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/tolerances.hpp"
#include "ttt/io/checkpoint.hpp"
#include "ttt/io/config.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/train/trainer.hpp"

namespace ttt::test {
namespace {

/// A golden file of ten steps (golden/README.md).
template <class Layer>
struct Golden {
  using Model = LanguageModel<Layer>;
  static constexpr bool linear = std::same_as<Layer, TTTLinear<double>>;

  SafetensorsFile file{std::string(TTT_GOLDEN_DIR "/train/ttt_training_") +
                       (linear ? "linear_M_preconv" : "mlp_T") + ".safetensors"};
  Index steps = file.shape("input_ids")[0];
  Index batch = file.shape("input_ids")[1];
  Index tokens = file.shape("input_ids")[2] - 1;

  Model model() const {
    const auto json = nlohmann::json::parse(file.metadata().at("config"));
    Model model(language_model_config_from_json<Layer>(json));
    load_parameters(file, model.parameters(), {.prefix = "initial."});
    return model;
  }

  TrainingConfig training() const {
    const auto h = nlohmann::json::parse(file.metadata().at("hyperparameters"));
    const auto config = nlohmann::json::parse(file.metadata().at("config"));
    TrainingConfig training;
    training.schedule = {h.at("peak_learning_rate"), h.at("final_learning_rate"),
                         h.at("warmup_steps"), h.at("total_steps")};
    training.adamw = {.beta1 = h.at("betas")[0],
                      .beta2 = h.at("betas")[1],
                      .epsilon = h.at("epsilon"),
                      .weight_decay = h.at("weight_decay")};
    training.max_gradient_norm = h.at("clip_norm");
    training.inner_rate = {h.at("inner_initial_rate"), config.at("ttt_base_lr"),
                           h.at("inner_warmup_steps")};
    return training;
  }

  /// The sequences of a step: the first `tokens` ids are inputs, the last are targets.
  TokenBatch sequences(Index step) const {
    const auto all = file.read<std::int32_t>("input_ids");
    TokenBatch result;
    for (Index s = 0; s < batch; ++s) {
      const auto first = all.begin() + ((step - 1) * batch + s) * (tokens + 1);
      result.ids.insert(result.ids.end(), first, first + tokens);
      result.targets.insert(result.targets.end(), first + 1, first + tokens + 1);
      result.lengths.push_back(tokens);
    }
    return result;
  }
};

/// Rounding errors of ten steps: measured below 1e-13, a wrong constant in any formula gives more
/// than 1e-8.
constexpr double trajectory_tolerance = 1e-11;

template <class Layer>
void expect_recorded(const Golden<Layer>& golden, const TrainingStep& step) {
  const auto expect = [&](const char* name, double actual) {
    const double expected = golden.file.template read<double>(name)[std::size_t(step.step - 1)];
    EXPECT_NEAR(actual / expected, 1, trajectory_tolerance) << name << " of step " << step.step;
  };
  expect("losses", step.loss);
  expect("gradient_norms", step.gradient_norm);
  expect("learning_rates", step.learning_rate);
  expect("inner_rate_scales", step.inner_rate_scale);
}

template <class Layer>
void expect_final(const Golden<Layer>& golden, const LanguageModel<Layer>& model) {
  auto expected = zeros_like(model.parameters());
  load_parameters(golden.file, expected, {.prefix = "final."});
  for_each_tensor(
      [&](const TensorInfo& info, const auto& actual, const auto& wanted) {
        EXPECT_LE(relative_error(actual, wanted), trajectory_tolerance) << info.name;
      },
      model.parameters(), expected);
}

template <class Layer>
class TrajectoryTest : public ::testing::Test {};
using Layers = ::testing::Types<TTTLinear<double>, TTTMLP<double>>;
TYPED_TEST_SUITE(TrajectoryTest, Layers);

TYPED_TEST(TrajectoryTest, TrainerReproducesTenSteps) {
  const Golden<TypeParam> golden;
  auto model = golden.model();
  Trainer trainer(model, golden.training());
  ASSERT_EQ(golden.steps, 10);
  for (Index step = 1; step <= golden.steps; ++step) {
    const TrainingStep report = trainer.step(golden.sequences(step));
    EXPECT_EQ(report.step, step);
    expect_recorded(golden, report);
  }
  EXPECT_EQ(trainer.steps(), 10);
  expect_final(golden, model);
}

/// The same steps from the pieces that Trainer is made of, one sequence at a time.
TYPED_TEST(TrajectoryTest, PiecesReproduceTenSteps) {
  const Golden<TypeParam> golden;
  const TrainingConfig training = golden.training();
  auto model = golden.model();
  AdamW optimizer(model.parameters(), training.adamw);
  auto workspace = model.workspace(golden.tokens);
  const Index T = golden.tokens;
  const double scale = 1 / static_cast<double>(golden.batch * T);
  for (Index s = 1; s <= golden.steps; ++s) {
    TrainingStep report{.step = s,
                        .learning_rate = learning_rate(s, training.schedule),
                        .inner_rate_scale = inner_rate_scale(s, training.inner_rate)};
    const TokenBatch batch = golden.sequences(s);
    auto grad = zeros_like(model.parameters());
    for (Index begin = 0; begin < golden.batch * T; begin += T) {
      typename LanguageModel<TypeParam>::Cache cache;
      auto state = model.initial_state();
      report.loss += scale * model.loss(std::span(batch.ids).subspan(begin, T),
                                        std::span(batch.targets).subspan(begin, T), state,
                                        workspace, cache, {report.inner_rate_scale});
      set_zero(state);
      model.backward(cache, scale, state, grad, workspace);
      model.backward_initial_state(state, grad);
    }
    report.gradient_norm = clip_gradient(grad, training.max_gradient_norm);
    optimizer.step(model.parameters(), grad, report.learning_rate);
    expect_recorded(golden, report);
  }
  expect_final(golden, model);
}

/// Sequences of unequal length, whole and as two micro-batches: a mean of means would differ.
TYPED_TEST(TrajectoryTest, MicroBatchesGiveTheGradientOfTheWhole) {
  const Golden<TypeParam> golden;
  TokenBatch whole = golden.sequences(1);
  const Index T = golden.tokens, short_length = 5;
  std::vector<TokenBatch> parts(2);
  for (auto* ids : {&whole.ids, &whole.targets}) ids->resize(std::size_t(T + short_length));
  whole.lengths = {T, short_length};
  for (const std::size_t part : {0, 1}) {
    const auto cut = [&](const std::vector<std::int32_t>& ids) {
      return part == 0 ? std::vector(ids.begin(), ids.begin() + T)
                       : std::vector(ids.begin() + T, ids.end());
    };
    parts[part] = {cut(whole.ids), cut(whole.targets), {whole.lengths[part]}};
  }

  auto one_model = golden.model(), two_model = golden.model();
  Trainer one(one_model, golden.training()), two(two_model, golden.training());
  for (int step = 0; step < 3; ++step) {
    const TrainingStep a = one.step(whole), b = two.step(parts);
    EXPECT_NEAR(a.loss / b.loss, 1, tolerance::rounding<double>);
    EXPECT_NEAR(a.gradient_norm / b.gradient_norm, 1, trajectory_tolerance);
  }
  const auto a = one.state(), b = two.state();
  for_each_tensor(
      [](const TensorInfo& info, const auto& x, const auto& y) {
        EXPECT_LE(relative_error(x, y), trajectory_tolerance) << info.name;
      },
      a, b);
  for_each_tensor(
      [](const TensorInfo& info, const auto& x, const auto& y) {
        EXPECT_LE(relative_error(x, y), trajectory_tolerance) << info.name;
      },
      one_model.parameters(), two_model.parameters());
}

}  // namespace
}  // namespace ttt::test
