/// @file
/// A product and its factors as they lie in memory.
#pragma once

#include "ttt/core/types.hpp"

namespace ttt::detail {

/// What Eigen's kernels read a factor through.
template <class S, int order>
using Mapper = Eigen::internal::const_blas_data_mapper<S, Index, order>;

/// Columns one after another (Eigen::ColMajor), or rows, as those of a transposed matrix are.
template <class S, int order>
struct Factor {
  const S* data;
  Index stride;

  const S* at(Index row, Index column) const {
    return data + (order == Eigen::ColMajor ? row + column * stride : row * stride + column);
  }
  Mapper<S, order> from(Index row, Index column) const { return {at(row, column), stride}; }
};

/// C = sign A B, or C += sign A B to keep what is there, with A [rows, depth] and B [depth, cols].
template <class S, int order_A, int order_B>
struct ProductOf {
  Factor<S, order_A> A;
  Factor<S, order_B> B;
  Index depth;
  S sign;
  bool keep;
  MatrixOut<S>& C;
};

}  // namespace ttt::detail
