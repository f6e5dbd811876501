// Writes text with a language model of bytes: reads a prompt, then draws byte after byte, each from
//   p(next | all before) = softmax(logits / temperature)      (ttt/lm/sampling.hpp)
// What the model has read is its state, of fixed size but with full attention; with --save-state it
// goes to a file, and --load-state goes on from there exactly as if the program had never stopped.
// The weights are read from memory once for each byte, which takes most of the time of a large
// model: --weights bf16 and int8 round them to a half and a quarter of the bytes. What the rounding
// costs, --score tells: the bits that the model needs for each byte of a text.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <numbers>
#include <optional>

#include "perplexity/models.hpp"
#include "support/format.hpp"
#include "support/text.hpp"
#include "support/threads.hpp"
#include "ttt/io/state.hpp"
#include "ttt/lm/generation.hpp"

namespace {

using ttt::examples::LoadedModel, ttt::examples::Model;

struct Options {
  std::string checkpoint, prompt, score, save_state, load_state;
  std::int64_t bytes = 400;
  std::optional<std::uint64_t> seed;
  std::string weights = "float";
  int threads = 0;
  ttt::SamplingConfig sampling;
};

const std::map<std::string, ttt::WeightFormat> weight_formats{{"float", ttt::WeightFormat::float32},
                                                              {"bf16", ttt::WeightFormat::bfloat16},
                                                              {"int8", ttt::WeightFormat::int8}};

/// Names a model by its configuration and every bit of its parameters (FNV-1a, by 64 bits).
std::string fingerprint(const LoadedModel& checkpoint) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const char c : checkpoint.json.dump()) add(static_cast<unsigned char>(c));
  ttt::for_each_tensor(
      [&](const ttt::TensorInfo&, const auto& tensor) {
        for (ttt::Index i = 0; i < tensor.size(); ++i)
          add(std::bit_cast<std::uint32_t>(tensor.data()[i]));
      },
      checkpoint.model.parameters());
  char text[24];
  std::snprintf(text, sizeof text, "model %016llx", static_cast<unsigned long long>(hash));
  return text;
}

void write_bytes(const Model& model, const Options& options, ttt::Generation<Model>& text,
                 Model::Workspace& workspace, const ttt::RunOptions& run_options) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < options.bytes; ++i) {
    const auto byte = ttt::write_token(model, options.sampling, text, workspace, run_options);
    if (std::fputc(byte, stdout) == EOF || std::fflush(stdout) != 0)
      throw std::runtime_error("cannot write to standard output");
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  std::cerr << "\nwrote " << options.bytes << " bytes in " << ttt::examples::duration(time.count())
            << '\n';
}

/// Prints the mean of -log2 p(byte | all before) over the bytes of a file. The first one counts if
/// something was read before it.
void print_score(const Model& model, const std::string& path, ttt::Generation<Model>& text,
                 Model::Workspace& workspace, const ttt::RunOptions& run_options) {
  constexpr std::size_t tile = 2048;
  const auto documents = ttt::examples::read_documents({path});
  ttt::require(documents.size() == 1, path, " is a folder of ", documents.size(),
               " texts, expected one file");
  auto tokens = ttt::examples::tokens_of(documents[0].bytes);
  if (text.last >= 0) tokens.insert(tokens.begin(), text.last);
  ttt::require(tokens.size() > 1, path, " has one byte, expected one more or a prompt before it");
  const std::size_t predicted = tokens.size() - 1;
  double nats = 0;
  for (std::size_t begin = 0; begin < predicted; begin += tile) {
    const std::size_t size = std::min(tile, predicted - begin);
    const Model::Tokens read(&tokens[begin], size), next(&tokens[begin + 1], size);
    nats += model.loss(read, next, text.state, workspace, run_options);
  }
  text.last = tokens.back();
  std::printf("%.6f bits per byte over %zu bytes\n",
              nats / std::numbers::ln2 / static_cast<double>(predicted), predicted);
}

