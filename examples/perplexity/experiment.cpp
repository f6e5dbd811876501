#include "perplexity/experiment.hpp"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "perplexity/comparison.hpp"
#include "perplexity/latency.hpp"
#include "perplexity/study.hpp"
#include "support/interrupt.hpp"

namespace ttt::examples {
namespace {

std::string names_of(const std::vector<Document>& documents) {
  std::string names;
  for (const Document& document : documents)
    names += (names.empty() ? "" : ", ") + std::filesystem::path(document.name).filename().string();
  return names;
}

/// An empty folder, or one that can be written to; the sentence says which it is not.
void open_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const auto probe = folder / ".writable";
  const bool writable = !error && std::ofstream(probe).put('\n').flush().good();
  std::filesystem::remove(probe, error);
  if (!writable)
    throw std::runtime_error("cannot write to the output folder " + folder.string() +
                             ", expected one that can be made and written to (--out DIR)");
}

/// Of a CSV file, without its header; none where there is no file.
std::size_t count_rows(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::size_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  return lines > 0 ? lines - 1 : 0;
}

void stop_if_requested() {
  if (interrupt_requested())
    throw Interrupted("interrupted; --resume evaluates again what was trained, and goes on");
}

nlohmann::json json_of(const ResultRow& row) {
  return {{"layer", row.layer},
          {"backbone", row.backbone},
          {"train_context", row.train_context},
          {"seed", row.seed},
          {"learning_rate", row.learning_rate},
          {"parameters", row.parameters},
          {"train_tokens", row.train_tokens},
          {"train_seconds", row.train_seconds},
          {"train_flops", row.train_flops},
          {"state_bytes", row.state_bytes},
          {"nats_per_byte", row.nats_per_byte},
          {"stderr", row.stderr_nats},
          {"bits_per_byte", row.bits_per_byte()},
          {"perplexity_per_byte", row.perplexity_per_byte()}};
}

}  // namespace

Experiment::Experiment(const Options& options, Machine machine)
    : options_(options), printer_(std::cout) {
  const std::int64_t longest = *std::max_element(options.contexts.begin(), options.contexts.end());
  // All input is read and checked before anything is written.
  if (!options.checkpoint.empty()) checkpoint_ = load_checkpoint(options.checkpoint);
  for (const std::string& name : options.layers) model_config(layer_kind(name), options);
  if (!checkpoint_)
    text_ = read_text({options.text, options.validation_text, options.test_text, longest});
  else if (options.test_text.empty())
    text_ = read_text({options.text, {}, {}, longest});
  else
    text_.test = read_documents(options.test_text);
  if (test_windows(text_.test, longest, 1).empty())
    throw std::invalid_argument("no test text has the " + std::to_string(longest + 1) +
                                " bytes that a context of " + std::to_string(longest) +
                                " needs: give a longer text or a shorter context");
  open_folder(options.out);
  report_.machine = std::move(machine);
  report_.notes.push_back("Text: " + std::to_string(text_.train.size()) +
                          " documents of together " + std::to_string(total_bytes(text_.train)) +
                          " bytes to train on, " + std::to_string(total_bytes(text_.test)) +
                          " bytes of other documents (" + names_of(text_.test) +
                          ") to test on. The state is " +
                          (options.carry_state ? "carried from window to window of a document."
                                               : "new at the start of each window."));
}

void Experiment::run() {
  if (!options_.json)
    for (const auto& [name, value] : machine_facts(report_.machine))
      std::cout << name << ": " << value << '\n';
  if (!options_.json) std::cout << report_.notes[0] << "\n\n" << std::flush;
  if (!options_.study.empty()) return study_learning_rates(options_, text_, std::cout);
  try {
    if (checkpoint_) {
      evaluate_checkpoint();
    } else {
      compare();
    }
  } catch (const Interrupted&) {
    if (!options_.train_only) write_files();
    print_summary();
    throw;
  }
  print_summary();
}

