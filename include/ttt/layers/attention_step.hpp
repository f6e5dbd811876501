/// @file
/// Attention for one token: all heads over one tile of tokens after another, and token by token in
/// it, so that keys and values are read once, in the order of memory, which is what a step waits
/// for. Scratch does not depend on how many there are. The order of keys does not matter, so a
/// window's ring is read as it lies. Threads share the groups of heads.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ttt/core/parallel.hpp"
#include "ttt/layers/attention_types.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt {

template <Scalar S>
struct AttentionStep {
  static constexpr Index keys_at_once = 64;

  /// Writes w.out_t from w.q_t. The state holds the token's own key and value. No heap.
  static void attend(const AttentionConfig& config, const AttentionState<S>& state,
                     AttentionWorkspace<S>& w, const RunOptions& options) {
    const Index columns =
        static_cast<Index>(state.window > 0 ? std::min(state.length, state.window) : state.length);
    const Index in_group = config.heads / config.groups();
    w.out_t.setZero();
    w.sum.setZero();
    w.highest.setConstant(-std::numeric_limits<S>::infinity());
    const Index parts = options.step_parts<S>(2 * columns * config.key_rows());
    parallel_parts(config.groups(), std::min(parts, config.groups()),
                   [&](Index group, Index groups, Index) {
                     const Heads heads{group * in_group, (group + groups) * in_group};
                     for (Index begin = 0; begin < columns; begin += keys_at_once) {
                       const Index count = std::min(keys_at_once, columns - begin);
                       add_tile(config, heads, state.keys.matrix().middleCols(begin, count),
                                state.values.matrix().middleCols(begin, count), w);
                     }
                   });
    const Index f = config.channels();
    for (Index h = 0; h < config.heads; ++h) w.out_t.segment(h * f, f) /= w.sum[h];
  }

 private:
  struct Heads {
    Index begin, end;
  };

  static void add_tile(const AttentionConfig& config, Heads heads, MatrixIn<S> keys,
                       MatrixIn<S> values, AttentionWorkspace<S>& w) {
    using std::exp;
    const Index f = config.channels(), in_group = config.heads / config.groups();
    auto scores = w.scores.topRows(keys.cols());
    for (Index s = 0; s < keys.cols(); ++s)
      for (Index h = heads.begin; h < heads.end; ++h)
        scores(s, h) =
            keys.col(s).segment(h / in_group * f, f).cwiseProduct(w.q_t.segment(h * f, f)).sum();
    for (Index h = heads.begin; h < heads.end; ++h) {
      auto p = scores.col(h).array();
      const S before = w.highest[h];
      w.highest[h] = std::max(before, p.maxCoeff());
      p = (p - w.highest[h]).exp();
      const S shrink = exp(before - w.highest[h]);
      w.sum[h] = shrink * w.sum[h] + p.sum();
      w.out_t.segment(h * f, f) *= shrink;
    }
    for (Index s = 0; s < keys.cols(); ++s)
      for (Index h = heads.begin; h < heads.end; ++h)
        w.out_t.segment(h * f, f) += scores(s, h) * values.col(s).segment(h / in_group * f, f);
  }
};

}  // namespace ttt
