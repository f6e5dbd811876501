/// @file
/// Softmax attention of all heads, tile by tile; no matrix of T x T scores ever exists. For a query
/// q_t (rotated, divided by sqrt(f)) and the keys and values that it sees:
///   p_s = exp(k_s'q - L),   L = log sum_s exp(k_s'q),   out = sum_s p_s v_s
/// forward with a running maximum and sum; backward recomputes p from L:
///   delta = dout'out    dv_s += p_s dout    ds_s = p_s (v_s'dout - delta)
///   dq = sum_s ds_s k_s     dk_s += ds_s q
/// Source: Milakov and Gimelshein 2018 (arXiv 1805.02867); Dao et al. 2022 (arXiv 2205.14135).
#pragma once

#include <cmath>
#include <limits>
#include <span>

#include "ttt/core/parallel.hpp"
#include "ttt/core/product.hpp"
#include "ttt/layers/attention_tiles.hpp"
#include "ttt/layers/attention_types.hpp"

namespace ttt {

template <Scalar S>
class AttentionHeads {
 public:
  using Sequence = AttentionSequence<S>;
  using Activations = AttentionActivations<S>;
  using Scratch = AttentionScratch<S>;
  using Workspace = AttentionWorkspace<S>;
  using Tiles = AttentionTiles;

  explicit AttentionHeads(const AttentionConfig& config) : config_(config) {}

  /// Writes a.out and a.log_sum_exp.
  void forward(std::span<const Sequence> sequences, Activations& a,
               std::vector<Scratch>& scratch) const {
    struct Task {
      Index sequence, head;
      ColumnRange queries;
    };
    std::vector<Task> tasks;
    for (Index s = 0; s < std::ssize(sequences); ++s)
      for (Index h = 0; h < config_.heads; ++h)
        for (Index t = 0; t < sequences[s].tokens; t += Tiles::queries_at_once)
          tasks.push_back({s, h, {t, std::min(t + Tiles::queries_at_once, sequences[s].tokens)}});
    each(std::ssize(tasks), scratch, [&](Index i, Scratch& own) {
      // The last tile of a sequence sees the most keys: long tasks first.
      const Task& task = tasks[tasks.size() - 1 - static_cast<std::size_t>(i)];
      forward_queries(sequences[task.sequence], task.head, task.queries, a, own);
    });
  }

  /// Writes w.dq from w.d_out, and adds to each sequence's w.d_keys_in and w.d_values_in.
  void backward(std::span<const Sequence> sequences, const Activations& a, Workspace& w) const {
    const Index T = w.d_out.cols(), G = config_.groups();
    write_delta(a, w);
    const Index shares = key_shares(std::ssize(sequences) * G);
    ensure_shape(w.dq, config_.query_rows(), shares * T);
    each(std::ssize(sequences) * G * shares, w.scratch, [&](Index task, Scratch& own) {
      const Index s = task / (G * shares), g = task / shares % G, share = task % shares;
      const Sequence& sequence = sequences[s];
      const Index rows = config_.query_rows() / G;
      w.dq.block(g * rows, share * T + sequence.begin, rows, sequence.tokens).setZero();
      const Index before = tile_count(sequence.first);
      const Index tiles = before + tile_count(sequence.tokens);
      for (Index tile = share; tile < tiles; tile += shares) {
        const ColumnRange keys = tile < before ? key_tile(tile, 0, sequence.first)
                                               : key_tile(tile - before, sequence.first,
                                                          sequence.first + sequence.tokens);
        backward_keys(sequence, {g, keys, share * T, *w.d_keys_in[s], *w.d_values_in[s]}, a, w,
                      own);
      }
    });
    for (Index share = 1; share < shares; ++share)
      parallel_blocks(T, token_block, [&](Index begin, Index size) {
        w.dq.middleCols(begin, size) += w.dq.middleCols(share * T + begin, size);
      });
  }

 private:
  template <class Body>
  static void each(Index tasks, std::vector<Scratch>& scratch, Body&& body) {
    if (std::ssize(scratch) < available_threads())
      scratch.resize(static_cast<std::size_t>(available_threads()));
    parallel_for(tasks, std::ssize(scratch),
                 [&](Index task, Index slot) { body(task, scratch[slot]); });
  }

  /// Where heads are few, each one's keys are dealt out to several tasks, which need a dq each.
  static Index key_shares(Index heads) {
    constexpr Index tasks = 16, most = 4;
    return std::clamp<Index>(tasks / std::max<Index>(heads, 1), 1, most);
  }
  static Index tile_count(Index columns) {
    return (columns + Tiles::keys_at_once - 1) / Tiles::keys_at_once;
  }
  static ColumnRange key_tile(Index tile, Index begin, Index end) {
    begin += tile * Tiles::keys_at_once;
    return {begin, std::min(begin + Tiles::keys_at_once, end)};
  }

