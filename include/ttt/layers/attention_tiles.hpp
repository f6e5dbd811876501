/// @file
/// Which tokens see which, and how scores are cut into tiles. Query t of a piece stands at column
/// first + t and sees the columns (first + t - w, first + t] of the keys (w = 0: all up to its
/// own). A tile that all its queries see is one product. One that only some see is cut into strips
/// of few queries: the keys that the whole strip sees are one product again, and the less than 2
/// `query_strip` keys at its ends that only some see are taken query by query. So what a query does
/// not see is never multiplied in, not even by zero, which would let a NaN through.
#pragma once

#include <algorithm>

#include "ttt/core/types.hpp"

namespace ttt {

/// Columns [begin, end).
struct ColumnRange {
  Index begin = 0, end = 0;
  Index size() const { return end - begin; }
  bool empty() const { return end <= begin; }
};

inline ColumnRange intersection(ColumnRange a, ColumnRange b) {
  return {std::max(a.begin, b.begin), std::min(a.end, b.end)};
}

struct AttentionTiles {
  static constexpr Index queries_at_once = 128, keys_at_once = 128, query_strip = 16;

  Index first = 0;   // column of query 0
  Index window = 0;  // 0: none

  /// The columns that query t sees; all of them grow with t.
  ColumnRange seen(Index t) const {
    const Index end = first + t + 1;
    return {window > 0 ? std::max<Index>(0, end - window) : 0, end};
  }
  ColumnRange seen_by_any(ColumnRange queries) const {
    return {seen(queries.begin).begin, seen(queries.end - 1).end};
  }
  /// The part of `keys` that all queries see; at the end of `keys` where it is empty.
  ColumnRange seen_by_all(ColumnRange queries, ColumnRange keys) const {
    const ColumnRange all =
        intersection(keys, {seen(queries.end - 1).begin, seen(queries.begin).end});
    return all.empty() ? ColumnRange{keys.end, keys.end} : all;
  }
  /// The queries below `tokens` that see any of `keys`.
  ColumnRange seeing(ColumnRange keys, Index tokens) const {
    const Index end = window > 0 ? keys.end - 1 - first + window : tokens;
    return {std::max<Index>(0, keys.begin - first), std::min(tokens, end)};
  }

  /// Calls `body(queries, keys)` for the whole tile or for its strips.
  template <class Body>
  void visit(ColumnRange queries, ColumnRange keys, Body&& body) const {
    if (seen_by_all(queries, keys).size() == keys.size()) return body(queries, keys);
    for (Index begin = queries.begin; begin < queries.end; begin += query_strip) {
      const ColumnRange strip{begin, std::min(begin + query_strip, queries.end)};
      const ColumnRange part = intersection(keys, seen_by_any(strip));
      if (!part.empty()) body(strip, part);
    }
  }

  /// Calls `body(queries, keys)` for every tile of keys that some of `queries` see.
  template <class Body>
  void visit_keys(ColumnRange queries, Body&& body) const {
    const ColumnRange all = seen_by_any(queries);
    const Index own = first + queries.begin;
    for (ColumnRange tile{all.begin, 0}; tile.begin < all.end; tile.begin = tile.end) {
      tile.end = std::min(tile.begin + keys_at_once, tile.begin < own ? own : all.end);
      visit(queries, tile, body);
    }
  }

  /// Calls `body(keys)` for the parts of what query t sees of `keys` that `all` leaves out.
  template <class Body>
  static void visit_ends(ColumnRange seen, ColumnRange all, Body&& body) {
    const ColumnRange before{seen.begin, std::min(seen.end, all.begin)};
    const ColumnRange after{std::max(seen.begin, all.end), seen.end};
    if (!before.empty()) body(before);
    if (!after.empty()) body(after);
  }
};

}  // namespace ttt
