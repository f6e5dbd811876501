// The laws for linear attention.
#include "ttt/layers/linear_attention.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"

namespace ttt::test {
namespace {

constexpr Index chunk = LinearAttentionChunks::most_tokens;

struct LinearAttentionCases {
  template <class S>
  using Layer = LinearAttention<S>;

  static std::vector<LayerCase<LinearAttentionConfig>> small() {
    return {{"two heads", {8, 2}, 4},
            {"three heads of odd width", {9, 3}, 4},
            {"not normalized", {6, 2, false}, 4},
            {"one head of width 1, not normalized", {1, 1, false}, 4},
            {"across the border of a chunk", {5, 1}, chunk}};
  }

  static LinearAttentionConfig large() { return {64, 4}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(LinearAttention, LayerLaws, LinearAttentionCases);

struct PlainLinearAttentionCases {
  template <class S>
  using Layer = LinearAttention<S, NoFeatureMap>;

  static std::vector<LayerCase<LinearAttentionConfig>> small() {
    return {{"two heads", {8, 2, false}, 4},
            {"across the border of a chunk", {6, 1, false}, chunk}};
  }

  static LinearAttentionConfig large() { return {64, 2, false}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(PlainLinearAttention, LayerLaws, PlainLinearAttentionCases);

}  // namespace
}  // namespace ttt::test
