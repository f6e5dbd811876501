/// @file
/// Memory of one layer in training: a forward and a backward of T tokens, width 256, 4 heads,
/// float, each in a process of its own, whose largest resident memory counts.
///
///   memory_bench    attention, its window of 512 tokens, Mamba, LSTM, TTT-Linear; T 8192 to 32768
#include <cstdio>

#include "support/peak_memory.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"

namespace ttt::bench {
namespace {

constexpr Index width = 256, heads = 4;

template <SequenceLayer L>
void train_once(const typename L::Config& config, Index tokens) {
  const L layer(config);
  Matrix<float> x(width, tokens), y(width, tokens);
  Random(1).fill_normal(x, 1);
  auto state = layer.initial_state();
  auto workspace = layer.workspace(1);
  auto grad = zeros_like(layer.parameters());
  typename L::Cache cache;
  layer.forward(x, state, y, workspace, cache);
  set_zero(state);
  layer.backward(y, cache, state, x, grad, workspace);
}

template <SequenceLayer L>
void measure(const char* name, const typename L::Config& config) {
  std::printf("%-18s", name);
  for (const Index tokens : {8192, 16384, 32768})
    std::printf("%10.0f", peak_megabytes([&] { train_once<L>(config, tokens); }));
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace
}  // namespace ttt::bench

int main() {
  using namespace ttt;
  using namespace ttt::bench;
  std::printf("megabytes, T         8192     16384     32768\n");
  std::fflush(stdout);
  measure<Attention<float>>("attention", {.width = width, .heads = heads});
  measure<Attention<float>>("window-attention", {.width = width, .heads = heads, .window = 512});
  measure<Mamba<float>>("mamba", {.width = width});
  measure<LSTM<float>>("lstm", {.width = width});
  measure<TTTLinear<float>>("ttt-linear", {.width = width, .heads = heads});
}
