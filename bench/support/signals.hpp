/// @file
/// What a stream may bring in a day: silence, noise, one value for ever, single impulses, a gain
/// that jumps by 1000, and noise that fades through the denormal numbers to nothing.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "ttt/core/fields.hpp"
#include "ttt/core/random.hpp"
#include "ttt/core/views.hpp"
#include "ttt/train/gradient_clip.hpp"

namespace ttt::bench {

enum class Signal { silence, noise, constant, impulses, gain_jumps, fade };
inline constexpr std::array<Signal, 6> all_signals{Signal::silence,    Signal::noise,
                                                   Signal::constant,   Signal::impulses,
                                                   Signal::gain_jumps, Signal::fade};

inline const char* signal_name(Signal signal) {
  static constexpr const char* names[] = {"silence",  "noise",      "constant",
                                          "impulses", "gain jumps", "fade"};
  return names[static_cast<std::size_t>(signal)];
}

/// Tokens of width D. Reading one allocates nothing.
class SignalSource {
 public:
  explicit SignalSource(Index width, std::uint64_t seed = 1) : noise_(width, period) {
    Random(seed).fill_normal(noise_, 1);
  }

  /// Writes token t of the signal into x [D].
  void read(Signal signal, std::int64_t t, VectorOut<float> x) const {
    x = gain(signal, t) * noise_.col(signal == Signal::constant ? 0 : t % period);
  }

 private:
  /// A prime: noise does not fall into step with mini-batches.
  static constexpr std::int64_t period = 251;

  static float gain(Signal signal, std::int64_t t) {
    switch (signal) {
      case Signal::silence:
        return 0;
      case Signal::impulses:
        return t % 100 == 0 ? 10.0f : 0.0f;
      case Signal::gain_jumps:
        return t / 500 % 2 == 0 ? 1.0f : 1000.0f;
      case Signal::fade:  // from 1 to the least denormal number in 2300 tokens, then silence
        return std::exp2(static_cast<float>(-(t % 3000)) / 15);
      default:
        return 1;
    }
  }

  Matrix<float> noise_;  // [D, period]
};

/// By its bits: in flush-to-zero mode, a comparison takes a denormal number for zero.
inline bool is_denormal(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value) & 0x7fffffffu;
  return bits != 0 && bits < 0x00800000u;
}

/// Whether a number of the state is denormal.
template <class State>
bool has_denormal(const State& state) {
  bool found = false;
  for_each_tensor(
      [&](const TensorInfo&, const auto& tensor) {
        for (Index i = 0; i < tensor.size(); ++i) found |= is_denormal(tensor.data()[i]);
      },
      state);
  return found;
}

/// The norm of the weights W that the stream has learned, of its whole state for other layers.
template <class State>
double state_norm(const State& state) {
  if constexpr (requires { state.weights; }) {
    return global_norm(state.weights);
  } else {
    return global_norm(state);
  }
}

}  // namespace ttt::bench
