/// @file
/// A matrix whose size is part of its type, for the products of one token: y = A x, A [rows, cols].
/// Its numbers lie in the order in which a product reads them: panels of as many rows as four
/// registers hold, each column by column,
///   y[panel] += A[panel, j] x_j   for j = 1, 2, ...
/// so that the sums stay in registers and nothing is read twice. A plain block of memory without
/// pointers: copied as bytes, placed in static memory, never allocated.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "ttt/core/lanes.hpp"

namespace ttt {

namespace detail {

template <class S, int rows, int n = lane_size<S>>
constexpr int widest_dividing() {
  if constexpr (rows % n == 0) {
    return n;
  } else {
    return widest_dividing<S, rows, Lanes<S, n>::fewer>();
  }
}

/// `count` neighbouring registers of n numbers.
template <class S, int n, class Places>
struct Tile;
template <class S, int n, int... i>
struct Tile<S, n, std::integer_sequence<int, i...>> {
  Lane<S, n> lanes[sizeof...(i)] = {((void)i, Lane<S, n>(S(0)))...};

  EIGEN_ALWAYS_INLINE void load(const S* memory) { ((lanes[i] = Lane<S, n>(memory + i * n)), ...); }
  EIGEN_ALWAYS_INLINE void store(S* memory) const { (lanes[i].store(memory + i * n), ...); }
  EIGEN_ALWAYS_INLINE void add(const Tile& other) { ((lanes[i] = lanes[i] + other.lanes[i]), ...); }
  EIGEN_ALWAYS_INLINE void add_product(const Tile& other, S x) {
    const Lane<S, n> factor(x);
    ((lanes[i] = multiply_add(other.lanes[i], factor, lanes[i])), ...);
  }
};

}  // namespace detail

/// How many numbers the widest register holds that divides `rows`.
template <class S, int rows>
inline constexpr int lanes_dividing = detail::widest_dividing<S, rows>();

/// n numbers in place, aligned for the widest registers: these never lie in two lines of the cache.
template <class S, int n>
struct alignas(sizeof(S) * lane_size<S>) FixedVector : std::array<S, static_cast<std::size_t>(n)> {
};

/// `lanes`: the numbers of a register, a divisor of the rows.
template <class S, int rows, int cols, int lanes = lanes_dividing<S, rows>>
class FixedMatrix {
 public:
  static constexpr int panel_registers = std::min(4, rows / lanes);
  static constexpr int panel_rows = panel_registers * lanes;
  template <int registers>
  using Tile = detail::Tile<S, lanes, std::make_integer_sequence<int, registers>>;

  S& operator()(int row, int col) { return numbers_[place(row, col)]; }
  S operator()(int row, int col) const { return numbers_[place(row, col)]; }
  FixedVector<S, rows * cols>& numbers() { return numbers_; }
  const FixedVector<S, rows * cols>& numbers() const { return numbers_; }

  /// From and to a matrix of the same size that Eigen knows.
  void copy_from(const auto& matrix) {
    for (int j = 0; j < cols; ++j)
      for (int i = 0; i < rows; ++i) (*this)(i, j) = matrix(i, j);
  }
  void copy_to(auto&& matrix) const {
    for (int j = 0; j < cols; ++j)
      for (int i = 0; i < rows; ++i) matrix(i, j) = (*this)(i, j);
  }

  /// y = A x; y is not the memory of x.
  EIGEN_ALWAYS_INLINE void multiply(const S* x, S* y) const {
    each_panel([&]<int registers>(std::integral_constant<int, registers>, int row)
                   TTT_INLINE_LAMBDA { product<registers>(row, x).store(y + row); });
  }

  /// (A x)[panel] of the panel that begins at `row`.
  template <int registers = panel_registers>
  EIGEN_ALWAYS_INLINE Tile<registers> product(int row, const S* x) const {
    constexpr int sets = sets_of_sums(registers);
    Tile<registers> sum[sets];
    each_column<registers, sets>(numbers_.data() + row * cols,
                                 [&](const S* column, int j, auto set) TTT_INLINE_LAMBDA {
                                   Tile<registers> a;
                                   a.load(column);
                                   sum[set].add_product(a, x[j]);
                                 });
    return total<sets>(sum);
  }