  /// The keys of one tile and group, and where their adjoints go.
  struct KeyTask {
    Index group;
    ColumnRange keys;
    Index dq_begin;  // first column of this share of w.dq
    Matrix<S>& d_keys;
    Matrix<S>& d_values;
  };

  Tiles tiles(const Sequence& sequence) const { return {sequence.first, config_.window}; }
  auto of_group(const Matrix<S>& tokens, Index h) const {
    const Index f = config_.channels();
    return tokens.middleRows(h / (config_.heads / config_.groups()) * f, f);
  }
  auto of_head(const Matrix<S>& tokens, Index h, Index begin, Index count) const {
    const Index f = config_.channels();
    return tokens.block(h * f, begin, f, count);
  }
  auto of_head(Matrix<S>& tokens, Index h, Index begin, Index count) const {
    const Index f = config_.channels();
    return tokens.block(h * f, begin, f, count);
  }

  void forward_queries(const Sequence& sequence, Index h, ColumnRange queries, Activations& a,
                       Scratch& scratch) const {
    const Index begin = sequence.begin + queries.begin, n = queries.size();
    scratch.first_query = queries.begin;
    scratch.q = config_.score_scale<S>() * of_head(std::as_const(a.q), h, begin, n);
    scratch.out.setZero(config_.channels(), n);
    scratch.highest.setConstant(n, -std::numeric_limits<S>::infinity());
    scratch.sum.setZero(n);
    ensure_shape(scratch.scores, Tiles::keys_at_once, Tiles::queries_at_once);
    const auto K = of_group(*sequence.keys, h), V = of_group(*sequence.values, h);
    const Tiles plan = tiles(sequence);
    plan.visit_keys(queries, [&](ColumnRange some, ColumnRange keys) {
      forward_tile(plan, some, keys, K, V, scratch);
    });
    of_head(a.out, h, begin, n).noalias() = scratch.out * scratch.sum.cwiseInverse().asDiagonal();
    a.log_sum_exp.col(h).segment(begin, n) = scratch.highest.array() + scratch.sum.array().log();
  }

  static void forward_tile(const Tiles& plan, ColumnRange queries, ColumnRange keys, MatrixIn<S> K,
                           MatrixIn<S> V, Scratch& scratch) {
    const Index n = queries.size(), place = queries.begin - scratch.first_query;
    auto scores = scratch.scores.topLeftCorner(keys.size(), n);
    Product<S>::atb(K.middleCols(keys.begin, keys.size()), scratch.q.middleCols(place, n), scores);
    for (Index j = 0; j < n; ++j) {
      const ColumnRange seen = intersection(keys, plan.seen(queries.begin + j));
      if (!seen.empty())
        exponentiate(scores.col(j).segment(seen.begin - keys.begin, seen.size()),
                     scratch.out.col(place + j), scratch.highest[place + j],
                     scratch.sum[place + j]);
    }
    const ColumnRange all = plan.seen_by_all(queries, keys);
    if (!all.empty())
      Product<S>::add_ab(V.middleCols(all.begin, all.size()),
                         scores.middleRows(all.begin - keys.begin, all.size()),
                         scratch.out.middleCols(place, n));
    if (all.size() == keys.size()) return;
    for (Index j = 0; j < n; ++j) {
      const ColumnRange seen = intersection(keys, plan.seen(queries.begin + j));
      Tiles::visit_ends(seen, all, [&](ColumnRange end) {
        scratch.out.col(place + j).noalias() +=
            V.middleCols(end.begin, end.size()) *
            scores.col(j).segment(end.begin - keys.begin, end.size());
      });
    }
  }

  /// scores = exp(scores - highest), where `highest` and what was summed so far follow the maximum.
  static void exponentiate(VectorOut<S> scores, VectorOut<S> out, S& highest, S& sum) {
    using std::exp;
    const S before = highest;
    highest = std::max(before, scores.maxCoeff());
    scores.array() = (scores.array() - highest).exp();
    if (highest != before) {
      const S shrink = exp(before - highest);
      sum *= shrink;
      out *= shrink;
    }
    sum += scores.sum();
  }

