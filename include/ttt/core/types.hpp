/// @file
/// Storage: column-major, one token a column. A sequence of T tokens of width D is a D x T matrix
/// whose bytes equal those of a contiguous row-major `[T, D]` array (PyTorch, NumPy).
/// A PyTorch weight `[out, in]` is, byte for byte, an `in x out` matrix here.
#pragma once

#include <Eigen/Core>
#include <cstdint>

#if EIGEN_VERSION_AT_LEAST(3, 4, 0)
#else
#error "ttt needs Eigen 3.4.0 or later"
#endif

namespace ttt {

using Index = Eigen::Index;

template <class S>
using Matrix = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
template <class S>
using Vector = Eigen::Matrix<S, Eigen::Dynamic, 1>;

/// Grows `matrix` to `rows x cols` only where its shape differs: scratch memory that a loop reuses.
template <class S>
void ensure_shape(Matrix<S>& matrix, Index rows, Index cols) {
  if (matrix.rows() != rows || matrix.cols() != cols) matrix.resize(rows, cols);
}

}  // namespace ttt
