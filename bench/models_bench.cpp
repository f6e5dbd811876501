/// @file
/// Speed and memory of whole language models of the 125m size: width 768, 12 blocks of 12 heads,
/// SwiGLU 2048, vocabulary 32000, tied head; TTT-Linear and TTT-MLP in the Transformer backbone,
/// and Mamba with 24 blocks without SwiGLU. Random weights, float.
///
///   models_bench [options of Google Benchmark]    tokens a second
///     prefill    a prompt of T tokens; logits of the last one alone
///     decode     one token: the model's own weights, and packed as float, bfloat16, int8
///     train      one step: forward and backward of one sequence of T tokens, clipping, AdamW;
///                train-recompute keeps only what enters each block (TrainingConfig::recompute)
///   models_bench --memory                         largest resident memory of these steps
///   models_bench --mamba-vocabulary [options]     with 50280 words, as the published Mamba models
///
/// Decoding reads every weight once a token, so memory bounds it: `of_memory` is the part of the
/// best rate, measured in this run, at which as many threads read 512 MB one after another.
#include <chrono>
#include <cstdio>
#include <map>

#include "../examples/support/threads.hpp"
#include "support/layer_bench.hpp"
#include "support/peak_memory.hpp"
#include "support/program.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/train/trainer.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ttt::bench {
namespace {

// One type for all, since each takes a minute to compile.
using Model = LanguageModel<TTTLinear<float>, TTTMLP<float>, Mamba<float>>;
constexpr const char* names[] = {"model-ttt-linear-t", "model-ttt-mlp-t", "model-mamba"};
constexpr Index width = 768, heads = 12, mini_batch = 16, tokens = 2048;
Index vocabulary = 32000;

Model::Config config_of(std::size_t kind) {
  const bool mamba = kind == 2;
  const TTTConfig linear{.width = width, .heads = heads, .mini_batch = mini_batch};
  TTTConfig mlp = linear;
  mlp.base_learning_rate = 0.1;
  Model::Config config{.vocabulary = vocabulary, .tie_embeddings = true, .trunk = {}};
  config.trunk.depth = mamba ? 24 : 12;
  config.trunk.block = {.width = width, .intermediate = mamba ? 0 : 2048};
  config.trunk.mixers = {linear, mlp, {.width = width}};
  config.trunk.layer_types.assign(static_cast<std::size_t>(config.trunk.depth), kind);
  return config;
}

/// Kept while benchmarks of one kind follow one another.
Model& model_of(std::size_t kind) {
  static std::size_t kept_kind;
  static std::unique_ptr<Model> kept;
  if (!kept || kept_kind != kind) {
    kept.reset();
    kept = std::make_unique<Model>(config_of(kind));
    kept_kind = kind;
  }
  return *kept;
}

std::vector<std::int32_t> text(Index length) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(length));
  Random random(1);
  for (auto& id : ids) id = static_cast<std::int32_t>(random.below(vocabulary));
  return ids;
}

/// Bytes a second of the best of several readings of 512 MB, in huge pages where there are any.
double read_rate(int threads) {
  constexpr std::size_t bytes = std::size_t{512} << 20, page = std::size_t{1} << 21;
  const std::unique_ptr<float, void (*)(void*)> memory(
      static_cast<float*>(std::aligned_alloc(page, bytes)), std::free);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  static_cast<void>(madvise(memory.get(), bytes, MADV_HUGEPAGE));
#endif
  Eigen::Map<Vector<float>> all(memory.get(), bytes / sizeof(float));
  all.setOnes();
  const Index part = all.size() / threads;
  double seconds = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 10; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, threads, [&](Index i, Index) {
      benchmark::DoNotOptimize(all.segment(i * part, part).sum());
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    seconds = std::min(seconds, time.count());
  }
  return static_cast<double>(bytes) / seconds;
}

/// The best of the run so far.
double memory_rate(int threads) {
  static std::map<int, double> best;
  return best[threads] = std::max(best[threads], read_rate(threads));
}

