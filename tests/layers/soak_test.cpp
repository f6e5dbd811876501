// A stream that goes on and on, in small: every signal in turn, again and again, at the paper's
// learning rates. `bench/realtime --soak` is the long version, with times.
//   TTT_SOAK_STEPS   steps of each layer (200000)
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <string>

#include "../bench/support/signals.hpp"
#include "ttt/core/flush_denormals.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

using bench::Signal;

std::int64_t soak_steps() {
  const char* const steps = std::getenv("TTT_SOAK_STEPS");
  return steps == nullptr ? 200'000 : std::stoll(steps);
}

/// Every output is finite, and the norm of what the stream has learned stays below `largest`.
template <class L>
void soak(const typename L::Config& config, double largest) {
  constexpr std::int64_t rounds = 5;
  const L layer(config);
  const bench::SignalSource source(layer.width());
  auto state = layer.initial_state();
  auto workspace = layer.workspace(1);
  Vector<float> x(layer.width()), y(layer.width());
  const FlushDenormals flush;
  const std::int64_t each = soak_steps() / (rounds * std::ssize(bench::all_signals));
  ASSERT_GE(each, 1000);
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (const Signal signal : bench::all_signals) {
      SCOPED_TRACE(concat(bench::signal_name(signal), ", round ", round));
      for (std::int64_t t = 0; t < each; ++t) {
        source.read(signal, t, x);
        layer.step(x, state, y, workspace);
        ASSERT_TRUE(y.allFinite()) << "output " << t;
      }
      ASSERT_LE(bench::state_norm(state), largest);
      ASSERT_FALSE(FlushDenormals::available && bench::has_denormal(state));
    }
  }
}

// The norm of W grows slowly: a gradient shrinks as W grows, since what it is compared with is
// normalized, so that n steps of random direction add up to the fourth root of n. It is below 60
// after 2 * 10^5 steps and below 250 after 10^8.
TEST(SoakTest, TTTLinearReadsEverySignalAndStaysFinite) {
  soak<TTTLinear<float>>({.width = 16}, 1000);
}
TEST(SoakTest, TTTLinearOfTheMambaBackboneReadsEverySignalAndStaysFinite) {
  soak<TTTLinear<float>>({.width = 16, .heads = 2, .share_qk = true, .gate = true}, 1000);
}
TEST(SoakTest, TTTMLPReadsEverySignalAndStaysFinite) {
  soak<TTTMLP<float>>({.width = 16, .base_learning_rate = 0.1}, 1000);
}
TEST(SoakTest, LSTMReadsEverySignalAndStaysFinite) { soak<LSTM<float>>({16}, 1000); }

/// What the mode is for: in silence an LSTM's cell fades through the denormal numbers and stays
/// there.
TEST(DenormalsTest, AStateThatFadesOutReachesZero) {
  if (!FlushDenormals::available) GTEST_SKIP() << "not on this processor";
  const LSTM<float> layer({8});
  auto workspace = layer.workspace(1);
  const auto after_silence = [&] {
    auto state = layer.initial_state();
    Vector<float> x = Vector<float>::Ones(8), y = x;
    layer.step(x, state, y, workspace);
    x.setZero();
    for (int t = 0; t < 2000; ++t) layer.step(x, state, y, workspace);
    return bench::has_denormal(state);
  };
  EXPECT_TRUE(after_silence());
  const FlushDenormals flush;
  EXPECT_FALSE(after_silence());
}

}  // namespace
}  // namespace ttt::test
