/// @file
/// Large products of matrices, by the kernel behind Eigen's. That kernel multiplies panels: copies
/// of some rows of A and some columns of B in the order in which it reads them. Eigen copies both
/// factors anew for every block of the result that a thread takes; where A is transposed, its rows
/// a long stride apart, that was 15 % of the forward of a layer. Here the factor that all blocks
/// share is copied once, by all threads, and each block copies its part of the other one.
#pragma once

#include <algorithm>
#include <array>

#include "ttt/core/parallel.hpp"
#include "ttt/core/product_factor.hpp"
#include "ttt/core/transpose.hpp"

namespace ttt::detail {

/// Which thread computes a block makes no difference to its numbers.
template <class S>
class PanelProduct {
 public:
  explicit PanelProduct(const ProductOf<S>& product) : of_(product) {}

  void run() const {
    if (of_.C.cols() == 0) return;
    for (Index k = 0; k == 0 || k < of_.depth; k += most_depth)
      for (Index i = 0; i < of_.C.rows(); i += most_rows)
        add({i, std::min(most_rows, of_.C.rows() - i), k, std::min(most_depth, of_.depth - k)});
  }

 private:
  using Traits = Eigen::internal::gebp_traits<S, S>;
  using Result = Eigen::internal::blas_data_mapper<S, Index, Eigen::ColMajor>;
  using CopyRows =
      Eigen::internal::gemm_pack_lhs<S, Index, Mapper<S, Eigen::ColMajor>, Traits::mr,
                                     Traits::LhsProgress, typename Traits::LhsPacket4Packing,
                                     Eigen::ColMajor>;
  template <int order>
  using CopyColumns = Eigen::internal::gemm_pack_rhs<S, Index, Mapper<S, order>, Traits::nr, order>;
  using Kernel =
      Eigen::internal::gebp_kernel<S, S, Index, Result, Traits::mr, Traits::nr, false, false>;

  /// As deep as this, a few columns of B stay in the first-level cache.
  static constexpr Index panel_depth = 1024 / static_cast<Index>(sizeof(S));
  /// Blocks of C: what they read of either factor fits the second-level cache.
  static constexpr Index block_rows = std::max<Index>(96 / Traits::mr, 1) * Traits::mr;
  static constexpr Index block_cols = 128;
  /// Of A at a time: copies of some megabytes.
  static constexpr Index most_rows = 16 * block_rows, most_depth = 4 * panel_depth;
  /// With fewer, blocks are of rows and share B; else of columns, and share A.
  static constexpr Index few_columns = 512;

  /// Part of A.
  struct Part {
    Index row, rows, k, depth;
  };

  void add(const Part& part) const {
    const Index cols = of_.C.cols();
    const bool small = part.rows * part.depth * cols < (1 << 20);  // over before a thread is awake
    const Index threads = small ? 1 : available_threads();
    const bool shares_B = cols < few_columns && part.rows > cols;
    const Index shared = shares_B ? cols : part.rows;
    const Index block = std::min(shares_B ? block_rows : block_cols, shares_B ? part.rows : cols);
    const Index own_size = (block * std::min(panel_depth, part.depth) + 15) / 16 * 16;  // aligned
    // Of small products on the stack, for `step` allocates nothing.
    namespace internal = Eigen::internal;  // Eigen 3.4 takes it for granted below
    ei_declare_aligned_stack_constructed_variable(S, shared_copy, shared * part.depth,
                                                  static_cast<S*>(nullptr));
    ei_declare_aligned_stack_constructed_variable(S, own_copies, threads * own_size,
                                                  static_cast<S*>(nullptr));
    // The copies of a factor's rows or columns that panel q is of begin at count * q.
    blocks(shared, shares_B ? block_cols : block_rows, threads, [&](Index i, Index size, Index) {
      each_panel(part, [&](Index q, Index depth) {
        S* const to = shared_copy + q * shared + i * depth;
        shares_B ? copy_columns(part, q, depth, i, size, to)
                 : copy_rows(part, q, depth, i, size, to);
      });
    });
    blocks(shares_B ? part.rows : cols, block, threads, [&](Index i, Index size, Index slot) {
      S* const own = own_copies + slot * own_size;
      if (part.k == 0 && !of_.keep) block_of(part, shares_B, i, size).setZero();
      each_panel(part, [&](Index q, Index depth) {
        const S* const all = shared_copy + q * shared;
        if (shares_B) {
          copy_rows(part, q, depth, i, size, own);
          multiply(part.row + i, own, size, depth, 0, all, cols);
        } else {
          copy_columns(part, q, depth, i, size, own);
          multiply(part.row, all, part.rows, depth, i, own, size);
        }
      });
    });
  }

