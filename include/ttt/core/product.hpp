/// @file
/// Matrix products of run-time size. Every large product of the library goes through these forms;
/// threads share blocks that depend on the shapes alone. Where the result has one column, B is
/// a vector, and A need not be copied.
#pragma once

#include <array>

#include "ttt/core/views.hpp"

#if defined(EIGEN_USE_BLAS)
#include "ttt/core/blas_product.hpp"
#else
#include "ttt/core/panel_product.hpp"
#endif

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

  /// One of several products with the same B.
  struct Transposed {
    MatrixView<S> A;
    MatrixOut<S> C;
  };
  /// C_i = A_i' B. Where B has few columns, threads meet once for all.
  template <std::size_t size>
  static void atb_each(const Transposed (&products)[size], In B) {
    if (B.cols() == 1) {
      for (const auto& [A, C] : products) atb(A, B, C);
      return;
    }
    std::array<detail::ProductOf<S>, size> each;
    for (std::size_t i = 0; i < size; ++i)
      each[i] = product_of(transposed(products[i].A), as_it_is(B), B.rows(), products[i].C);
    detail::LargeProduct<S>::run(each);
  }

  /// y = A x: one token. Allocates nothing.
  static void ab_column(In A, VectorIn<S> x, VectorOut<S> y) {
    eigen_assert(x.size() == A.cols() && y.size() == A.rows());
    y.setZero();
    add_column(A.rows(), A.cols(), as_it_is(A), x.data(), y.data(), S(1));
  }
  /// y = A' x
  static void atb_column(In A, VectorIn<S> x, VectorOut<S> y) {
    eigen_assert(x.size() == A.rows() && y.size() == A.cols());
    y.setZero();
    add_column(A.cols(), A.rows(), transposed(A), x.data(), y.data(), S(1));
  }

 private:
  using Factor = detail::Factor<S>;

  static Factor as_it_is(In A) { return {A.data(), A.outerStride(), false}; }
  static Factor transposed(In A) { return {A.data(), A.outerStride(), true}; }

  static detail::ProductOf<S> product_of(const Factor& A, const Factor& B, Index depth, Out C,
                                         S sign = S(1), bool keep = false) {
    return {A, B, C.data(), C.rows(), depth, C.cols(), C.outerStride(), sign, keep};
  }

  static void multiply_ab(In A, In B, Out C, bool keep, S sign) {
    multiply(as_it_is(A), as_it_is(B), A.cols(), sign, C, keep);
  }
  static void multiply_atb(In A, In B, Out C, bool keep) {
    multiply(transposed(A), as_it_is(B), A.rows(), S(1), C, keep);
  }
  static void multiply_abt(In A, In B, Out C, S sign) {
    multiply(as_it_is(A), transposed(B), A.cols(), sign, C, true);
  }

  static void multiply(const Factor& A, const Factor& B, Index depth, S sign, Out& C, bool keep) {
    if (C.cols() != 1 || B.by_rows) {
      const auto product = product_of(A, B, depth, C, sign, keep);
      return detail::LargeProduct<S>::run({&product, 1});
    }
    if (C.rows() == 0) return;
    const Index height = C.rows() * depth < (1 << 20) ? C.rows() : (C.rows() + 3) / 4;
    if (!keep) C.setZero();
    parallel_blocks(C.rows(), height, [&](Index i, Index rows) {
      add_column(rows, depth, {A.at(i, 0), A.stride, A.by_rows}, B.data, &C(i, 0), sign);
    });
  }

  /// y += sign A x, A [rows, cols].
  /// Rows that lie one after another are read as they lie. Eigen's product reads eight at a time:
  /// in cache that is as fast to within a tenth, from memory it is 1.2 to 2.5 times slower.
  /// Columns: the product behind Eigen's expression, with BLAS that of BLAS. The expression would
  /// bring those of a few numbers and of one number along, for every type of factor: a fifth of
  /// the time that a program with one layer took to compile.
  static void add_column(Index rows, Index cols, const Factor& A, const S* x, S* y, S sign) {
    if (cols == 0) return;
    if (A.by_rows) {
      using Numbers = Eigen::Map<const Vector<S>>;
      const Numbers factors(x, cols);
      for (Index i = 0; i < rows; ++i) y[i] += sign * Numbers(A.at(i, 0), cols).dot(factors);
    } else {
      namespace eigen = Eigen::internal;
      using Columns = detail::Mapper<S, Eigen::ColMajor>;
      using X = detail::Mapper<S, Eigen::RowMajor>;
      using Kernel = eigen::general_matrix_vector_product<Index, S, Columns, Eigen::ColMajor, false,
                                                          S, X, false>;
      Kernel::run(rows, cols, Columns(A.data, A.stride), X(x, 1), y, 1, sign);
    }
  }
};

}  // namespace ttt
