#include "perplexity/options.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "perplexity/models.hpp"

namespace ttt::examples {
namespace {

constexpr const char* description =
    "Trains language models of bytes whose layers learn while they read, evaluates them on text\n"
    "held out from training, and compares them with one another and with counting.\n"
    "\n"
    "A byte is always predicted before it is learned from. All models are equally large and see\n"
    "the same bytes in the same order. Writes results.csv, by_position.csv, extrapolation.csv,\n"
    "frozen.csv, latency.csv, comparison.csv, curves.csv, inner_loss.csv, metrics.jsonl,\n"
    "report.html and a checkpoint of each model into the folder --out.\n"
    "Ctrl-C saves a checkpoint and ends with the report so far; --resume goes on.\n"
    "Exit code: 0, 1 for bad input, 2 for a bad command line, 130 after Ctrl-C.";

/// Numbers above 0; CLI11's own check would name the largest double as the other end.
const CLI::Validator positive(
    [](std::string& text) -> std::string {
      double value = 0;
      if (CLI::detail::lexical_cast(text, value) && value > 0) return {};
      return "'" + text + "' is not a number above 0";
    },
    "ABOVE 0");

std::string layer_names() {
  std::string names;
  for (const LayerKind& kind : layer_kinds()) names += (names.empty() ? "" : ", ") + kind.name;
  return names;
}

void list_layers() {
  for (const LayerKind& kind : layer_kinds())
    std::printf("%-14s %s\n", kind.name.c_str(), kind.description.c_str());
}

void add_text_options(CLI::App& app, Options& o) {
  app.add_option(
      "--text", o.text,
      "Texts: files, or folders (their *.txt). One file is cut 90/5/5, several are divided "
      "by whole files");
  app.add_option("--validation-text", o.validation_text, "Texts for validation, not trained on");
  app.add_option("--test-text", o.test_text, "Texts for the test, not trained on");
  app.add_option("--test-bytes", o.test_bytes, "Evaluate on at most this many bytes (default: all)")
      ->check(positive);
}

void add_model_options(CLI::App& app, Options& o) {
  app.add_option("--layers", o.layers, "Layers to compare, separated by commas: " + layer_names())
      ->delimiter(',')
      ->check([](const std::string& name) {
        try {
          layer_kind(name);
          return std::string();
        } catch (const std::invalid_argument& error) {
          return std::string(error.what());
        }
      })
      ->capture_default_str();
  app.add_option("--context", o.contexts,
                 "Training contexts in bytes, separated by commas (a token of the paper is about "
                 "four bytes)")
      ->delimiter(',')
      ->check(positive)
      ->capture_default_str();
  app.add_option("--width", o.width, "Channels of the model")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--depth", o.depth, "Blocks")->check(positive)->capture_default_str();
  app.add_option("--heads", o.heads, "Heads; each learns inner weights of its own")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--mini-batch", o.mini_batch, "Tokens in a mini-batch of the inner loop")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--window", o.window, "Tokens that window attention sees")
      ->check(positive)
      ->capture_default_str();
}

void add_resource_options(CLI::App& app, Options& o) {
  app.add_option("--threads", o.threads, "Threads (default: all cores)")->check(positive);
  app.add_option("--memory", o.memory,
                 "Memory that the program may take, such as 800MB or 2GB: training steps are then "
                 "taken in parts, which changes results by rounding alone (default: no limit)")
      ->transform(CLI::AsSizeValue(true));
}

void add_training_options(CLI::App& app, Options& o) {
  auto* minutes =
      app.add_option("--minutes", o.minutes,
                     "Training budget of a model, on average over all: 20 steps of each are "
                     "measured, which fixes one number of bytes for all")
          ->check(positive)
          ->capture_default_str();
  auto* steps = app.add_option("--steps", o.steps, "... or in steps")->check(positive);
  auto* tokens = app.add_option("--tokens", o.tokens, "... or in bytes")->check(positive);
  minutes->excludes(steps)->excludes(tokens);
  steps->excludes(tokens);
  app.add_option("--batch-tokens", o.batch_tokens, "Bytes in a training step (at least one window)")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate,
                 "Peak of the outer learning rate (default: each layer's own)")
      ->check(positive);
  app.add_option("--seed", o.seeds, "Seeds, separated by commas: of initialization and windows")
      ->delimiter(',')
      ->check(CLI::TypeValidator<std::uint64_t>("WHOLE NUMBER"))
      ->capture_default_str();
  app.add_option("--checkpoint-every", o.checkpoint_every, "Steps between two checkpoints")
      ->check(positive)
      ->capture_default_str();
  app.add_option("--study", o.study,
                 "learning-rate: instead of the comparison, try rates for each layer and compare "
                 "them on the validation text")
      ->check(CLI::IsMember({"learning-rate"}));
  app.add_flag(
      "--resume", o.resume,
      "Continue from the checkpoints in --out; models that are finished are only evaluated");
}

void add_output_options(CLI::App& app, Options& o) {
  app.add_option("--out", o.out, "Folder for results and checkpoints")->capture_default_str();
  app.add_option(
      "--checkpoint", o.checkpoint,
      "Evaluate the checkpoint in this folder (config.json, model.safetensors) instead of "
      "training");
  app.add_flag("--carry-state", o.carry_state,
               "Carry the state from window to window of a test text (default: reset it)");
  app.add_flag_callback(
      "--no-latency", [&o] { o.latency = false; },
      "Do not measure the speed of reading and writing");
  app.add_flag("--train-only", o.train_only, "Train and save, do not evaluate");
  app.add_flag("--json", o.json, "Print results as JSON, one object a line, instead of a table");
}

}  // namespace

std::optional<int> parse_options(int argc, char** argv, Options& options) {
  CLI::App app(description, "perplexity");
  add_text_options(app, options);
  add_model_options(app, options);
  add_training_options(app, options);
  add_resource_options(app, options);
  add_output_options(app, options);
  bool quick = false, full = false, list = false;
  auto* quick_flag =
      app.add_flag("--quick", quick, "Twenty seconds of training each, 50 000 bytes of test text");
  app.add_flag("--full", full, "Half an hour of training each, contexts 1024 and 4096")
      ->excludes(quick_flag);
  app.add_flag("--list-layers", list, "List the layers and stop");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (list) {
    list_layers();
    return 0;
  }
  const bool budget_given =
      app.count("--minutes") + app.count("--steps") + app.count("--tokens") > 0;
  if (quick) {
    if (!budget_given) options.minutes = 1.0 / 3;
    if (app.count("--test-bytes") == 0) options.test_bytes = 50000;
  } else if (full) {
    if (!budget_given) options.minutes = 30;
    if (app.count("--context") == 0) options.contexts = {1024, 4096};
  }
  if (options.text.empty() && (options.test_text.empty() || options.checkpoint.empty())) {
    std::fprintf(stderr,
                 "perplexity: no text, expected --text FILE or FOLDER (or --test-text beside "
                 "--checkpoint)\n");
    return 2;
  }
  return std::nullopt;
}

}  // namespace ttt::examples
