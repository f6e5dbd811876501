/// @file
/// Is a step in time? Each step of one layer is timed on its own, on one thread, in float, and the
/// slow ones count: median, 99th and 99.9th percentile and maximum of 10^7 steps, mini-batch
/// borders included (every 16th step of a TTT layer moves W; their median stands beside). The
/// timer's own time is in every figure, and printed. The maximum is the operating system's: a
/// thread with real-time priority on a core of its own (--core) has few such.
///   realtime                TTT-Linear, TTT-MLP, LSTM of width 16, 32, 64, 128; "-fixed": of a
///                           width that the type says
///   realtime --soak STEPS   all signals that a stream may bring, for hours (support/soak.hpp)
/// Runs with denormal numbers flushed to zero, as real-time programs do, see --keep-denormals.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>

#include "../examples/support/csv.hpp"
#include "../examples/support/format.hpp"
#include "../examples/support/machine.hpp"
#include "support/rtneural.hpp"
#include "support/soak.hpp"
#include "ttt/core/flush_denormals.hpp"
#include "ttt/layers/fixed_lstm.hpp"
#include "ttt/layers/fixed_ttt_linear.hpp"
#include "ttt/layers/fixed_ttt_mlp.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace ttt::bench {
namespace {

#if defined(TTT_WITH_RTNEURAL)
const std::vector<std::string> known_layers{
    "ttt-linear", "ttt-linear-fixed", "ttt-mlp",       "ttt-mlp-fixed",
    "lstm",       "lstm-fixed",       "rtneural-lstm", "rtneural-gru"};
#else
const std::vector<std::string> known_layers{
    "ttt-linear", "ttt-linear-fixed", "ttt-mlp", "ttt-mlp-fixed", "lstm", "lstm-fixed"};
#endif

struct Options {
  std::int64_t steps = 10'000'000, soak = 0;
  std::vector<Index> widths{16, 32, 64, 128};
  std::vector<std::string> layers = known_layers;
  std::string csv;
  std::optional<int> core;
  bool keep_denormals = false;
};

/// One head up to width 64, then heads of 64.
TTTConfig ttt_config(Index width, double base_learning_rate) {
  return {.width = width,
          .heads = std::max<Index>(width / 64, 1),
          .base_learning_rate = base_learning_rate};
}

struct Timings {
  Histogram all, border;  // ticks of every step, of every mini-batch's last
};

/// `step(x_t, y_t)` over `steps` tokens of noise, and a hundredth of them before to warm up.
/// A border is every `mini_batch`-th step; 0: none.
template <class Step>
Timings measure(Index width, std::int64_t steps, Index mini_batch, Step&& step) {
  Timings timings;
  Matrix<float> x(width, 256);
  Random(1).fill_normal(x, 1);
  Vector<float> y(width);
  const std::int64_t period = std::max<Index>(mini_batch, 1);
  for (std::int64_t t = -(steps / 100 / period * period); t < steps; ++t) {
    const Index column = static_cast<Index>(t & 255);
    const std::uint64_t start = TickClock::now();
    step(x.col(column), y);
    const std::uint64_t ticks = TickClock::now() - start;
    if (t < 0) continue;
    timings.all.add(ticks);
    if (mini_batch > 0 && t % mini_batch == mini_batch - 1) timings.border.add(ticks);
  }
  require(y.allFinite(), "realtime: an output is not finite");
  return timings;
}

template <SequenceLayer L>
Timings measure_layer(const typename L::Config& config, std::int64_t steps) {
  const L layer(config);
  auto state = layer.initial_state();
  auto workspace = layer.workspace(1);
  Index mini_batch = 0;
  if constexpr (requires { config.mini_batch; }) mini_batch = config.mini_batch;
  return measure(config.width, steps, mini_batch, [&](VectorIn<float> x, VectorOut<float> y) {
    layer.step(x, state, y, workspace);
  });
}

/// A layer whose type says its sizes.
template <class Fixed>
Timings measure_fixed(const typename Fixed::Dynamic::Config& config, std::int64_t steps) {
  const auto layer = std::make_unique<Fixed>(typename Fixed::Dynamic(config));
  auto state = layer->initial_state();
  Index mini_batch = 0;
  if constexpr (requires { config.mini_batch; }) mini_batch = config.mini_batch;
  return measure(config.width, steps, mini_batch, [&](VectorIn<float> x, VectorOut<float> y) {
    layer->step(x.data(), state, y.data());
  });
}

#if defined(TTT_WITH_RTNEURAL)
template <class Peer>
Timings measure_peer(Index width, std::int64_t steps) {
  const auto peer = std::make_unique<Peer>();
  return measure(width, steps, 0, [&](VectorIn<float> x, VectorOut<float> y) {
    y = Eigen::Map<const Vector<float>>(peer->step(x.data()), width);
  });
}
#endif

/// `body` with the width as a constant. Sizes are part of these types: nothing for other widths.
template <class Body>
std::optional<Timings> with_fixed(Index width, Body&& body) {
  switch (width) {
    case 16:
      return body(std::integral_constant<int, 16>());
    case 32:
      return body(std::integral_constant<int, 32>());
    case 64:
      return body(std::integral_constant<int, 64>());
    case 128:
      return body(std::integral_constant<int, 128>());
    default:
      return std::nullopt;
  }
}

/// Nothing where the layer does not exist in that width.
std::optional<Timings> measure(const std::string& layer, Index width, std::int64_t steps) {
  if (layer == "ttt-linear") return measure_layer<TTTLinear<float>>(ttt_config(width, 1), steps);
  if (layer == "ttt-mlp") return measure_layer<TTTMLP<float>>(ttt_config(width, 0.1), steps);
  if (layer == "lstm") return measure_layer<LSTM<float>>({width}, steps);
  if (layer == "ttt-linear-fixed")
    return with_fixed(width, [&]<int n>(std::integral_constant<int, n>) {
      constexpr int heads = std::max(n / 64, 1);
      return measure_fixed<FixedTTTLinear<float, n / heads, heads>>(ttt_config(n, 1), steps);
    });
  if (layer == "ttt-mlp-fixed")
    return with_fixed(width, [&]<int n>(std::integral_constant<int, n>) {
      constexpr int heads = std::max(n / 64, 1);
      return measure_fixed<FixedTTTMLP<float, n / heads, heads>>(ttt_config(n, 0.1), steps);
    });
  if (layer == "lstm-fixed")
    return with_fixed(width, [&]<int n>(std::integral_constant<int, n>) {
      return measure_fixed<FixedLSTM<float, n>>({n}, steps);
    });
#if defined(TTT_WITH_RTNEURAL)
  if (layer == "rtneural-lstm")
    return with_fixed(width, [&]<int n>(std::integral_constant<int, n>) {
      return measure_peer<RTNeuralLSTM<n>>(n, steps);
    });
  if (layer == "rtneural-gru")
    return with_fixed(width, [&]<int n>(std::integral_constant<int, n>) {
      return measure_peer<RTNeuralGRU<n>>(n, steps);
    });
#endif
  return std::nullopt;
}

void measure_all(const Options& options, double nanoseconds_per_tick, double timer) {
  examples::CsvTable csv({"layer", "width", "heads", "steps", "median_ns", "p99_ns", "p99.9_ns",
                          "max_ns", "border_median_ns", "timer_ns"});
  std::printf("\n%-16s %6s %6s %10s %9s %9s %9s %11s\n", "nanoseconds", "width", "heads", "median",
              "p99", "p99.9", "border", "maximum");
  for (const std::string& layer : options.layers) {
    for (const Index width : options.widths) {
      const std::optional<Timings> timings = measure(layer, width, options.steps);
      if (!timings) continue;
      const auto ns = [&](double ticks) { return ticks * nanoseconds_per_tick; };
      const Histogram& all = timings->all;
      const bool is_ttt = timings->border.total() > 0;
      const Index heads = is_ttt ? ttt_config(width, 1).heads : 0;
      const double border = is_ttt ? ns(timings->border.median()) : std::nan("");
      const double maximum = ns(static_cast<double>(all.maximum()));
      std::printf("%-16s %6td %6s %10.0f %9.0f %9.0f %9s %11.0f\n", layer.c_str(), width,
                  is_ttt ? std::to_string(heads).c_str() : "-", ns(all.median()),
                  ns(all.quantile(0.99)), ns(all.quantile(0.999)),
                  examples::fixed(border, 0).c_str(), maximum);
      std::fflush(stdout);
      csv.add(layer, width, heads, options.steps, ns(all.median()), ns(all.quantile(0.99)),
              ns(all.quantile(0.999)), maximum, border, timer);
    }
  }
  if (!options.csv.empty()) csv.write(options.csv);
}

bool soak_all(const Options& options, double nanoseconds_per_tick) {
  bool holds = true;
  require(std::any_of(options.layers.begin(), options.layers.end(),
                      [](const std::string& layer) {
                        return !layer.starts_with("rtneural") && !layer.ends_with("-fixed");
                      }),
          "realtime: --soak is for the library's layers of run-time size, and --layers names none");
  for (const std::string& layer : options.layers) {
    for (const Index width : options.widths) {
      const auto run = [&]<class L>(std::type_identity<L>, const typename L::Config& config) {
        holds &= soak<L>(layer.c_str(), config, options.soak, nanoseconds_per_tick);
      };
      if (layer == "ttt-linear") run(std::type_identity<TTTLinear<float>>(), ttt_config(width, 1));
      if (layer == "ttt-mlp") run(std::type_identity<TTTMLP<float>>(), ttt_config(width, 0.1));
      if (layer == "lstm") run(std::type_identity<LSTM<float>>(), LSTMConfig{width});
    }
  }
  std::printf("\n%s\n", holds ? "Every output was finite, and no step became slower." : "FAILED");
  return holds;
}

/// The median of two readings of the timer with nothing between them, in ticks.
double timer_ticks() {
  Histogram ticks;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t start = TickClock::now();
    ticks.add(TickClock::now() - start);
  }
  return ticks.median();
}