void measure_prefill(benchmark::State& run, std::size_t kind) {
  const Model& model = model_of(kind);
  const auto prompt = text(tokens);
  auto workspace = model.workspace(1024);
  Vector<float> logits(model.vocabulary());
  for (auto _ : run) {
    auto state = model.initial_state();
    model.prefill(prompt, state, logits, workspace);
  }
  report(run, logits, tokens, 0, 0);
}

Index streamed_bytes(const Model& model) {
  Index bytes = 0;
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor) {
        if (info.streamed) bytes += tensor.size() * static_cast<Index>(sizeof(float));
      },
      model.parameters());
  return bytes;
}

void measure_decode(benchmark::State& run, std::size_t kind, std::optional<WeightFormat> format,
                    int threads) {
  Model& model = model_of(kind);
  const double rate = memory_rate(threads);
  std::optional<DecodeWeights> weights;
  if (format) weights.emplace(model, *format, threads);
  const RunOptions options{.decode_weights = weights ? &*weights : nullptr};
  auto state = model.initial_state();
  auto workspace = model.workspace(1);
  Vector<float> logits(model.vocabulary());
  const auto ids = text(64);
  std::size_t t = 0;
  for (auto _ : run) model.step(ids[t++ % ids.size()], state, logits, workspace, options);
  const Index bytes = weights ? weights->bytes() : streamed_bytes(model);
  report(run, logits, 1, 0, state_bytes(state));
  run.SetBytesProcessed(run.iterations() * bytes);
  run.counters["of_memory"] = flops_counter(static_cast<double>(bytes) / rate);
}

/// A model, and what trains it on one sequence.
struct Training {
  Model model;
  Trainer<Model> trainer;
  TokenBatch batch{text(tokens), text(tokens), {tokens}};
  Training(std::size_t kind, bool recompute)
      : model(config_of(kind)), trainer(model, config(recompute)) {}

 private:
  static TrainingConfig config(bool recompute) {
    TrainingConfig config;
    config.recompute = recompute;
    return config;
  }
};

void measure_training(benchmark::State& run, std::size_t kind, bool recompute) {
  Training training(kind, recompute);
  training.trainer.step(training.batch);  // the first one allocates
  for (auto _ : run) training.trainer.step(training.batch);
  run.SetItemsProcessed(run.iterations() * tokens);
}

void register_all() {
  for (std::size_t kind = 0; kind < std::size(names); ++kind) {
    for (const int threads : thread_counts()) {
      const Case c{names[kind], width,  kind < 2 ? heads : 0, kind < 2 ? mini_batch : 0,
                   tokens,      threads};
      const auto decode = [&](const char* operation, std::optional<WeightFormat> format) {
        register_case(c, operation,
                      [=](benchmark::State& run) { measure_decode(run, kind, format, threads); });
      };
      register_case(c, "prefill", [=](benchmark::State& run) { measure_prefill(run, kind); });
      decode("decode", std::nullopt);
      decode("decode-float", WeightFormat::float32);
      decode("decode-bfloat16", WeightFormat::bfloat16);
      decode("decode-int8", WeightFormat::int8);
      for (const bool recompute : {false, true})
        register_case(c, recompute ? "train-recompute" : "train",
                      [=](benchmark::State& run) { measure_training(run, kind, recompute); });
    }
  }
}

/// Megabytes of a process that trains one step.
double training_megabytes(std::size_t kind, bool recompute) {
  return peak_megabytes([&] {
    Training training(kind, recompute);
    training.trainer.step(training.batch);
  });
}

}  // namespace
}  // namespace ttt::bench

int main(int argc, char** argv) {
  using namespace ttt::bench;
  ttt::examples::wait_briefly(argv);
  Program program(argc, argv);
  if (program.take_option("--mamba-vocabulary")) vocabulary = 50280;
  if (!program.take_option("--memory")) return program.run(register_all);
  for (std::size_t kind = 0; kind < std::size(names); ++kind) {
    std::printf("%-20s%8.0f MB, recomputing %5.0f MB\n", names[kind],
                training_megabytes(kind, false), training_megabytes(kind, true));
    std::fflush(stdout);
  }
}
