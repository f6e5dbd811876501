#include "perplexity/training.hpp"

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "support/clock.hpp"
#include "support/format.hpp"
#include "support/interrupt.hpp"
#include "support/memory.hpp"
#include "support/progress.hpp"
#include "ttt/io/state.hpp"
#include "ttt/train/trainer.hpp"

namespace ttt::examples {
namespace {

/// All that a run needs to go on exactly where it stopped.
struct ResumePoint {
  Model::Parameters parameters;
  Trainer<Model>::State trainer;
  Index planned_steps = 0;
  double seconds = 0;

  static auto fields(auto& self) {
    return std::tuple(field("parameters", self.parameters), field("trainer", self.trainer),
                      field("planned_steps", self.planned_steps), field("seconds", self.seconds));
  }
};

TrainingConfig training_config(const Run& run, Index total_steps) {
  TrainingConfig config;
  const Index warmup = total_steps / 10;
  config.schedule = {run.learning_rate, std::min(1e-5, run.learning_rate), warmup, total_steps};
  if (run.kind.inner_warmup)
    config.inner_rate = {run.kind.base_learning_rate / 10, run.kind.base_learning_rate, warmup};
  return config;
}

class TrainingRun {
 public:
  TrainingRun(const Run& run, const Options& options, const std::vector<Document>& text,
              std::ostream& metrics)
      : run_(run),
        options_(options),
        metrics_(metrics),
        model_(model_config(run.kind, options), Random(run.seed)),
        text_bytes_(total_bytes(text)),
        windows_(views_of(text), run.context, run.seed),
        sequences_(sequences_per_step(options, run.context)),
        together_(sequences_) {}

  double measure() {
    if (options_.memory > 0) fit_memory();
    Trainer<Model> trainer(model_, training_config(run_, 1000));
    constexpr Index unmeasured = 3, measured = 20;
    for (Index i = 0; i < unmeasured; ++i) trainer.step(batch(i));
    const double start = seconds_now();
    for (Index i = 0; i < measured; ++i) trainer.step(batch(i));
    return (seconds_now() - start) / measured;
  }

  TrainedModel train() {
    std::filesystem::create_directories(run_.folder);
    const auto state_file = run_.folder / "training.safetensors";
    std::optional<ResumePoint> point;
    if (options_.resume && std::filesystem::exists(state_file)) point = load(state_file);
    planned_steps_ = point ? point->planned_steps : run_.steps;
    if (planned_steps_ != run_.steps)
      std::cerr << run_.kind.name << " goes on to the " << planned_steps_
                << " steps of its plan, not to " << run_.steps << '\n';
    if (options_.memory > 0) fit_memory();
    Trainer<Model> trainer(model_, training_config(run_, planned_steps_));
    if (point) {
      trainer.restore(point->trainer);
      seconds_before_ = point->seconds;
      curve_ = logged_curve(trainer.steps());
      point.reset();
    }
    run_steps(trainer);
    const Index tokens = trainer.steps() * tokens_per_step();
    const double operations = flops(tokens);  // before the model moves out
    return {std::move(model_), trainer.steps(), tokens, seconds_, operations, std::move(curve_)};
  }

 private:
  /// Where an earlier run of the program stopped; the model takes up its parameters.
  ResumePoint load(const std::filesystem::path& file) {
    ResumePoint point{model_.parameters(), Trainer<Model>(model_, training_config(run_, 1)).state(),
                      0, 0};
    load_state(file, point, fingerprint());
    model_.parameters() = point.parameters;
    return point;
  }

  /// What metrics.jsonl says of this run up to `last_step`. (Steps after the last checkpoint are
  /// taken again, and logged again.)
  std::vector<TrainingPoint> logged_curve(Index last_step) const {
    std::map<Index, TrainingPoint> points;
    std::ifstream file(options_.out / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      const auto event = nlohmann::json::parse(line, nullptr, false);
      if (!event.is_object() || event.value("event", "") != "step") continue;
      if (event.value("layer", "") != run_.kind.name ||
          event.value("train_context", 0) != run_.context ||
          event.value("seed", std::uint64_t{0}) != run_.seed)
        continue;
      const Index step = event.value("step", Index{0});
      if (step > last_step) continue;
      points[step] = {run_.kind.name,
                      run_.context,
                      run_.seed,
                      step,
                      event.value("tokens", Index{0}),
                      event.value("seconds", 0.0),
                      event.value("flops", 0.0),
                      event.value("nats_per_byte", not_known),
                      event.value("learning_rate", not_known),
                      event.value("gradient_norm", not_known)};
    }
    std::vector<TrainingPoint> curve;
    for (const auto& [step, point] : points) curve.push_back(point);
    return curve;
  }

  std::string fingerprint() const {
    return concat(run_.kind.name, " width ", options_.width, " depth ", options_.depth, " heads ",
                  options_.heads, " mini-batch ", options_.mini_batch, " window ", options_.window,
                  " text of ", text_bytes_, " bytes,", " context ", run_.context, " batch ",
                  options_.batch_tokens, " seed ", run_.seed, " learning rate ",
                  run_.learning_rate);
  }

