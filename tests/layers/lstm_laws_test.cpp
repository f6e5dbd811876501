// The laws for LSTM.
#include "ttt/layers/lstm.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"

namespace ttt::test {
namespace {

struct LSTMCases {
  template <class S>
  using Layer = LSTM<S>;

  /// Short and long streams multiply by W_hh in different ways (LSTM's packing_pays, 8 tokens), and
  /// widths that fill no register leave a rest.
  static std::vector<LayerCase<LSTMConfig>> small() {
    return {{"width 8, short streams", {8}, 4}, {"width 5", {5}, 8}, {"width 1", {1}, 8}};
  }

  /// Threads share its products over all tokens.
  static LSTMConfig large() { return {64}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(LSTM, LayerLaws, LSTMCases);

}  // namespace
}  // namespace ttt::test
