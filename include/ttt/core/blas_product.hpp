/// @file
/// Large products of matrices by BLAS (EIGEN_USE_BLAS): one thread of it for every block.
#pragma once

#include <algorithm>

#include "ttt/core/parallel.hpp"
#include "ttt/core/product_factor.hpp"

namespace ttt::detail {

/// C = sign A B, or C += sign A B, with A [rows, depth] and B [depth, cols].
template <class S, int order_A, int order_B>
class BlasProduct {
 public:
  BlasProduct(Factor<S, order_A> A, Factor<S, order_B> B, Index depth, S sign, bool keep,
              MatrixOut<S>& C)
      : A_(A), B_(B), depth_(depth), sign_(sign), keep_(keep), C_(C) {}

  /// BLAS copies a factor anew for each block, so blocks are wide.
  void run() const {
    constexpr Index small = 1 << 20, few_columns = 512;
    const Index rows = C_.rows(), cols = C_.cols();
    if (rows == 0 || cols == 0) return;
    if (rows * depth_ * cols < small) return add(0, rows, 0, cols);
    if (cols < few_columns && rows > cols) {
      parallel_blocks(rows, std::max<Index>(96, (rows / 4 + 47) / 48 * 48),
                      [&](Index i, Index size) { add(i, size, 0, cols); });
    } else {
      const Index narrowest = depth_ > cols ? 32 : 128;
      parallel_blocks(cols, std::clamp<Index>((cols / 4 + 15) / 16 * 16, narrowest, 512),
                      [&](Index j, Index size) { add(0, rows, j, size); });
    }
  }

 private:
  void add(Index i, Index rows, Index j, Index cols) const {
    namespace eigen = Eigen::internal;
    if (!keep_) C_.block(i, j, rows, cols).setZero();
    if (depth_ == 0) return;
    eigen::gemm_blocking_space<Eigen::ColMajor, S, S, Eigen::Dynamic, Eigen::Dynamic,
                               Eigen::Dynamic>
        blocking(rows, cols, depth_, 1, true);
    using Kernel = eigen::general_matrix_matrix_product<Index, S, order_A, false, S, order_B, false,
                                                        Eigen::ColMajor, 1>;
    Kernel::run(rows, cols, depth_, A_.at(i, 0), A_.stride, B_.at(0, j), B_.stride, &C_(i, j), 1,
                C_.outerStride(), sign_, blocking, nullptr);
  }

  Factor<S, order_A> A_;
  Factor<S, order_B> B_;
  Index depth_;
  S sign_;
  bool keep_;
  MatrixOut<S>& C_;
};

template <class S, int order_A, int order_B>
using LargeProduct = BlasProduct<S, order_A, order_B>;

}  // namespace ttt::detail
