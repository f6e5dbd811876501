/// @file
/// C += A B for one matrix A and many matrices B of a few columns, as recurrent layers have them:
/// a product for each time, a column for each stream. A is copied once, into panels of as many rows
/// as two registers hold, so that each product reads it in one sweep; a general product would copy
/// it anew each time. A panel and up to `widest` columns of B meet in registers:
///   sum_j += A[panel, k] B[k, j]   for k = 1, 2, ...
#pragma once

#include <algorithm>

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

template <Scalar S>
class PanelMatrix {
 public:
  /// A = source
  void pack(MatrixIn<S> source) {
    resize(source.rows(), source.cols());
    for (Index p = 0; p < panels(); ++p)
      panel(p).topRows(used(p)) = source.middleRows(p * R, used(p));
  }

  /// A = source'
  void pack_transposed(MatrixIn<S> source) {
    resize(source.cols(), source.rows());
    for (Index p = 0; p < panels(); ++p) {
      for (Index begin = 0; begin < depth_; begin += tile_depth) {  // a tile stays in the cache
        const Index size = std::min(tile_depth, depth_ - begin);
        for (Index r = 0; r < used(p); ++r)
          panel(p).row(r).segment(begin, size) =
              source.col(p * R + r).segment(begin, size).transpose();
      }
    }
  }

  /// C += A B, by one thread. A column of C does not depend on the others, to the bit.
  void add_product(MatrixIn<S> B, MatrixOut<S> C) const {
    eigen_assert(B.rows() == depth_ && C.rows() == rows_ && C.cols() == B.cols());
    for (Index p = 0; p < panels(); ++p) add_tiles<widest>(p, 0, B, C);
  }

 private:
  static constexpr Index tile_depth = 64;
  /// Rows of a panel: two of the widest registers (EIGEN_MAX_STATIC_ALIGN_BYTES is their size).
  static constexpr int R = std::max<int>(
      2 * std::max(EIGEN_MAX_STATIC_ALIGN_BYTES, 16) / static_cast<int>(sizeof(S)), 2);
  /// Half of the registers hold sums: 16 on x86-64 without AVX-512.
  static constexpr int widest = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 8 : 4;

  Index panels() const { return (rows_ + R - 1) / R; }
  Index used(Index p) const { return std::min<Index>(R, rows_ - p * R); }
  auto panel(Index p) { return data_.middleCols(p * depth_, depth_); }

  /// The rows that fill up the last panel are zero; their products are dropped.
  void resize(Index rows, Index depth) {
    rows_ = rows;
    depth_ = depth;
    ensure_shape(data_, R, panels() * depth);
    if (panels() > 0) panel(panels() - 1).setZero();
  }

  /// The columns from `j` on, N at a time, then fewer.
  template <int N>
  void add_tiles(Index p, Index j, MatrixIn<S> B, MatrixOut<S>& C) const {
    for (; j + N <= B.cols(); j += N) add_tile<N>(p, j, B, C);
    if constexpr (N > 1) add_tiles<N / 2>(p, j, B, C);
  }

  template <int N>
  void add_tile(Index p, Index j, MatrixIn<S> B, MatrixOut<S>& C) const {
    using Column = Eigen::Array<S, R, 1>;
    Column sums[N];
    for (Column& sum : sums) sum.setZero();
    const S* const a = data_.data() + p * depth_ * R;
    const S* const b = B.data() + j * B.outerStride();
    for (Index k = 0; k < depth_; ++k) {
      const Column a_k = Eigen::Map<const Column>(a + k * R);
      for (int n = 0; n < N; ++n) sums[n] += b[n * B.outerStride() + k] * a_k;
    }
    for (int n = 0; n < N; ++n)
      C.col(j + n).segment(p * R, used(p)) += sums[n].head(used(p)).matrix();
  }

  Index rows_ = 0, depth_ = 0;
  Matrix<S> data_;  // [R, depth] for each panel
};

}  // namespace ttt
