// The laws for a trunk, of one kind of mixer and hybrid.
#include "ttt/lm/trunk.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

struct TrunkSizes {
  BlockConfig block;
  TTTConfig linear, mlp;
  std::vector<std::size_t> layer_types;
};

template <class S>
struct TestTrunk : Trunk<TTTLinear<S>, TTTMLP<S>> {
  using Base = Trunk<TTTLinear<S>, TTTMLP<S>>;
  /// Numbers for which no gradient is the small difference of large ones: with those of seed 1, one
  /// of two elements loses a thousand times the precision of float.
  explicit TestTrunk(const TrunkSizes& sizes) : TestTrunk(sizes, Random(2)) {}
  TestTrunk(const TrunkSizes& sizes, Random&& random)
      : Base({std::ssize(sizes.layer_types),
              sizes.block,
              {sizes.linear, sizes.mlp},
              sizes.layer_types},
             random) {}
};

struct TrunkCases {
  template <class S>
  using Layer = TestTrunk<S>;

  static std::vector<LayerCase<TrunkSizes>> small() {
    const TTTConfig linear{.width = 8, .heads = 2, .mini_batch = 4};
    const TTTConfig mlp{.width = 8, .heads = 2, .mini_batch = 2, .share_qk = true, .gate = true};
    return {{"one linear", {{.width = 8, .intermediate = 6}, linear, mlp, {0}}, 4},
            {"hybrid", {{.width = 8, .pre_conv = true}, linear, mlp, {1, 0}}, 4}};
  }

  static TrunkSizes large() {
    const TTTConfig mixer{
        .width = 64, .heads = 2, .mini_batch = 16, .share_qk = true, .gate = true};
    return {{.width = 64, .intermediate = 128, .pre_conv = true}, mixer, mixer, {0, 1, 0}};
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Trunk, LayerLaws, TrunkCases);

TEST(TrunkTest, InvalidSizesAreRefused) {
  Random random(1);
  const auto make = [&](Index depth, std::vector<std::size_t> types) {
    const TTTConfig mixer{.width = 8};
    Trunk<TTTLinear<double>, TTTMLP<double>> trunk(
        {depth, {.width = 8}, {mixer, mixer}, std::move(types)}, random);
  };
  expect_refused([&] { make(0, {}); }, {"TrunkConfig: depth is 0, expected a positive number"});
  expect_refused(
      [&] {
        make(2, {0, 1, 0});
      },
      {"layer_types has 3 entries, expected one for each of the 2 blocks"});
  expect_refused([&] { make(2, {0, 2}); }, {"TrunkConfig: layer type 2, expected 0 to 1"});
}

TEST(TrunkTest, AStateOfOtherMixersIsRefused) {
  const auto one = TrunkCases::small()[1].config;
  auto other = one;
  other.layer_types = {0, 1};
  const TestTrunk<double> trunk(one), swapped(other);
  expect_refused([&] { trunk.check(swapped.initial_state()); },
                 {"Block: the state belongs to another mixer"});
}

}  // namespace
}  // namespace ttt::test