  /// delta = dout'out, for each head and token
  void write_delta(const Activations& a, Workspace& w) const {
    ensure_shape(w.delta, w.d_out.cols(), config_.heads);
    parallel_blocks(w.d_out.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t)
        for (Index h = 0; h < config_.heads; ++h)
          w.delta(t, h) = of_head(a.out, h, t, 1).cwiseProduct(of_head(w.d_out, h, t, 1)).sum();
    });
  }

  /// All heads of the group, all queries that see the keys.
  void backward_keys(const Sequence& sequence, const KeyTask& task, const Activations& a,
                     Workspace& w, Scratch& scratch) const {
    const ColumnRange keys = task.keys;
    const Index in_group = config_.heads / config_.groups(), m = keys.size();
    scratch.first_key = keys.begin;
    scratch.k = of_head(*sequence.keys, task.group, keys.begin, m);
    scratch.v = of_head(*sequence.values, task.group, keys.begin, m);
    scratch.dk.setZero(config_.channels(), m);
    scratch.dv.setZero(config_.channels(), m);
    for (auto* matrix : {&scratch.scores, &scratch.d_scores})
      ensure_shape(*matrix, Tiles::keys_at_once, Tiles::queries_at_once);
    const ColumnRange seeing = tiles(sequence).seeing(keys, sequence.tokens);
    for (Index h = task.group * in_group; h < (task.group + 1) * in_group; ++h) {
      ColumnRange queries{seeing.begin, 0};
      for (; queries.begin < seeing.end; queries.begin = queries.end) {
        const Index tile = queries.begin / Tiles::queries_at_once;
        queries.end = std::min((tile + 1) * Tiles::queries_at_once, seeing.end);
        backward_queries(sequence, h, queries, keys, a, w, scratch);
        of_head(w.dq, h, task.dq_begin + sequence.begin + queries.begin, queries.size()) +=
            config_.score_scale<S>() * scratch.dq;
      }
    }
    of_head(task.d_keys, task.group, keys.begin, m) += scratch.dk;
    of_head(task.d_values, task.group, keys.begin, m) += scratch.dv;
  }

  /// One tile: writes scratch.dq, adds to scratch.dk and scratch.dv.
  void backward_queries(const Sequence& sequence, Index h, ColumnRange queries, ColumnRange keys,
                        const Activations& a, const Workspace& w, Scratch& scratch) const {
    const Index begin = sequence.begin + queries.begin, n = queries.size();
    scratch.first_query = queries.begin;
    scratch.q = config_.score_scale<S>() * of_head(a.q, h, begin, n);
    scratch.d_out = of_head(w.d_out, h, begin, n);
    scratch.log_sum_exp = a.log_sum_exp.col(h).segment(begin, n);
    scratch.delta = w.delta.col(h).segment(begin, n);
    scratch.dq.setZero(config_.channels(), n);
    const Tiles plan = tiles(sequence);
    plan.visit(queries, keys, [&](ColumnRange some, ColumnRange part) {
      backward_tile(plan, some, part, scratch);
    });
  }

  static void backward_tile(const Tiles& plan, ColumnRange queries, ColumnRange keys,
                            Scratch& scratch) {
    const Index n = queries.size(), place = queries.begin - scratch.first_query;
    const auto columns = [&](Matrix<S>& matrix, ColumnRange some) {
      return matrix.middleCols(some.begin - scratch.first_key, some.size());
    };
    auto p = scratch.scores.topLeftCorner(keys.size(), n);
    auto ds = scratch.d_scores.topLeftCorner(keys.size(), n);
    const auto q = scratch.q.middleCols(place, n), d_out = scratch.d_out.middleCols(place, n);
    Product<S>::atb(columns(scratch.k, keys), q, p);
    Product<S>::atb(columns(scratch.v, keys), d_out, ds);
    for (Index j = 0; j < n; ++j) {
      const ColumnRange seen = intersection(keys, plan.seen(queries.begin + j));
      if (seen.empty()) continue;
      auto p_j = p.col(j).segment(seen.begin - keys.begin, seen.size()).array();
      auto ds_j = ds.col(j).segment(seen.begin - keys.begin, seen.size()).array();
      p_j = (p_j - scratch.log_sum_exp[place + j]).exp();
      if (plan.seen(queries.begin + j).size() > 1) {
        ds_j = p_j * (ds_j - scratch.delta[place + j]);
      } else {
        ds_j.setZero();  // exactly: p = 1, whatever the score of the only key
      }
    }
    const ColumnRange all = plan.seen_by_all(queries, keys);
    if (!all.empty()) {
      const auto p_all = p.middleRows(all.begin - keys.begin, all.size());
      const auto ds_all = ds.middleRows(all.begin - keys.begin, all.size());
      Product<S>::add_abt(d_out, p_all, columns(scratch.dv, all));
      Product<S>::add_abt(q, ds_all, columns(scratch.dk, all));
      Product<S>::add_ab(columns(scratch.k, all), ds_all, scratch.dq.middleCols(place, n));
    }
    if (all.size() == keys.size()) return;
    for (Index j = 0; j < n; ++j) {
      const ColumnRange seen = intersection(keys, plan.seen(queries.begin + j));
      Tiles::visit_ends(seen, all, [&](ColumnRange end) {
        const auto p_j = p.col(j).segment(end.begin - keys.begin, end.size());
        const auto ds_j = ds.col(j).segment(end.begin - keys.begin, end.size());
        columns(scratch.dv, end).noalias() += d_out.col(j) * p_j.transpose();
        columns(scratch.dk, end).noalias() += q.col(j) * ds_j.transpose();
        scratch.dq.col(place + j).noalias() += columns(scratch.k, end) * ds_j;
      });
    }
  }

  AttentionConfig config_;
};

}  // namespace ttt
