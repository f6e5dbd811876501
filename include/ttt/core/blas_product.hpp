/// @file
/// Large products of matrices by BLAS (EIGEN_USE_BLAS): one thread of it for every block.
#pragma once

#include <algorithm>
#include <span>

#include "ttt/core/parallel.hpp"
#include "ttt/core/product_factor.hpp"

namespace ttt::detail {

template <class S>
class BlasProduct {
 public:
  /// Products with one B.
  static void run(std::span<const ProductOf<S>> products) {
    for (const ProductOf<S>& product : products) BlasProduct(product).run();
  }

 private:
  explicit BlasProduct(const ProductOf<S>& product) : of_(product) {}

  /// BLAS copies a factor anew for each block, so blocks are wide.
  void run() const {
    constexpr Index small = 1 << 20, few_columns = 512;
    const Index rows = of_.rows, cols = of_.cols;
    if (rows == 0 || cols == 0) return;
    if (rows * of_.depth * cols < small) return add(0, rows, 0, cols);
    if (cols < few_columns && rows > cols) {
      parallel_blocks(rows, std::max<Index>(96, (rows / 4 + 47) / 48 * 48),
                      [&](Index i, Index size) { add(i, size, 0, cols); });
    } else {
      const Index narrowest = of_.depth > cols ? 32 : 128;
      parallel_blocks(cols, std::clamp<Index>((cols / 4 + 15) / 16 * 16, narrowest, 512),
                      [&](Index j, Index size) { add(0, rows, j, size); });
    }
  }

  void add(Index i, Index rows, Index j, Index cols) const {
    if (!of_.keep) of_.clear(i, rows, j, cols);
    if (of_.depth == 0) return;
    if (of_.A.by_rows) return add<Eigen::RowMajor, Eigen::ColMajor>(i, rows, j, cols);
    if (of_.B.by_rows) return add<Eigen::ColMajor, Eigen::RowMajor>(i, rows, j, cols);
    add<Eigen::ColMajor, Eigen::ColMajor>(i, rows, j, cols);
  }

  template <int order_A, int order_B>
  void add(Index i, Index rows, Index j, Index cols) const {
    namespace eigen = Eigen::internal;
    eigen::gemm_blocking_space<Eigen::ColMajor, S, S, Eigen::Dynamic, Eigen::Dynamic,
                               Eigen::Dynamic>
        blocking(rows, cols, of_.depth, 1, true);
    using Kernel = eigen::general_matrix_matrix_product<Index, S, order_A, false, S, order_B, false,
                                                        Eigen::ColMajor, 1>;
    Kernel::run(rows, cols, of_.depth, of_.A.at(i, 0), of_.A.stride, of_.B.at(0, j), of_.B.stride,
                of_.result(i, j), 1, of_.stride, of_.sign, blocking, nullptr);
  }

  ProductOf<S> of_;
};

template <class S>
using LargeProduct = BlasProduct<S>;

}  // namespace ttt::detail
