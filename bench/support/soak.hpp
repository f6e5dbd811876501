/// @file
/// A stream that never ends, in small: many steps of one layer through all signals (signals.hpp),
/// ten rounds of them. Holds if every output is finite, and if in the last round no signal's median
/// step takes more than 1.5 times that of a new stream. Both step in turn, token by token: a
/// machine that slows down under other work slows down both.
#pragma once

#include <cstdio>

#include "support/histogram.hpp"
#include "support/signals.hpp"
#include "support/tick_clock.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt::bench {

/// What a run of steps of one signal left behind.
struct SoakPart {
  Histogram ticks, fresh_ticks;
  std::int64_t looked_at = 0, denormal = 0;  // steps, and those after which a number was denormal
  std::int64_t first_non_finite = -1;        // step within the part
};

/// `steps` tokens of `signal` through `layer`, and where there is one through the stream `fresh`.
/// Stops where an output is not finite.
template <SequenceLayer L>
SoakPart soak_part(const L& layer, typename L::State& state, typename L::State* fresh,
                   const SignalSource& source, Signal signal, std::int64_t steps) {
  SoakPart part;
  auto workspace = layer.workspace(1);
  Vector<float> x(layer.width()), y(layer.width());
  const auto step = [&](typename L::State& stream, Histogram& ticks) {
    const std::uint64_t start = TickClock::now();
    layer.step(x, stream, y, workspace);
    ticks.add(TickClock::now() - start);
  };
  for (std::int64_t t = 0; t < steps; ++t) {
    source.read(signal, t, x);
    if (fresh) step(*fresh, part.fresh_ticks);
    step(state, part.ticks);
    if (!y.allFinite()) {
      part.first_non_finite = t;
      break;
    }
    if (t % 61 == 0) {  // a prime: every place of a mini-batch has its turn
      ++part.looked_at;
      part.denormal += has_denormal(state) ? 1 : 0;
    }
  }
  return part;
}

/// Prints a line for each part; returns whether all holds.
template <SequenceLayer L>
bool soak(const char* name, const typename L::Config& config, std::int64_t steps,
          double nanoseconds_per_tick) {
  constexpr int rounds = 10;
  constexpr double slowest = 1.5;
  const L layer(config);
  const SignalSource source(layer.width());
  auto state = layer.initial_state();
  const std::int64_t each = std::max<std::int64_t>(steps / (rounds * std::ssize(all_signals)), 1);
  bool holds = true;
  std::int64_t done = 0;
  std::printf("\n%s, width %td\n%13s  %-10s %12s %11s %11s %10s\n", name, layer.width(), "steps",
              "signal", "norm of W", "median ns", "p99.9 ns", "denormal");
  for (int round = 0; round < rounds; ++round) {
    for (const Signal signal : all_signals) {
      auto fresh = layer.initial_state();
      const bool last = round == rounds - 1;
      const SoakPart part = soak_part(layer, state, last ? &fresh : nullptr, source, signal, each);
      const double median = part.ticks.median() * nanoseconds_per_tick;
      done += each;
      std::printf("%13lld  %-10s %12.5g %11.0f %11.0f %9.1f%%\n", static_cast<long long>(done),
                  signal_name(signal), state_norm(state), median,
                  part.ticks.quantile(0.999) * nanoseconds_per_tick,
                  100.0 * static_cast<double>(part.denormal) /
                      static_cast<double>(std::max<std::int64_t>(part.looked_at, 1)));
      std::fflush(stdout);
      if (part.first_non_finite >= 0) {
        std::printf("FAILED: output %lld of %s is not finite\n",
                    static_cast<long long>(part.first_non_finite), signal_name(signal));
        return false;
      }
      if (last && part.ticks.median() > slowest * part.fresh_ticks.median()) {
        std::printf("FAILED: a step of %s takes %.0f ns, one of a new stream %.0f\n",
                    signal_name(signal), median, part.fresh_ticks.median() * nanoseconds_per_tick);
        holds = false;
      }
    }
  }
  return holds;
}

}  // namespace ttt::bench
