/// @file
/// Sums over tokens, which parameter gradients are: every block of tokens is summed on its own,
/// then the blocks in their order. Blocks follow from T alone, so any number of threads gives the
/// same bits.
#pragma once

#include <algorithm>

#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// Calls `body(begin, size, sums)` for every block of tokens [begin, begin + size); `body` adds its
/// tokens' terms to `sums` [rows, cols], zero at first. Returns the total, zero where T = 0.
template <Scalar S, class Body>
Matrix<S> sum_over_tokens(Index tokens, Index rows, Index cols, Body&& body) {
  const Index blocks = (tokens + token_block - 1) / token_block;
  Matrix<S> sums = Matrix<S>::Zero(rows, cols * std::max<Index>(blocks, 1));
  parallel_blocks(tokens, token_block, [&](Index begin, Index size) {
    body(begin, size, MatrixOut<S>(sums.middleCols(begin / token_block * cols, cols)));
  });
  for (Index b = 1; b < blocks; ++b) sums.leftCols(cols) += sums.middleCols(b * cols, cols);
  sums.conservativeResize(Eigen::NoChange, cols);
  return sums;
}

/// The sum of all columns of `tokens`: what a bias is owed.
template <Scalar S>
Vector<S> sum_of_tokens(MatrixIn<S> tokens) {
  return sum_over_tokens<S>(tokens.cols(), tokens.rows(), 1,
                            [&](Index begin, Index size, MatrixOut<S> sum) {
                              sum += tokens.middleCols(begin, size).rowwise().sum();
                            });
}

}  // namespace ttt