void pin_to(int core) {
#if defined(__linux__)
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  require(sched_setaffinity(0, sizeof cores, &cores) == 0, "realtime: core ", core,
          " is not one that this process may run on");
#else
  require(false, "realtime: --core ", core, " needs Linux");
#endif
}

void add_options(CLI::App& app, Options& options) {
  constexpr std::int64_t most_steps = 1'000'000'000'000;
  app.add_option("--steps", options.steps, "Steps that are timed, of each layer and width")
      ->check(CLI::Range(std::int64_t{1}, most_steps))
      ->capture_default_str();
  app.add_option("--width", options.widths, "Widths, separated by commas (16,32,64,128)")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  app.add_option("--layers", options.layers, "Layers, separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(known_layers));
  app.add_option("--csv", options.csv, "Write the table to FILE as well")->option_text("FILE");
  app.add_option("--core", options.core, "Run on this core alone (Linux)")
      ->check(CLI::Range(0, 1023));
  app.add_option(
         "--soak", options.soak,
         "Instead: STEPS of each layer (of width 16 unless --width is given) through "
         "silence, noise, a constant, impulses, gain jumps and a fade; exit code 1 where an "
         "output is not finite or steps become slower")
      ->check(CLI::Range(std::int64_t{1}, most_steps))
      ->option_text("STEPS");
  app.add_flag("--keep-denormals", options.keep_denormals,
               "Compute with denormal numbers as the processor does by itself");
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Times each step of a layer: what is slow now and then, counts.");
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.soak > 0 && app.count("--width") == 0) options.widths = {16};
  Eigen::setNbThreads(1);
  if (options.core) pin_to(*options.core);
  std::optional<FlushDenormals> flush;
  if (!options.keep_denormals) flush.emplace();

  const double nanoseconds_per_tick = TickClock::nanoseconds_per_tick();
  const double timer = timer_ticks() * nanoseconds_per_tick;
  for (const auto& [name, value] : examples::machine_facts(examples::this_machine(1, argc, argv)))
    std::printf("%-9s %s\n", name.c_str(), value.c_str());
  std::printf("%-9s %s; %.0f ns of each figure are its own\n", "timer", TickClock::name, timer);
  if (options.soak > 0) return soak_all(options, nanoseconds_per_tick) ? 0 : 1;
  measure_all(options, nanoseconds_per_tick, timer);
  return 0;
}

}  // namespace
}  // namespace ttt::bench

int main(int argc, char** argv) {
  try {
    return ttt::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