void Experiment::compare() {
  const auto mode = options_.resume ? std::ios::app : std::ios::trunc;
  metrics_.open(options_.out / "metrics.jsonl", std::ios::out | mode);
  if (options_.resume) rows_before_ = count_rows(options_.out / "results.csv");
  if (!options_.train_only) count();
  for (const Run& run : planned_runs()) train_and_evaluate(run);
  rows_before_ = 0;
  if (!options_.train_only) write_files();
}

std::vector<Run> Experiment::planned_runs() {
  std::vector<Run> runs;
  for (const std::int64_t context : options_.contexts) {
    for (const std::uint64_t seed : options_.seeds) {
      for (const std::string& name : options_.layers) {
        const LayerKind& kind = layer_kind(name);
        const double rate =
            options_.learning_rate > 0 ? options_.learning_rate : kind.learning_rate;
        runs.push_back({kind, context, seed, rate, model_folder(name, context, seed)});
      }
    }
  }
  const auto bytes = plan_training(runs, options_, text_.train, options_.out / "plan.json");
  for (Run& run : runs) run.steps = planned_steps(options_, run.context, bytes);
  return runs;
}

void Experiment::print_summary() const {
  if (options_.train_only || options_.json || report_.results.empty()) return;
  std::cout << '\n';
  for (const std::string& sentence : summary_sentences(report_)) std::cout << sentence << '\n';
  std::cout << "report: " << (options_.out / "report.html").string() << std::endl;
}

void Experiment::count() {
  constexpr int longest = 4;
  const CountModel model(views_of(text_.train), longest);
  const std::int64_t context = options_.contexts.front();
  const auto windows = test_windows(text_.test, context, options_.test_bytes);
  for (int k = 1; k <= longest; ++k) {
    const MeanLoss loss = evaluate(model, windows, k);
    ResultRow row;
    row.layer = "count-" + std::to_string(k);
    row.backbone = "count";
    row.train_context = context;
    row.parameters = static_cast<std::int64_t>(model.distinct(k));
    row.train_tokens = total_bytes(text_.train);
    row.nats_per_byte = loss.nats;
    row.stderr_nats = loss.standard_error;
    add_row(row);
  }
}

std::filesystem::path Experiment::model_folder(const std::string& layer, std::int64_t context,
                                               std::uint64_t seed) const {
  std::string name = layer + "-" + std::to_string(context);
  if (options_.seeds.size() > 1) name += "-" + std::to_string(seed);
  return options_.out / name;
}

void Experiment::train_and_evaluate(const Run& run) {
  const TrainedModel trained = train(run, options_, text_.train, metrics_);
  report_.curves.insert(report_.curves.end(), trained.curve.begin(), trained.curve.end());
  if (options_.train_only || !holds_back())
    write_curves(options_.out / "curves.csv", report_.curves);
  if (options_.train_only) return;
  ResultRow row;
  row.layer = run.kind.name;
  row.backbone = run.kind.backbone;
  row.train_context = run.context;
  row.seed = run.seed;
  row.learning_rate = run.learning_rate;
  row.train_tokens = trained.tokens;
  row.train_seconds = trained.seconds;
  row.train_flops = trained.flops;
  evaluate_model(trained.model, row);
}

void Experiment::evaluate_checkpoint() {
  ResultRow row;
  row.layer = checkpoint_->kind.name;
  row.backbone = checkpoint_->kind.backbone;
  row.train_context = options_.contexts.front();
  evaluate_model(checkpoint_->model, row);
}

void Experiment::evaluate_model(const Model& model, ResultRow row) {
  const auto windows = test_windows(text_.test, row.train_context, options_.test_bytes);
  const LossByWindow loss = evaluate(model, windows, 1, options_.carry_state);
  for (const BucketLoss& bucket : loss.buckets)
    report_.positions.push_back({row.layer, row.train_context, row.seed, bucket.begin, bucket.end,
                                 bucket.loss.nats, bucket.loss.standard_error, bucket.loss.count});
  row.parameters = count_elements(model.parameters());
  row.state_bytes = state_bytes(model, row.train_context);
  row.nats_per_byte = loss.all.nats;
  row.stderr_nats = loss.all.standard_error;
  add_row(row);  // the first thing that a reader waits for
  stop_if_requested();
  evaluate_frozen(model, row, windows, loss);
  stop_if_requested();
  evaluate_beyond(model, row, windows);
  write_files();
  stop_if_requested();
}

