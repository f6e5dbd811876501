// The laws for one block around TTT-Linear, with each of its switches.
#include "ttt/lm/block.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"
#include "ttt/layers/ttt_linear.hpp"

namespace ttt::test {
namespace {

struct BlockSizes {
  BlockConfig block;
  TTTConfig mixer;
};

template <class S>
struct TestBlock : Block<TTTLinear<S>> {
  explicit TestBlock(const BlockSizes& sizes) : TestBlock(sizes, Random(1)) {}
  TestBlock(const BlockSizes& sizes, Random&& random)
      : Block<TTTLinear<S>>(sizes.block, TTTLinear<S>(sizes.mixer, random), random) {}
};

struct BlockCases {
  template <class S>
  using Layer = TestBlock<S>;

  static std::vector<LayerCase<BlockSizes>> small() {
    const TTTConfig plain{.width = 8, .heads = 2, .mini_batch = 4};
    const TTTConfig gated{.width = 8, .heads = 1, .mini_batch = 4, .share_qk = true, .gate = true};
    return {{"bare", {{.width = 8}, plain}, 4},
            {"feed-forward", {{.width = 8, .intermediate = 6}, plain}, 4},
            {"convolution", {{.width = 8, .pre_conv = true}, plain}, 4},
            {"all, kernel 3",
             {{.width = 8, .intermediate = 6, .pre_conv = true, .conv_kernel = 3}, gated},
             4}};
  }

  static BlockSizes large() {
    return {{.width = 64, .intermediate = 128, .pre_conv = true},
            {.width = 64, .heads = 2, .mini_batch = 16, .share_qk = true, .gate = true}};
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Block, LayerLaws, BlockCases);

TEST(BlockTest, AMixerOfAnotherWidthIsRefused) {
  expect_refused(
      [] {
        TestBlock<double> block({{.width = 8}, {.width = 6, .heads = 1}});
      },
      {"Block: the mixer has width 6, expected 8"});
}

TEST(BlockTest, InvalidSizesAreRefused) {
  const TTTConfig mixer{.width = 8};
  const auto make = [&](const BlockConfig& config) { TestBlock<double> block({config, mixer}); };
  expect_refused([&] { make({.width = 0}); }, {"BlockConfig: width is 0, expected a positive"});
  expect_refused([&] { make({.width = 8, .intermediate = -1}); },
                 {"BlockConfig: intermediate is -1, expected 0 or a positive number"});
  expect_refused([&] { make({.width = 8, .conv_kernel = 0}); },
                 {"BlockConfig: conv_kernel is 0, expected a positive number"});
}

}  // namespace
}  // namespace ttt::test