  auto block_of(const Part& part, bool of_rows, Index begin, Index size) const {
    return of_rows ? of_.C.block(part.row + begin, 0, size, of_.C.cols())
                   : of_.C.block(part.row, begin, part.rows, size);
  }

  /// Calls `body(begin, size, slot)` for blocks of [0, count).
  template <class Body>
  static void blocks(Index count, Index block, Index threads, Body&& body) {
    parallel_for((count + block - 1) / block, threads, [&](Index b, Index slot) {
      body(b * block, std::min(block, count - b * block), slot);
    });
  }

  /// Calls `body(q, depth)` for the panels of a part: q is the first of `depth` columns of A.
  template <class Body>
  static void each_panel(const Part& part, Body&& body) {
    for (Index q = 0; q < part.depth; q += panel_depth)
      body(q, std::min(panel_depth, part.depth - q));
  }

  void copy_rows(const Part& part, Index q, Index depth, Index i, Index rows, S* to) const {
    const Index row = part.row + i, k = part.k + q;
    if (of_.A.by_rows) return transpose_rows(row, k, depth, rows, to);
    CopyRows()(to, of_.A.template from<Eigen::ColMajor>(row, k), depth, rows);
  }
  /// Eigen's copy walks all rows of a panel at once: 1.6 times the time.
  void transpose_rows(Index row, Index k, Index depth, Index rows, S* to) const {
    using Rows = Eigen::Map<const Matrix<S>, 0, Eigen::OuterStride<>>;
    const auto columns = [&](Index begin, Index height, S* memory) {
      const Eigen::OuterStride<> stride(of_.A.stride);
      transpose<S>(Rows(of_.A.at(row + begin, k), depth, height, stride), memory);
    };
    constexpr Index whole = Traits::mr;  // such a panel is its columns one after another
    const Index last = rows / whole * whole, left = rows - last;
    for (Index begin = 0; begin < last; begin += whole) columns(begin, whole, to + begin * depth);
    if (left == 0) return;
    std::array<S, static_cast<std::size_t>(whole * panel_depth)> rest;
    columns(last, left, rest.data());
    CopyRows()(to + last * depth, {rest.data(), left}, depth, left);
  }
  void copy_columns(const Part& part, Index q, Index depth, Index j, Index cols, S* to) const {
    const Index k = part.k + q;
    if (of_.B.by_rows) {
      CopyColumns<Eigen::RowMajor>()(to, of_.B.template from<Eigen::RowMajor>(k, j), depth, cols);
    } else {
      CopyColumns<Eigen::ColMajor>()(to, of_.B.template from<Eigen::ColMajor>(k, j), depth, cols);
    }
  }

  /// The block of C whose first entry is (i, j), by copies of some rows and columns.
  void multiply(Index i, const S* A, Index rows, Index depth, Index j, const S* B,
                Index cols) const {
    Kernel()(Result(&of_.C(i, j), of_.C.outerStride()), A, B, rows, depth, cols, of_.sign);
  }

  ProductOf<S> of_;
};

template <class S>
using LargeProduct = PanelProduct<S>;

}  // namespace ttt::detail