  /// u = A k, y = A q, with one reading of A.
  EIGEN_ALWAYS_INLINE void multiply_both(const S* k, const S* q, S* u, S* y) const {
    each_panel(
        [&]<int registers>(std::integral_constant<int, registers>, int row) TTT_INLINE_LAMBDA {
          constexpr int sets = sets_of_sums(2 * registers);
          Tile<registers> sum_k[sets], sum_q[sets];
          each_column<registers, sets>(numbers_.data() + row * cols,
                                       [&](const S* column, int j, auto set) TTT_INLINE_LAMBDA {
                                         Tile<registers> a;
                                         a.load(column);
                                         sum_k[set].add_product(a, k[j]);
                                         sum_q[set].add_product(a, q[j]);
                                       });
          total<sets>(sum_k).store(u + row);
          total<sets>(sum_q).store(y + row);
        });
  }

  /// y = A' x, where `lanes` divides the columns too: so many at once, whose sums fill a register.
  EIGEN_ALWAYS_INLINE void multiply_transposed(const S* x, S* y) const {
    static_assert(cols % lanes == 0);
    for (int j = 0; j < cols; j += lanes) {
      Tile<lanes> sums;
      each_panel([&]<int registers>(std::integral_constant<int, registers>, int row)
                     TTT_INLINE_LAMBDA {
                       const S* const panel = numbers_.data() + row * cols + j * registers * lanes;
                       Tile<registers> x_rows, a;
                       x_rows.load(x + row);
                       detail::unrolled<lanes>([&](auto c) TTT_INLINE_LAMBDA {
                         a.load(panel + c * registers * lanes);
                         detail::unrolled<registers>([&](auto r) TTT_INLINE_LAMBDA {
                           sums.lanes[c] = multiply_add(a.lanes[r], x_rows.lanes[r], sums.lanes[c]);
                         });
                       });
                     });
      Lane<S, lanes>::sums(sums.lanes).store(y + j);
    }
  }

  /// A += g k', then y = A q, with one reading of A.
  EIGEN_ALWAYS_INLINE void add_outer_then_multiply(const S* g, const S* k, const S* q, S* y) {
    each_panel(
        [&]<int registers>(std::integral_constant<int, registers>, int row) TTT_INLINE_LAMBDA {
          constexpr int sets = sets_of_sums(registers);
          Tile<registers> g_rows, sum[sets];
          g_rows.load(g + row);
          each_column<registers, sets>(numbers_.data() + row * cols,
                                       [&](S* column, int j, auto set) TTT_INLINE_LAMBDA {
                                         Tile<registers> a;
                                         a.load(column);
                                         a.add_product(g_rows, k[j]);
                                         a.store(column);
                                         sum[set].add_product(a, q[j]);
                                       });
          total<sets>(sum).store(y + row);
        });
  }

 private:
  static constexpr int last_rows = rows % panel_rows;

  static constexpr std::size_t place(int row, int col) {
    const int begin = row / panel_rows * panel_rows, height = std::min(panel_rows, rows - begin);
    return static_cast<std::size_t>(begin * cols + col * height + row - begin);
  }

  /// An addition waits four cycles for the one before it, and two are made at once: sums in so many
  /// sets, of every so many-th column, keep eight under way. (Four: an LSTM of width 32 takes 1.5
  /// times the time. Sixteen give nothing, and exceed the registers of AVX2.)
  static constexpr int sets_of_sums(int registers) {
    const int wanted = std::clamp(8 / registers, 1, 4);
    return cols % wanted == 0 ? wanted : cols % 2 == 0 ? std::min(wanted, 2) : 1;
  }

  /// Calls `body(number of registers, first row)`.
  template <class Body>
  static EIGEN_ALWAYS_INLINE void each_panel(Body&& body) {
    for (int row = 0; row < rows - last_rows; row += panel_rows)
      body(std::integral_constant<int, panel_registers>{}, row);
    if constexpr (last_rows > 0)
      body(std::integral_constant<int, last_rows / lanes>{}, rows - last_rows);
  }

  /// Calls `body(a column of the panel, its number, the set of its sums)`.
  template <int registers, int sets, class Body>
  static EIGEN_ALWAYS_INLINE void each_column(auto* panel, Body&& body) {
    for (int j = 0; j < cols; j += sets)
      detail::unrolled<sets>([&](auto set) TTT_INLINE_LAMBDA {
        body(panel + (j + set) * registers * lanes, j + set, set);
      });
  }

  template <int sets, class T>
  static EIGEN_ALWAYS_INLINE T total(T (&sum)[sets]) {
    detail::unrolled<sets - 1>([&](auto set) TTT_INLINE_LAMBDA { sum[0].add(sum[set + 1]); });
    return sum[0];
  }

  FixedVector<S, rows * cols> numbers_;
};

}  // namespace ttt
