/// @file
/// Matrix products of run-time size. Every large product of the library goes through these forms:
/// three Eigen expressions, each compiled once for a scalar type, and cut into blocks that depend
/// on the shapes alone, which threads share.
#pragma once

#include <algorithm>

#include "ttt/core/parallel.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

template <class S>
struct Product {
  using In = MatrixIn<S>;
  using Out = MatrixOut<S>;

  /// C = A B
  static void ab(In A, In B, Out C) { multiply_ab(A, B, C, false, S(1)); }
  /// C += A B
  static void add_ab(In A, In B, Out C) { multiply_ab(A, B, C, true, S(1)); }
  /// C -= A B
  static void subtract_ab(In A, In B, Out C) { multiply_ab(A, B, C, true, S(-1)); }
  /// C = A' B
  static void atb(In A, In B, Out C) { multiply_atb(A, B, C, false); }
  /// C += A' B
  static void add_atb(In A, In B, Out C) { multiply_atb(A, B, C, true); }
  /// C += A B'
  static void add_abt(In A, In B, Out C) { multiply_abt(A, B, C, S(1)); }
  /// C -= A B'
  static void subtract_abt(In A, In B, Out C) { multiply_abt(A, B, C, S(-1)); }

 private:
  static void multiply_ab(In A, In B, Out C, bool keep, S sign) {
    blocks(C, A.cols(), [&](Index i, Index rows, Index j, Index cols) {
      block_ab(A.middleRows(i, rows), B.middleCols(j, cols), C.block(i, j, rows, cols), keep, sign);
    });
  }
  static void multiply_atb(In A, In B, Out C, bool keep) {
    blocks(C, A.rows(), [&](Index i, Index rows, Index j, Index cols) {
      block_atb(A.middleCols(i, rows), B.middleCols(j, cols), C.block(i, j, rows, cols), keep);
    });
  }
  static void multiply_abt(In A, In B, Out C, S sign) {
    blocks(C, A.cols(), [&](Index i, Index rows, Index j, Index cols) {
      block_abt(A.middleRows(i, rows), B.middleRows(j, cols), C.block(i, j, rows, cols), sign);
    });
  }

  // Functions of their own, so that each kind of product is compiled once.
  static void block_ab(In A, In B, Out C, bool keep, S sign) {
    if (!keep) C.setZero();
    C.noalias() += sign * A * B;
  }
  static void block_atb(In A, In B, Out C, bool keep) {
    if (!keep) C.setZero();
    C.noalias() += A.transpose() * B;
  }
  static void block_abt(In A, In B, Out C, S sign) { C.noalias() += sign * A * B.transpose(); }

  /// Calls `body(first_row, rows, first_column, columns)` for blocks of C: of columns, or of rows
  /// where columns are few, as in a product of weights with a handful of tokens. A block repeats
  /// the packing of the other factor, so it must be wide; a product under a million operations is
  /// over before a second thread has woken up.
  template <class Body>
  static void blocks(const Out& C, Index depth, Body&& body) {
    constexpr Index small = 1 << 20, few_columns = 512;
    constexpr Index panel = 48;  // rows that Eigen packs side by side, with AVX-512
    const Index rows = C.rows(), cols = C.cols();
    if (rows == 0 || cols == 0) return;
    if (rows * depth * cols < small) return body(0, rows, 0, cols);
    if (cols < few_columns && rows > cols) {
      const Index height = std::max(2 * panel, (rows / 4 + panel - 1) / panel * panel);
      parallel_blocks(rows, height, [&](Index i, Index size) { body(i, size, 0, cols); });
    } else {
      const Index narrowest = depth > cols ? 32 : 128;
      const Index width = std::clamp<Index>((cols / 4 + 15) / 16 * 16, narrowest, 512);
      parallel_blocks(cols, width, [&](Index j, Index size) { body(0, rows, j, size); });
    }
  }
};

}  // namespace ttt
