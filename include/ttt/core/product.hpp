/// @file
/// Matrix products of run-time size. Every large product of the library goes through these forms:
/// each is one Eigen expression, instantiated once for a scalar type, and cut into blocks of
/// columns that depend on the shapes alone, which threads share.
#pragma once

#include "ttt/core/parallel.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

template <class S>
struct Product {
  using In = MatrixIn<S>;
  using Out = MatrixOut<S>;

  /// C = A B
  static void ab(In A, In B, Out C) {
    column_blocks(A.rows(), A.cols(), C.cols(), [&](Index begin, Index size) {
      C.middleCols(begin, size).noalias() = A * B.middleCols(begin, size);
    });
  }

  /// C += A B
  static void add_ab(In A, In B, Out C) {
    column_blocks(A.rows(), A.cols(), C.cols(), [&](Index begin, Index size) {
      C.middleCols(begin, size).noalias() += A * B.middleCols(begin, size);
    });
  }

  /// C = A' B
  static void atb(In A, In B, Out C) {
    column_blocks(A.cols(), A.rows(), C.cols(), [&](Index begin, Index size) {
      C.middleCols(begin, size).noalias() = A.transpose() * B.middleCols(begin, size);
    });
  }

  /// C += A' B
  static void add_atb(In A, In B, Out C) {
    column_blocks(A.cols(), A.rows(), C.cols(), [&](Index begin, Index size) {
      C.middleCols(begin, size).noalias() += A.transpose() * B.middleCols(begin, size);
    });
  }

  /// C += A B'
  static void add_abt(In A, In B, Out C) {
    column_blocks(A.rows(), A.cols(), C.cols(), [&](Index begin, Index size) {
      C.middleCols(begin, size).noalias() += A * B.middleRows(begin, size).transpose();
    });
  }

 private:
  /// A block repeats the packing of A, so it must be wide; a product under a million operations is
  /// over before a second thread has woken up.
  template <class Body>
  static void column_blocks(Index rows, Index depth, Index cols, Body&& body) {
    if (rows == 0 || cols == 0) return;
    constexpr Index small = 1 << 20;
    const Index narrowest = depth > cols ? 32 : 128;
    const Index block = rows * depth * cols < small
                            ? cols
                            : std::clamp<Index>((cols / 4 + 15) / 16 * 16, narrowest, 512);
    parallel_blocks(cols, block, body);
  }
};

}  // namespace ttt
