// The laws for trunks that mix layers of all kinds, two of them of one type.
#include <gtest/gtest.h>

#include "support/laws.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/lm/trunk.hpp"

namespace ttt::test {
namespace {

struct HybridSizes {
  BlockConfig block;
  Index heads, mini_batch, window;
  std::vector<std::size_t> layer_types;
};

template <class S>
using HybridTrunk =
    Trunk<Attention<S>, Attention<S>, TTTLinear<S>, Mamba<S>, LSTM<S>, LinearAttention<S>>;

template <class S>
struct TestHybrid : HybridTrunk<S> {
  explicit TestHybrid(const HybridSizes& sizes) : TestHybrid(sizes, Random(1)) {}
  TestHybrid(const HybridSizes& sizes, Random&& random)
      : HybridTrunk<S>(config_of(sizes), random) {}

  static typename HybridTrunk<S>::Config config_of(const HybridSizes& sizes) {
    const Index width = sizes.block.width;
    const AttentionConfig full{.width = width, .heads = sizes.heads};
    AttentionConfig window = full;
    window.window = sizes.window;
    return {std::ssize(sizes.layer_types),
            sizes.block,
            {full, window,
             TTTConfig{.width = width, .heads = sizes.heads, .mini_batch = sizes.mini_batch},
             MambaConfig{.width = width, .state_size = 3}, LSTMConfig{width},
             LinearAttentionConfig{width, sizes.heads}},
            sizes.layer_types};
  }
};

struct HybridCases {
  template <class S>
  using Layer = TestHybrid<S>;

  static std::vector<LayerCase<HybridSizes>> small() {
    return {
        {"window attention and TTT-Linear", {{.width = 8, .intermediate = 6}, 2, 4, 3, {1, 2}}, 4},
        {"both attentions, Mamba, LSTM", {{.width = 8}, 2, 4, 3, {0, 3, 1, 4}}, 3},
        {"linear and window attention", {{.width = 8}, 2, 4, 3, {5, 1}}, 3}};
  }

  static HybridSizes large() {
    return {{.width = 64, .intermediate = 96, .pre_conv = true}, 2, 16, 40, {1, 2, 3, 4, 0, 5}};
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Hybrid, LayerLaws, HybridCases);

TEST(HybridTest, AMarkOfFullAttentionIsALength) {
  const TestHybrid<double> trunk(HybridCases::small()[1].config);
  auto state = trunk.initial_state(64);
  const auto start = mark(state);
  static_assert(!std::same_as<std::remove_const_t<decltype(start)>, TestHybrid<double>::State>);
  Matrix<double> x = Matrix<double>::Ones(8, 5), y(8, 5), again(8, 5);
  auto workspace = trunk.workspace(5);
  trunk.forward(x, state, y, workspace);
  rewind(state, start);
  trunk.forward(x, state, again, workspace);
  EXPECT_EQ(again, y);
}

}  // namespace
}  // namespace ttt::test
