/// @file
/// Products of matrices that fit the first caches, as the inner loop has them: [f, f] weights with
/// [f, n] tokens. A general product first copies both factors into panels, which costs as much as
/// such a product itself. Here a tile of C is accumulated in registers while the left factor is
/// read where it lies and the right one entry by entry (measured at f 64, n 16, AVX-512: 87 % of
/// the multiply-add peak against 60 %). Written with Eigen's packets: it runs wherever Eigen does.
/// One column alone, as a step has it, is Eigen's product of matrix and vector.
#pragma once

#include <algorithm>
#include <array>

#include "ttt/core/lanes.hpp"
#include "ttt/core/product.hpp"
#include "ttt/core/transpose.hpp"

namespace ttt {

namespace detail {

/// g++ would otherwise load a packet again for every use of it (1.25 times the time).
template <int lanes, class Packet>
EIGEN_ALWAYS_INLINE void keep_in_register([[maybe_unused]] Packet& packet) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
  if constexpr (lanes > 1) asm("" : "+v"(packet));
#endif
}

}  // namespace detail

template <class S>
class SmallProduct {
  using In = MatrixIn<S>;
  using Out = MatrixOut<S>;

 public:
  /// C = A B + c 1', or A B where c is empty
  static void affine(In A, In B, VectorIn<S> c, Out C) {
    if (B.cols() == 1) {
      Product<S>::ab_column(A, B.col(0), C.col(0));
      if (c.size() > 0) add_column(c, C);
    } else if (is_large(A, B.cols())) {
      Product<S>::ab(A, B, C);
      if (c.size() > 0) add_column(c, C);
    } else {
      multiply(view(A), view(B), C, {false, S(1), c.size() > 0 ? c.data() : nullptr});
    }
  }
  /// C += A B
  static void add_ab(In A, In B, Out C) {
    if (is_large(A, B.cols())) return Product<S>::add_ab(A, B, C);
    multiply(view(A), view(B), C, {true, S(1), nullptr});
  }
  /// C -= A B
  static void subtract_ab(In A, In B, Out C) {
    if (is_large(A, B.cols())) return Product<S>::subtract_ab(A, B, C);
    multiply(view(A), view(B), C, {true, S(-1), nullptr});
  }
  /// C += A B'
  static void add_abt(In A, In B, Out C) {
    if (A.cols() == 1) return add_column_products(A.data(), B.data(), C);
    if (is_large(A, B.rows())) return Product<S>::add_abt(A, B, C);
    multiply(view(A), transposed(B), C, {true, S(1), nullptr});
  }
  /// C -= A B'
  static void subtract_abt(In A, In B, Out C) {
    if (is_large(A, B.rows())) return Product<S>::subtract_abt(A, B, C);
    multiply(view(A), transposed(B), C, {true, S(-1), nullptr});
  }
  /// C = A' B
  static void atb(In A, In B, Out C) {
    if (B.cols() == 1) return Product<S>::atb_column(A, B.col(0), C.col(0));
    if (is_large(A, B.cols()) || B.cols() < few_columns) return Product<S>::atb(A, B, C);
    multiply_transposed(A, B, C, false);
  }
  /// C += A' B
  static void add_atb(In A, In B, Out C) {
    if (is_large(A, B.cols()) || B.cols() < few_columns) return Product<S>::add_atb(A, B, C);
    multiply_transposed(A, B, C, true);
  }

 private:
  static constexpr int packet_size = Eigen::internal::packet_traits<S>::size;
  /// A tile of C: `tile_packets` packets of rows. There are registers left for its part of a column
  /// of A and for an entry of B, and enough tiles in flight to hide the latency of an addition.
  static constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
  static constexpr int tile_columns = 4;
  static constexpr Index tile_rows = tile_packets * packet_size;
  static constexpr Index panel_depth = 128;
  /// Below these, transposing costs more than it gives.
  static constexpr Index few_columns = packet_size / 2 + 1;

  /// Beyond the second-level cache a general product's panels pay, but not for a token or two:
  /// these are `step`, which must not allocate.
  static bool is_large(In A, Index columns) {
    return A.size() > (Index{1} << 16) && columns > tile_columns;
  }

  /// A matrix in memory: entry (i, j) at data[i * row_step + j * column_step].
  struct View {
    const S* data;
    Index rows, cols, row_step, column_step;
  };
  static View view(In A) { return {A.data(), A.rows(), A.cols(), 1, A.outerStride()}; }
  static View transposed(In A) { return {A.data(), A.cols(), A.rows(), A.outerStride(), 1}; }

  /// How a product enters C: C = A B + start 1', or C += sign A B.
  struct Entry {
    bool keeps;
    S sign;          // 1 or -1
    const S* start;  // may be null
  };

