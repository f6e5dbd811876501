/// @file
/// Large products of matrices, by the kernel behind Eigen's. That kernel multiplies panels: copies
/// of some rows of A and some columns of B in the order in which it reads them. Eigen copies both
/// factors anew for every block of the result that a thread takes; where A is transposed, its rows
/// a long stride apart, that was 15 % of the forward of a layer. Here the factor that all blocks
/// share is copied once, by all threads, and each block copies its part of the other one.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "ttt/core/parallel.hpp"
#include "ttt/core/product_factor.hpp"
#include "ttt/core/transpose.hpp"

namespace ttt::detail {

/// Which thread computes a block makes no difference to its numbers.
template <class S>
class PanelProduct {
 public:
  using Product = ProductOf<S>;

  /// Products with one B, of equal depth, sign and keep. With few columns blocks are of rows, those
  /// of all products, and share B; else of columns, and share A, one product after another.
  static void run(std::span<const Product> products) {
    const Index cols = products.front().cols, depth = products.front().depth;
    Index rows = 0;
    for (const Product& product : products) rows += product.rows;
    if (cols == 0) return;
    const bool shares_B = cols < few_columns && rows > cols;
    for (Index k = 0; k == 0 || k < depth; k += most_depth) {
      const Part part{k, std::min(most_depth, depth - k)};
      if (shares_B) {
        add_sharing_B(products, rows, part);
      } else {
        for (const Product& product : products) add_sharing_A(product, part);
      }
    }
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
  /// Of a factor that is shared at a time: copies of some megabytes.
  static constexpr Index most_rows = 16 * block_rows, most_depth = 4 * panel_depth;
  static constexpr Index few_columns = 512;

  /// Columns of A, rows of B.
  struct Part {
    Index k, depth;
  };

  /// Smaller products are over before a thread is awake.
  static Index threads_for(Index multiplications) {
    return multiplications < (1 << 20) ? 1 : available_threads();
  }

  // Copies of small products are on the stack, for `step` allocates nothing. The copies of a
  // factor's rows or columns that panel q is of begin at count * q.

  /// `rows` of all products.
  static void add_sharing_B(std::span<const Product> products, Index rows, const Part& part) {
    namespace internal = Eigen::internal;  // Eigen 3.4 takes it for granted below
    const Product& first = products.front();
    const Index cols = first.cols, threads = threads_for(rows * part.depth * cols);
    const Index own_size = copy_size(std::min(block_rows, rows), part);
    ei_declare_aligned_stack_constructed_variable(S, shared_copy, cols * part.depth,
                                                  static_cast<S*>(nullptr));
    ei_declare_aligned_stack_constructed_variable(S, own_copies, threads * own_size,
                                                  static_cast<S*>(nullptr));
    parallel_for(blocks_of(cols, block_cols), threads, [&](Index b, Index) {
      const Index j = b * block_cols, size = std::min(block_cols, cols - j);
      each_panel(part, [&](Index q, Index depth) {
        copy_columns(first.B, part.k + q, depth, j, size, shared_copy + q * cols + j * depth);
      });
    });
    Index blocks = 0;
    for (const Product& product : products) blocks += blocks_of(product.rows, block_rows);
    parallel_for(blocks, threads, [&](Index b, Index slot) {
      const Product* product = products.data();
      for (Index count; b >= (count = blocks_of(product->rows, block_rows)); ++product) b -= count;
      const Index i = b * block_rows, size = std::min(block_rows, product->rows - i);
      S* const own = own_copies + slot * own_size;
      if (part.k == 0 && !product->keep) product->clear(i, size, 0, cols);
      each_panel(part, [&](Index q, Index depth) {
        copy_rows(product->A, part.k + q, depth, i, size, own);
        multiply(*product, i, own, size, depth, 0, shared_copy + q * cols, cols);
      });
    });
  }

  static void add_sharing_A(const Product& product, const Part& part) {
    for (Index row = 0; row < product.rows; row += most_rows)
      add_sharing_A(product, part, row, std::min(most_rows, product.rows - row));
  }
  static void add_sharing_A(const Product& product, const Part& part, Index row, Index rows) {
    namespace internal = Eigen::internal;
    const Index cols = product.cols, block = std::min(block_cols, cols);
    const Index threads = threads_for(rows * part.depth * cols), own_size = copy_size(block, part);
    ei_declare_aligned_stack_constructed_variable(S, shared_copy, rows * part.depth,
                                                  static_cast<S*>(nullptr));
    ei_declare_aligned_stack_constructed_variable(S, own_copies, threads * own_size,
                                                  static_cast<S*>(nullptr));
    parallel_for(blocks_of(rows, block_rows), threads, [&](Index b, Index) {
      const Index i = b * block_rows, size = std::min(block_rows, rows - i);
      each_panel(part, [&](Index q, Index depth) {
        copy_rows(product.A, part.k + q, depth, row + i, size, shared_copy + q * rows + i * depth);
      });
    });
    parallel_for(blocks_of(cols, block), threads, [&](Index b, Index slot) {
      const Index j = b * block, size = std::min(block, cols - j);
      S* const own = own_copies + slot * own_size;
      if (part.k == 0 && !product.keep) product.clear(row, rows, j, size);
      each_panel(part, [&](Index q, Index depth) {
        copy_columns(product.B, part.k + q, depth, j, size, own);
        multiply(product, row, shared_copy + q * rows, rows, depth, j, own, size);
      });
    });
  }

  static Index blocks_of(Index count, Index block) { return (count + block - 1) / block; }
  /// Numbers of a copy of `count` rows or columns of a panel, so that the next one is aligned.
  static Index copy_size(Index count, const Part& part) {
    return (count * std::min(panel_depth, part.depth) + 15) / 16 * 16;
  }

  /// Calls `body(q, depth)` for the panels of a part: q is the first of `depth` columns of A.
  template <class Body>
  static void each_panel(const Part& part, Body&& body) {
    for (Index q = 0; q < part.depth; q += panel_depth)
      body(q, std::min(panel_depth, part.depth - q));
  }

  static void copy_rows(const Factor<S>& A, Index k, Index depth, Index row, Index rows, S* to) {
    if (A.by_rows) return transpose_rows(A, k, depth, row, rows, to);
    CopyRows()(to, A.template from<Eigen::ColMajor>(row, k), depth, rows);
  }
  /// Eigen's copy walks all rows of a panel at once: 1.6 times the time.
  static void transpose_rows(const Factor<S>& A, Index k, Index depth, Index row, Index rows,
                             S* to) {
    using Rows = Eigen::Map<const Matrix<S>, 0, Eigen::OuterStride<>>;
    const auto columns = [&](Index begin, Index height, S* memory) {
      const Eigen::OuterStride<> stride(A.stride);
      transpose<S>(Rows(A.at(row + begin, k), depth, height, stride), memory);
    };
    constexpr Index whole = Traits::mr;  // such a panel is its columns one after another
    const Index last = rows / whole * whole, left = rows - last;
    for (Index begin = 0; begin < last; begin += whole) columns(begin, whole, to + begin * depth);
    if (left == 0) return;
    std::array<S, static_cast<std::size_t>(whole * panel_depth)> rest;
    columns(last, left, rest.data());
    CopyRows()(to + last * depth, {rest.data(), left}, depth, left);
  }
  static void copy_columns(const Factor<S>& B, Index k, Index depth, Index j, Index cols, S* to) {
    if (B.by_rows) {
      CopyColumns<Eigen::RowMajor>()(to, B.template from<Eigen::RowMajor>(k, j), depth, cols);
    } else {
      CopyColumns<Eigen::ColMajor>()(to, B.template from<Eigen::ColMajor>(k, j), depth, cols);
    }
  }

  /// The block of C whose first entry is (i, j), by copies of some rows and columns.
  static void multiply(const Product& product, Index i, const S* A, Index rows, Index depth,
                       Index j, const S* B, Index cols) {
    Kernel()(Result(product.result(i, j), product.stride), A, B, rows, depth, cols, product.sign);
  }
};

template <class S>
using LargeProduct = PanelProduct<S>;

}  // namespace ttt::detail