void run(const Options& options) {
  const int threads = ttt::examples::use_threads(options.threads);
  LoadedModel checkpoint = ttt::examples::load_checkpoint(options.checkpoint);
  const Model& model = checkpoint.model;
  // First: a state belongs to the model with its weights as they are rounded here.
  const ttt::DecodeWeights weights(checkpoint.model, weight_formats.at(options.weights), threads);
  const ttt::RunOptions run_options{.decode_weights = &weights};
  const std::string name = fingerprint(checkpoint);
  std::cerr << checkpoint.kind.name << ", " << model.config().trunk.depth << " blocks of width "
            << model.width() << ", "
            << ttt::examples::compact(static_cast<double>(ttt::count_elements(model.parameters())))
            << " parameters\n";

  ttt::Generation<Model> text{model.initial_state()};
  if (!options.load_state.empty()) {
    ttt::load_state(options.load_state, text, name);
    model.trunk().check(text.state);
  }
  if (options.seed) text.random_seed = *options.seed;
  auto workspace = model.workspace(1);
  ttt::append(model, ttt::examples::tokens_of(options.prompt), text, workspace, run_options);
  if (options.score.empty()) {
    write_bytes(model, options, text, workspace, run_options);
  } else {
    print_score(model, options.score, text, workspace, run_options);
  }
  if (options.save_state.empty()) return;
  ttt::save_state(options.save_state, text, name);
  std::cerr << "saved the state in " << options.save_state << '\n';
}

/// Exit code to leave with at once, if there is one.
std::optional<int> parse(int argc, char** argv, Options& options) {
  CLI::App app(
      "Writes text with a language model of bytes: the bytes alone go to standard output,\n"
      "all else to standard error. The prompt is not repeated.\n"
      "Exit code: 0 done, 1 bad input (checkpoint or state), 2 bad command line.");
  app.add_option("--checkpoint", options.checkpoint,
                 "Folder with config.json and model.safetensors (Hugging Face layout)")
      ->required();
  app.add_option("--prompt", options.prompt, "Text that the model reads before it writes");
  app.add_option("--bytes", options.bytes, "How many bytes to write")->capture_default_str();
  app.add_option("--score", options.score,
                 "Write nothing: print how many bits the model needs for each byte of this FILE")
      ->option_text("FILE");
  auto& sampling = options.sampling;
  app.add_option("--temperature", sampling.temperature,
                 "Divides the logits: below 1 bolder, 0 always the likeliest byte")
      ->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "Draw from the K likeliest bytes; 0: from all")
      ->capture_default_str();
  app.add_option("--top-p", sampling.top_p,
                 "Draw from the fewest bytes whose probabilities reach P together")
      ->capture_default_str();
  app.add_option("--seed", options.seed,
                 "Of the random numbers (default 0, with --load-state where they were)");
  app.add_option("--weights", options.weights,
                 "Numbers of the weights: float as they are, bf16 or int8 rounded")
      ->check(CLI::IsMember(&weight_formats))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads; 0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--save-state", options.save_state, "Where to save the state after the last byte");
  app.add_option("--load-state", options.load_state,
                 "A saved state to go on from; a prompt is read after what it has read");
  try {
    app.parse(argc, argv);
    sampling.validate();
    ttt::require(options.bytes >= 0, "--bytes is ", options.bytes, ", expected 0 or more");
    ttt::require(!options.prompt.empty() || !options.load_state.empty() || !options.score.empty(),
                 "there is nothing to go on from: give --prompt TEXT or --load-state FILE");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::invalid_argument& error) {
    std::cerr << "generate: " << error.what() << '\n';
    return 2;
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  ttt::examples::wait_briefly(argv);
  Options options;
  if (const auto exit_code = parse(argc, argv, options)) return *exit_code;
  try {
    run(options);
  } catch (const std::exception& error) {
    std::cerr << "generate: " << error.what() << '\n';
    return 1;
  }
}