/// What learning while reading is worth, in layers that do.
void Experiment::evaluate_frozen(const Model& model, const ResultRow& row,
                                 const std::vector<std::string_view>& windows,
                                 const LossByWindow& as_trained) {
  // Slow by design, and enough for a picture; they are held in memory together.
  const std::size_t inner_loss_windows = options_.memory > 0 ? 1 : 4;
  const auto losses = inner_losses(model, windows, inner_loss_windows);
  if (losses.empty()) return;
  for (const InnerLossBucket& bucket : losses)
    report_.inner_losses.push_back({row.layer, row.train_context, bucket.block, bucket.head,
                                    bucket.begin, bucket.end, bucket.initial,
                                    bucket.mini_batch_start, bucket.before, bucket.after});
  add_frozen(row, 1, as_trained);
  for (const double scale : {0.0, 0.5, 2.0}) {
    stop_if_requested();
    add_frozen(row, scale, evaluate(model, windows, scale, options_.carry_state));
  }
}

/// Longer texts than in training, speed, and a sample of what the model writes.
void Experiment::evaluate_beyond(const Model& model, const ResultRow& row,
                                 const std::vector<std::string_view>& windows) {
  constexpr std::int64_t beyond_bytes = 200'000;
  const auto beyond =
      extrapolate(model, row.layer, row.train_context, row.seed, text_.test, beyond_bytes);
  report_.extrapolation.insert(report_.extrapolation.end(), beyond.begin(), beyond.end());
  stop_if_requested();
  const bool first =
      std::none_of(report_.latency.begin(), report_.latency.end(),
                   [&](const LatencyRow& other) { return other.layer == row.layer; });
  if (options_.latency && first) {  // neither seed nor training context change the speed
    LatencyOptions limits;
    if (options_.memory > 0)
      limits.max_state_bytes = std::min(limits.max_state_bytes, options_.memory / 4);
    const auto latency = measure_latency(model, row.layer, text_.test.front().bytes, limits);
    report_.latency.insert(report_.latency.end(), latency.begin(), latency.end());
  }
  const std::string_view prompt = windows.front().substr(0, 200);
  report_.samples.push_back({row.layer, row.train_context, std::string(prompt),
                             sample(model, prompt, 600, 0.7, row.seed)});
}

void Experiment::add_frozen(const ResultRow& row, double scale, const LossByWindow& loss) {
  for (const BucketLoss& bucket : loss.buckets)
    report_.frozen.push_back({row.layer, row.train_context, row.seed, scale, bucket.begin,
                              bucket.end, bucket.loss.nats, bucket.loss.standard_error});
}

void Experiment::add_row(const ResultRow& row) {
  report_.results.push_back(row);
  if (options_.json)
    std::cout << json_of(row).dump() << std::endl;
  else
    printer_.print(row);
  nlohmann::json event = json_of(row);
  event["event"] = "result";
  if (!checkpoint_) {
    metrics_ << event.dump() << std::endl;
    require_written(metrics_);
  }
  write_files();
}

/// The results of the run that is resumed stay in their files until as many are there again.
bool Experiment::holds_back() const { return report_.results.size() < rows_before_; }

void Experiment::write_files() const {
  if (holds_back()) return;
  const auto& out = options_.out;
  write_results(out / "results.csv", report_.results);
  write_positions(out / "by_position.csv", report_.positions);
  write_frozen(out / "frozen.csv", report_.frozen);
  write_positions(out / "extrapolation.csv", report_.extrapolation);
  write_latency(out / "latency.csv", report_.latency);
  write_comparison(out / "comparison.csv", compare_training(report_.curves));
  write_inner_losses(out / "inner_loss.csv", report_.inner_losses);
  write_report(out / "report.html", report_);
}

}  // namespace ttt::examples