  /// The columns of A are contiguous.
  static void multiply(const View& A, const View& B, Out C, const Entry& entry) {
    const Index row = rows<packet_size, tile_packets>(0, A, B, C, entry);
    rows<packet_size, 1>(row, A, B, C, entry);
  }

  /// All rows from `row` on that fill tiles of `packets` packets; smaller packets take care of what
  /// is left in the end. Returns the first row left.
  template <int lanes, int packets>
  static Index rows(Index row, const View& A, const View& B, Out& C, const Entry& entry) {
    constexpr int columns = packets == 1 ? 2 * tile_columns : tile_columns;
    for (; row + packets * lanes <= A.rows; row += packets * lanes) {
      Index column = 0;
      for (; column + columns <= B.cols; column += columns)
        tile<lanes, packets, columns>(row, column, A, B, C, entry);
      for (; column + 2 <= B.cols; column += 2)
        tile<lanes, packets, 2>(row, column, A, B, C, entry);
      if (column < B.cols) tile<lanes, packets, 1>(row, column, A, B, C, entry);
    }
    if constexpr (packets == 1 && lanes > 1)
      if (row < A.rows) rows<detail::Lanes<S, lanes>::fewer, 1>(row, A, B, C, entry);
    return row;
  }

  /// `packets` packets of rows by `columns` columns of C, accumulated in registers.
  template <int lanes, int packets, int columns>
  static EIGEN_DONT_INLINE void tile(Index row, Index column, const View& A, const View& B, Out& C,
                                     const Entry& entry) {
    namespace eigen = Eigen::internal;
    using Packet = typename detail::Lanes<S, lanes>::Packet;
    constexpr int entries = columns * packets;
    Packet sum[entries], left[packets], right;
    detail::unrolled<entries>([&](auto i) TTT_INLINE_LAMBDA {
      sum[i] = entry.start ? eigen::ploadu<Packet>(entry.start + row + i % packets * lanes)
                           : eigen::pset1<Packet>(S(0));
    });
    const S* a = A.cols > 0 ? A.data + row : nullptr;  // an empty matrix has no address
    const S* b = A.cols > 0 ? B.data + column * B.column_step : nullptr;
    for (Index k = 0; k < A.cols; ++k, a += A.column_step, b += B.row_step) {
      detail::unrolled<packets>([&](auto p) TTT_INLINE_LAMBDA {
        left[p] = eigen::ploadu<Packet>(a + p * lanes);
        detail::keep_in_register<lanes>(left[p]);
      });
      detail::unrolled<entries>([&](auto i) TTT_INLINE_LAMBDA {
        if constexpr (i % packets == 0)
          right = eigen::pset1<Packet>(b[Index{i / packets} * B.column_step]);
        sum[i] = eigen::pmadd(left[i % packets], right, sum[i]);
      });
    }
    const Index stride = C.outerStride();
    S* const c = C.data() + row + column * stride;
    if (entry.keeps) {
      const Packet factor = eigen::pset1<Packet>(entry.sign);
      detail::unrolled<entries>([&](auto i) TTT_INLINE_LAMBDA {
        const S* const place = c + Index{i / packets} * stride + i % packets * lanes;
        sum[i] = eigen::pmadd(factor, sum[i], eigen::ploadu<Packet>(place));
      });
    }
    detail::unrolled<entries>([&](auto i) TTT_INLINE_LAMBDA {
      eigen::pstoreu(c + Index{i / packets} * stride + i % packets * lanes, sum[i]);
    });
  }

  /// C += c 1'
  static void add_column(VectorIn<S> c, Out& C) {
    for (Index j = 0; j < C.cols(); ++j)
      each_lane<S>(C.rows(), [&](auto at) { at.add(&C(0, j), at(c.data())); });
  }

  /// C += a b'
  static void add_column_products(const S* a, const S* b, Out& C) {
    for (Index j = 0; j < C.cols(); ++j) {
      S* const c = C.data() + j * C.outerStride();
      each_lane<S>(C.rows(), [&](auto at) { at.add(c, at(a) * b[j]); });
    }
  }

  /// C = A' B, or C += A' B: A' is laid out on the stack, a panel at a time, as the tiles read it.
  static void multiply_transposed(In A, In B, Out& C, bool keeps) {
    std::array<S, static_cast<std::size_t>(tile_rows * panel_depth)> panel;
    for (Index k = 0; k == 0 || k < A.rows(); k += panel_depth, keeps = true) {
      const Index depth = std::min(panel_depth, A.rows() - k);
      for (Index row = 0; row < A.cols(); row += tile_rows) {
        const Index height = std::min(tile_rows, A.cols() - row);
        detail::transpose<S>(A.block(k, row, depth, height), panel.data());
        multiply({panel.data(), height, depth, 1, height}, view(B.middleRows(k, depth)),
                 C.middleRows(row, height), {keeps, S(1), nullptr});
      }
    }
  }
};

}  // namespace ttt
