/// @file
/// The configurations that TTT layers are tested on.
#pragma once

#include <string>
#include <vector>

#include "support/laws.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt::test {

template <class Model, class Rule = PublishedRule>
struct TTTCases {
  template <class S>
  using Layer = TTTLayer<S, Model, Rule>;

  static std::vector<LayerCase<TTTConfig>> small() {
    const auto one = [](const char* name, Index width, Index heads, Index b, bool share_qk,
                        bool gate, Index kernel, double base) {
      return LayerCase<TTTConfig>{name, {width, heads, b, share_qk, gate, kernel, base}, b};
    };
    std::vector<LayerCase<TTTConfig>> cases = {
        one("plain, b 4", 8, 2, 4, false, false, 4, 1.0),
        one("shared q and k, gate, b 4", 8, 2, 4, true, true, 4, 1.0),
        one("shared q and k, kernel 1, b 16", 6, 1, 16, true, false, 1, 1.0),
        one("gate, b 16", 8, 2, 16, false, true, 4, 0.1),
        one("shared q and k, gate, b 1", 6, 1, 1, true, true, 4, 1.0),
        one("queries as keys, not rotated, b 4", 8, 2, 4, false, false, 4, 1.0),
        one("shared q and k, queries as keys, ascent, b 4", 6, 1, 4, true, false, 3, -0.3)};
    cases[5].config.rotary = false;
    cases[5].config.learned_initial_weights = Model::weight_count > 1;
    for (const std::size_t i : {5, 6}) cases[i].config.queries_as_keys = true;
    return cases;
  }

  static TTTConfig large() { return {64, 2, 16, true, true}; }

  /// The factors of the places in a mini-batch differ, and one is clamped at 0.
  static void prepare(auto& parameters) {
    auto& token_idx = parameters.token_idx;
    token_idx = 0.5 * token_idx.cwiseAbs();
    if (token_idx.size() > 2) token_idx(1) = -2;
  }
};

}  // namespace ttt::test