  Index tokens_per_step() const { return sequences_ * run_.context; }
  double flops(Index tokens) const {
    return training_flops_per_token(model_, run_.context) * static_cast<double>(tokens);
  }

  /// Windows that a forward and backward may take at once, so that memory suffices: as many as fit
  /// by what the first one takes, but for a tenth in reserve.
  void fit_memory() {
    return_free_memory();  // of earlier models, which would hide what a window takes
    Model scratch = model_;
    Trainer<Model> trainer(scratch, training_config(run_, 1000));
    const std::int64_t before = resident_bytes();
    trainer.step(windows_.batch(0, 1));
    const std::int64_t one = std::max<std::int64_t>(1, resident_bytes() - before);
    const std::int64_t left = options_.memory - options_.memory / 10 - before;
    require(left >= one, "--memory is ", byte_size(static_cast<double>(options_.memory)), ", but ",
            run_.kind.name, " needs about ", byte_size(static_cast<double>(before + one) / 0.9),
            " to train at a context of ", run_.context);
    together_ = std::clamp<Index>(left / one, 1, sequences_);
  }

  /// The windows of a step, in micro-batches that memory has room for.
  std::vector<TokenBatch> batch(Index step) {
    std::vector<TokenBatch> batches;
    for (Index begin = 0; begin < sequences_; begin += together_)
      batches.push_back(
          windows_.batch(step * sequences_ + begin, std::min(together_, sequences_ - begin)));
    return batches;
  }

  void run_steps(Trainer<Model>& trainer) {
    const Index first = trainer.steps();
    const double start = seconds_now();
    Progress progress(
        std::cerr, progress_on_stderr(run_.kind.name + ", context " + std::to_string(run_.context),
                                      planned_steps_, first));
    const Index log_every = std::max<Index>(1, planned_steps_ / 200);
    double loss = 0;
    Index losses = 0;
    seconds_ = seconds_before_;
    while (trainer.steps() < planned_steps_) {
      const TrainingStep step = trainer.step(batch(trainer.steps()));
      seconds_ = seconds_before_ + seconds_now() - start;
      loss += step.loss;
      ++losses;
      progress.update(step.step, (step.step - first) * tokens_per_step(),
                      loss / static_cast<double>(losses));
      if (step.step % log_every == 0 || step.step == planned_steps_) {
        log(step, loss / static_cast<double>(losses));
        loss = 0;
        losses = 0;
      }
      const bool stop = interrupt_requested() && step.step < planned_steps_;
      if (step.step % options_.checkpoint_every == 0 || step.step == planned_steps_ || stop)
        save(trainer);
      if (!stop) continue;
      progress.finish();
      throw Interrupted(concat("interrupted after step ", step.step, " of ", planned_steps_, " of ",
                               run_.kind.name, "; --resume goes on from there"));
    }
    progress.finish();
  }

  void log(const TrainingStep& step, double mean_loss) {
    const Index tokens = step.step * tokens_per_step();
    curve_.push_back({run_.kind.name, run_.context, run_.seed, step.step, tokens, seconds_,
                      flops(tokens), mean_loss, step.learning_rate, step.gradient_norm});
    metrics_ << nlohmann::json{{"event", "step"},
                               {"layer", run_.kind.name},
                               {"train_context", run_.context},
                               {"seed", run_.seed},
                               {"step", step.step},
                               {"tokens", tokens},
                               {"seconds", seconds_},
                               {"flops", flops(tokens)},
                               {"nats_per_byte", mean_loss},
                               {"learning_rate", step.learning_rate},
                               {"inner_rate_scale", step.inner_rate_scale},
                               {"gradient_norm", step.gradient_norm}}
                    .dump()
             << std::endl;
    require_written(metrics_);
  }

  /// The state first: it holds the parameters too, so a run that stops between the two files still
  /// resumes from one consistent point.
  void save(const Trainer<Model>& trainer) {
    const ResumePoint point{model_.parameters(), trainer.state(), planned_steps_, seconds_};
    save_state(run_.folder / "training.safetensors", point, fingerprint());
    save_checkpoint(run_.folder, model_);
  }

  const Run& run_;
  const Options& options_;
  std::ostream& metrics_;
  Model model_;
  std::int64_t text_bytes_;
  TokenWindows windows_;
  Index sequences_, together_, planned_steps_ = 0;
  double seconds_before_ = 0, seconds_ = 0;
  std::vector<TrainingPoint> curve_;
};

}  // namespace

void require_written(const std::ostream& metrics) {
  if (!metrics) throw std::runtime_error("cannot write to metrics.jsonl: the disk may be full");
}

Index sequences_per_step(const Options& options, Index context) {
  return std::max<Index>(1, options.batch_tokens / context);
}

double measure_step(const Run& run, const Options& options, const std::vector<Document>& text) {
  std::ofstream no_metrics;
  return TrainingRun(run, options, text, no_metrics).measure();
}

TrainedModel train(const Run& run, const Options& options, const std::vector<Document>& text,
                   std::ostream& metrics) {
  return TrainingRun(run, options, text, metrics).train();
}

}  // namespace ttt::examples
