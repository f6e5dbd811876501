/// @file
/// A product and its factors as they lie in memory.
#pragma once

#include <algorithm>

#include "ttt/core/types.hpp"

namespace ttt::detail {

/// What Eigen's kernels read a factor through.
template <class S, int order>
using Mapper = Eigen::internal::const_blas_data_mapper<S, Index, order>;

/// Columns one after another, or rows, as those of a transposed matrix are. Which of the two is no
/// part of the type, so that one product is compiled for all.
template <class S>
struct Factor {
  const S* data;
  Index stride;
  bool by_rows;

  const S* at(Index row, Index column) const {
    return data + (by_rows ? row * stride + column : row + column * stride);
  }
  template <int order>
  Mapper<S, order> from(Index row, Index column) const {
    return {at(row, column), stride};
  }
};

/// C = sign A B, or C += sign A B to keep what is there, with A [rows, depth] and B [depth, cols].
template <class S>
struct ProductOf {
  Factor<S> A, B;
  S* C;
  Index rows, depth, cols;
  Index stride;  // between columns of C
  S sign;
  bool keep;

  S* result(Index row, Index column) const { return C + row + column * stride; }
  /// Sets a block of C to zero.
  void clear(Index row, Index height, Index column, Index width) const {
    for (Index j = column; j < column + width; ++j) std::fill_n(result(row, j), height, S(0));
  }
};

}  // namespace ttt::detail
