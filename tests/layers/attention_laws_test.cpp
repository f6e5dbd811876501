// The laws for attention, full and over a window.
#include "ttt/layers/attention.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"

namespace ttt::test {
namespace {

struct AttentionCases {
  template <class S>
  using Layer = Attention<S>;

  static std::vector<LayerCase<AttentionConfig>> small() {
    return {{"full, 2 heads", {.width = 8, .heads = 2}, 4},
            {"full, 4 heads share 2, wide heads",
             {.width = 6, .heads = 4, .key_value_heads = 2, .head_width = 4, .rope_theta = 100},
             4},
            {"window 4, 2 heads share 1",
             {.width = 8, .heads = 2, .key_value_heads = 1, .window = 4},
             4},
            {"window 1", {.width = 4, .heads = 1, .window = 1}, 1},
            {"window 19, longer than a strip", {.width = 4, .heads = 1, .window = 19}, 19}};
  }

  static AttentionConfig large() { return {.width = 64, .heads = 2, .key_value_heads = 1}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Attention, LayerLaws, AttentionCases);

}  // namespace
}  // namespace ttt::test
