/// @file
/// One training step of a language model: loss, gradient (summed over micro-batches in their
/// order), clipping by global norm, AdamW with warm-up and cosine, warm-up of the inner rate.
/// Threads work inside the operations, whose parts are fixed by the shapes: the parameters after
/// any number of steps are bit-equal for any number of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>

#include "ttt/lm/language_model.hpp"
#include "ttt/train/adamw.hpp"
#include "ttt/train/gradient_clip.hpp"
#include "ttt/train/schedule.hpp"
#include "ttt/train/token_windows.hpp"

namespace ttt {

struct TrainingConfig {
  ScheduleConfig schedule;  ///< outer learning rate; `total_steps` is the plan's length
  AdamWConfig adamw;
  double max_gradient_norm = 1;
  InnerRateWarmup inner_rate;  ///< `warmup_steps` 0: none
  /// Keeps only what enters each block, and runs its forward again in backward: up to a third more
  /// time a step, and the memory of one block's intermediate values instead of all blocks'.
  bool recompute = false;
};

/// What one step did.
struct TrainingStep {
  Index step = 0;            ///< counted from 1
  double loss = 0;           ///< mean nats per token, before the update
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  double inner_rate_scale = 1;
};

/// Training met a value that is not finite.
struct NonFinite : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Says where a forward, or else its gradient, first left the finite numbers.
template <class Model>
std::string describe_non_finite(const Model& model, const typename Model::Cache& cache,
                                const typename Model::Parameters& grad) {
  const auto& blocks = model.trunk().parameters().layers;
  const auto& inputs = cache.trunk.inputs;  // of each block, where blocks run again
  auto workspace = model.trunk().workspace(cache.trunk.h.cols());
  for (std::size_t i = 0; i < std::max(inputs.size(), cache.trunk.layers.size()); ++i) {
    const bool last = i + 1 == blocks.size();
    if (!inputs.empty() && (last ? cache.trunk.h : inputs[i + 1]).allFinite()) continue;
    const auto& block = model.trunk().block_cache(i, cache.trunk, workspace);
    for (Index t = 0; t < block.h_mixer.cols(); ++t)
      if (!block.h_mixer.col(t).allFinite()) return concat("layer ", i, ", token ", t, " (input)");
    std::string where;
    visit_index(blocks[i].mixer(), [&](auto index, const auto& layer) {
      const auto& mixer_cache = std::get<index>(block.mixer);
      if constexpr (requires { layer.first_non_finite(mixer_cache); })
        where = layer.first_non_finite(mixer_cache);
    });
    if (!where.empty()) return concat("layer ", i, ", ", where);
    if (!block.h_mlp.allFinite()) return concat("layer ", i, " (mixer output)");
  }
  if (const auto tensor = first_non_finite(grad)) return "the gradient of " + *tensor;
  return "the loss";
}

template <class Model>
class Trainer {
 public:
  using Parameters = typename Model::Parameters;
  using Optimizer = AdamW<Parameters>;

  /// What must be saved, beside the parameters, to go on exactly.
  struct State {
    typename Optimizer::State optimizer;
    Index steps = 0;
    static auto fields(auto& self) {
      return std::tuple(field("optimizer", self.optimizer), field("steps", self.steps));
    }
  };

  /// The model must outlive the trainer, which updates its parameters.
  Trainer(Model& model, const TrainingConfig& config)
      : model_(model),
        config_(config),
        optimizer_(model.parameters(), config.adamw),
        grad_(zeros_like(model.parameters())),
        workspace_(model.workspace(1)) {
    config.schedule.validate();
    cache_.trunk.recompute = config.recompute;
  }

  Index steps() const { return steps_; }
  const TrainingConfig& config() const { return config_; }
  State state() const { return {optimizer_.state(), steps_}; }
  void restore(const State& state) {
    optimizer_.state() = state.optimizer;
    steps_ = state.steps;
  }

  TrainingStep step(const TokenBatch& batch) { return step(std::span(&batch, 1)); }

  /// One update from several micro-batches; the loss is the mean over all their tokens.
  /// Throws `NonFinite`, with parameters and optimizer as they were, where a number is
  /// not finite: the sentence names layer, head and token.
  TrainingStep step(std::span<const TokenBatch> micro_batches) {
    TrainingStep report;
    report.step = steps_ + 1;
    report.learning_rate = learning_rate(report.step, config_.schedule);
    report.inner_rate_scale = inner_rate_scale(report.step, config_.inner_rate);
    Index tokens = 0;
    for (const TokenBatch& batch : micro_batches) tokens += std::ssize(batch.ids);
    require(tokens > 0, "Trainer.step: no tokens, expected at least one");

    set_zero(grad_);
    for (const TokenBatch& batch : micro_batches)
      report.loss += accumulate(batch, tokens, report) / static_cast<double>(tokens);
    report.gradient_norm = clip_gradient(grad_, config_.max_gradient_norm);
    require_finite(report);
    optimizer_.step(model_.parameters(), grad_, report.learning_rate);
    ++steps_;
    return report;
  }

 private:
  using ModelState = typename Model::State;

  /// Adds a micro-batch's gradient of the mean; returns its summed nats.
  double accumulate(const TokenBatch& batch, Index tokens, const TrainingStep& report) {
    std::vector<ModelState> states(batch.lengths.size(), model_.initial_state());
    std::vector<ModelState*> pointers;
    for (ModelState& state : states) pointers.push_back(&state);
    const double nats = model_.loss_and_gradient_batch(
        batch.ids, batch.targets, batch.lengths, pointers, 1 / static_cast<double>(tokens), grad_,
        workspace_, cache_, {report.inner_rate_scale});
    if (!std::isfinite(nats)) {
      set_zero(grad_);  // the gradient of such a loss tells nothing
      stop(report);
    }
    for (const ModelState& state : states) model_.backward_initial_state(state, grad_);
    return nats;
  }

  void require_finite(const TrainingStep& report) const {
    if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) stop(report);
  }

  [[noreturn]] void stop(const TrainingStep& report) const {
    raise<NonFinite>(concat("training stopped at step ", report.step,
                            ": a value is not finite, first in ",
                            describe_non_finite(model_, cache_, grad_)));
  }

  Model& model_;
  TrainingConfig config_;
  Optimizer optimizer_;
  Parameters grad_;
  typename Model::Workspace workspace_;
  typename Model::Cache cache_;
  Index steps_ = 0;
};

}  // namespace ttt
