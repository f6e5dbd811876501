#include "perplexity/experiment.hpp"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "perplexity/summary.hpp"

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

nlohmann::json json_of(const ResultRow& row) {
  return {{"layer", row.layer},
          {"backbone", row.backbone},
          {"train_context", row.train_context},
          {"seed", row.seed},
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
  const auto mode = options.resume ? std::ios::app : std::ios::trunc;
  metrics_.open(options.out / "metrics.jsonl", std::ios::out | mode);
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
  if (checkpoint_) {
    evaluate_checkpoint();
  } else {
    if (!options_.train_only) count();
    for (const std::int64_t context : options_.contexts)
      for (const std::uint64_t seed : options_.seeds)
        for (const std::string& name : options_.layers)
          train_and_evaluate(layer_kind(name), context, seed);
  }
  if (options_.train_only || options_.json) return;
  std::cout << '\n' << results_sentences(report_.results) << '\n';
  const std::string frozen = frozen_sentence(report_.frozen);
  if (!frozen.empty()) std::cout << frozen << '\n';
  std::cout << "report: " << (options_.out / "report.html").string() << '\n';
}

void Experiment::count() {
  std::vector<std::string_view> documents;
  for (const Document& document : text_.train) documents.emplace_back(document.bytes);
  constexpr int longest = 4;
  const CountModel model(documents, longest);
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

std::string Experiment::model_folder(const LayerKind& kind, std::int64_t context,
                                     std::uint64_t seed) const {
  std::string name = kind.name + "-" + std::to_string(context);
  if (options_.seeds.size() > 1) name += "-" + std::to_string(seed);
  return (options_.out / name).string();
}

void Experiment::train_and_evaluate(const LayerKind& kind, std::int64_t context,
                                    std::uint64_t seed) {
  const double rate = options_.learning_rate > 0 ? options_.learning_rate : kind.learning_rate;
  const Run run{kind, context, seed, rate, model_folder(kind, context, seed)};
  TrainedModel trained = train(run, options_, text_.train, metrics_);
  report_.curves.insert(report_.curves.end(), trained.curve.begin(), trained.curve.end());
  write_curves(options_.out / "curves.csv", report_.curves);
  if (options_.train_only) return;
  ResultRow row;
  row.layer = kind.name;
  row.backbone = kind.backbone;
  row.train_context = context;
  row.seed = seed;
  row.learning_rate = rate;
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
  for (const double scale : {1.0, 0.0, 0.5, 2.0}) {
    const LossByWindow loss = evaluate(model, windows, scale, options_.carry_state);
    for (const BucketLoss& bucket : loss.buckets) {
      report_.frozen.push_back({row.layer, row.train_context, row.seed, scale, bucket.begin,
                                bucket.end, bucket.loss.nats, bucket.loss.standard_error});
      if (scale == 1)
        report_.positions.push_back({row.layer, row.train_context, row.seed, bucket.begin,
                                     bucket.end, bucket.loss.nats, bucket.loss.standard_error,
                                     bucket.loss.count});
    }
    if (scale != 1) continue;
    row.parameters = count_elements(model.parameters());
    row.state_bytes = state_bytes(model);
    row.nats_per_byte = loss.all.nats;
    row.stderr_nats = loss.all.standard_error;
    add_row(row);  // the first thing that a reader waits for
  }
  constexpr std::size_t inner_loss_windows = 4;  // slow by design, and enough for a picture
  for (const InnerLossBucket& bucket : inner_losses(model, windows, inner_loss_windows))
    report_.inner_losses.push_back({row.layer, row.train_context, bucket.block, bucket.head,
                                    bucket.begin, bucket.end, bucket.initial,
                                    bucket.mini_batch_start, bucket.before, bucket.after});
  const std::string_view prompt = windows.front().substr(0, 200);
  report_.samples.push_back({row.layer, row.train_context, std::string(prompt),
                             sample(model, prompt, 600, 0.7, row.seed)});
  write_files();
}

void Experiment::add_row(const ResultRow& row) {
  report_.results.push_back(row);
  if (options_.json)
    std::cout << json_of(row).dump() << std::endl;
  else
    printer_.print(row);
  nlohmann::json event = json_of(row);
  event["event"] = "result";
  metrics_ << event.dump() << std::endl;
  require_written(metrics_);
  write_files();
}

void Experiment::write_files() const {
  const auto& out = options_.out;
  write_results(out / "results.csv", report_.results);
  write_positions(out / "by_position.csv", report_.positions);
  write_frozen(out / "frozen.csv", report_.frozen);
  write_inner_losses(out / "inner_loss.csv", report_.inner_losses);
  write_report(out / "report.html", report_);
}

}  // namespace ttt::examples
