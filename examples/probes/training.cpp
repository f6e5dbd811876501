#include "probes/training.hpp"

#include <cmath>
#include <iostream>
#include <limits>

#include "support/clock.hpp"
#include "support/interrupt.hpp"
#include "support/progress.hpp"
#include "ttt/train/trainer.hpp"

namespace ttt::examples::probes {
namespace {

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

/// Nats of a byte; every window starts from a new state.
double test_loss(const Model& model, const std::vector<std::string_view>& windows) {
  constexpr std::size_t at_once = 8;
  auto workspace = model.workspace(1);
  double nats = 0;
  Index tokens = 0;
  for (std::size_t first = 0; first < windows.size(); first += at_once) {
    TokenBatch batch;
    for (std::size_t i = first; i < std::min(first + at_once, windows.size()); ++i)
      append_window(windows[i], batch);
    std::vector<Model::State> states(batch.lengths.size(), model.initial_state());
    std::vector<Model::State*> pointers;
    for (auto& state : states) pointers.push_back(&state);
    nats += model.loss_batch(batch.ids, batch.targets, batch.lengths, pointers, workspace, nullptr);
    tokens += std::ssize(batch.ids);
  }
  return nats / static_cast<double>(tokens);
}

}  // namespace

Result run(const Row& row, const Sizes& sizes, const Budget& budget, const Texts& texts,
           const std::string& label) {
  Model model(model_config(row, sizes), Random(budget.seed));
  const Index sequences = std::max<Index>(1, budget.batch_tokens / sizes.context);
  const Index step_tokens = sequences * sizes.context;
  const Index steps = std::max<Index>(1, budget.tokens / step_tokens);
  TrainingConfig config;
  config.schedule = {budget.learning_rate, 1e-5, steps / 10, steps};
  Trainer<Model> trainer(model, config);
  TokenWindows windows(texts.train, sizes.context, budget.seed);

  Result result{count_elements(model.parameters()), not_known, not_known, {}};
  const auto display = progress_on_stderr(label, steps);
  Progress progress(std::cerr, display);
  double mean_loss = not_known;
  const double start = seconds_now();
  try {
    while (trainer.steps() < steps) {
      if (interrupt_requested()) throw Interrupted("interrupted");
      const double loss = trainer.step(windows.batch(trainer.steps() * sequences, sequences)).loss;
      mean_loss = std::isnan(mean_loss) ? loss : 0.95 * mean_loss + 0.05 * loss;
      progress.update(trainer.steps(), trainer.steps() * step_tokens, mean_loss);
    }
    result.tokens_per_second = static_cast<double>(steps * step_tokens) / (seconds_now() - start);
    result.nats = test_loss(model, texts.test);
  } catch (const NonFinite&) {
    result.diverged_at = trainer.steps() + 1;
  }
  if (!result.diverged_at && !std::isfinite(result.nats)) {
    result.nats = not_known;
    result.diverged_at = steps;
  }
  progress.finish();
  if (display.terminal) std::cerr << "\x1b[A\x1b[K";  // the line is the row's until it is done
  return result;
}

}  // namespace ttt::examples::probes
