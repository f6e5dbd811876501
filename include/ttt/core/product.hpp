/// @file
/// Matrix products of run-time size. Every large product of the library goes through these forms:
/// three products of Eigen, each compiled once for a scalar type, and cut into blocks that depend
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

  /// y = A x: one token. Allocates nothing.
  static void ab_column(In A, VectorIn<S> x, VectorOut<S> y) {
    y.setZero();
    add_column<Eigen::ColMajor, Eigen::RowMajor>(A.rows(), A.cols(), A, x, y, S(1));
  }
  /// y = A' x
  static void atb_column(In A, VectorIn<S> x, VectorOut<S> y) {
    y.setZero();
    add_column<Eigen::RowMajor, Eigen::ColMajor>(A.cols(), A.rows(), A, x, y, S(1));
  }

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

  static void block_ab(In A, In B, Out C, bool keep, S sign) {
    if (!keep) C.setZero();
    if (C.cols() == 1)
      return add_column<Eigen::ColMajor, Eigen::RowMajor>(C.rows(), A.cols(), A, B.col(0), C.col(0),
                                                          sign);
    add_product<Eigen::ColMajor, Eigen::ColMajor>(A, B, C, A.cols(), sign);
  }
  static void block_atb(In A, In B, Out C, bool keep) {
    if (!keep) C.setZero();
    if (C.cols() == 1)
      return add_column<Eigen::RowMajor, Eigen::ColMajor>(C.rows(), A.rows(), A, B.col(0), C.col(0),
                                                          S(1));
    add_product<Eigen::RowMajor, Eigen::ColMajor>(A, B, C, A.rows(), S(1));
  }
  static void block_abt(In A, In B, Out C, S sign) {
    add_product<Eigen::ColMajor, Eigen::RowMajor>(A, B, C, A.cols(), sign);
  }

  // The products behind Eigen's expressions, with BLAS those of BLAS. An expression brings those of
  // vectors, of a few numbers and of one number along, for every type of factor: a fifth of the
  // time that a program with one layer took to compile. The order of a transposed factor is that of
  // rows.

  /// C += sign A B
  template <int order_A, int order_B>
  static void add_product(In A, In B, Out& C, Index depth, S sign) {
    namespace eigen = Eigen::internal;
    if (depth == 0) return;
    eigen::gemm_blocking_space<Eigen::ColMajor, S, S, Eigen::Dynamic, Eigen::Dynamic,
                               Eigen::Dynamic>
        blocking(C.rows(), C.cols(), depth, 1, true);
    using Kernel = eigen::general_matrix_matrix_product<Index, S, order_A, false, S, order_B, false,
                                                        Eigen::ColMajor, 1>;
    Kernel::run(C.rows(), C.cols(), depth, A.data(), A.outerStride(), B.data(), B.outerStride(),
                C.data(), 1, C.outerStride(), sign, blocking, nullptr);
  }

  /// y += sign A x, A [rows, cols]. The product of matrices would copy A into its panels first.
  template <int order, int order_of_eigens_x>
  static void add_column(Index rows, Index cols, In A, VectorIn<S> x, VectorOut<S> y, S sign) {
    namespace eigen = Eigen::internal;
    using Left = eigen::const_blas_data_mapper<S, Index, order>;
    using Right = eigen::const_blas_data_mapper<S, Index, order_of_eigens_x>;
    eigen_assert(x.size() == cols && y.size() == rows);
    eigen::general_matrix_vector_product<Index, S, Left, order, false, S, Right, false>::run(
        rows, cols, Left(A.data(), A.outerStride()), Right(x.data(), 1), y.data(), 1, sign);
  }

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
