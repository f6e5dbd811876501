/// @file
/// Loops over the rows of a token, a register of neighbouring numbers at a time:
///   Sum<S> square;
///   each_lane<S>(rows, [&](auto at) {
///     const auto x = at(z) * share;      // at(z): the numbers of this turn in memory z
///     square += x * x;
///     at.store(y, x - mean);
///   });
/// Values, not expressions: every operation is one instruction, done at once, so that several sums
/// and results come from one pass, and compilers meet no new type with every formula, as they do
/// with Eigen's expressions. Sums add the numbers in an order that follows from their count alone.
#pragma once

#include <type_traits>
#include <utility>

#include "ttt/core/views.hpp"

#if defined(__GNUC__)
#define TTT_INLINE_LAMBDA __attribute__((always_inline))
#else
#define TTT_INLINE_LAMBDA
#endif

namespace ttt {

namespace detail {

/// The packet of `lanes` numbers, and how many the next smaller one has.
template <class S, int lanes>
struct Lanes {
  using Packet = typename Eigen::internal::find_best_packet<S, lanes>::type;
  using Half = typename Eigen::internal::unpacket_traits<Packet>::half;
  static constexpr int half = Eigen::internal::unpacket_traits<Half>::size;
  static constexpr int fewer = half < lanes ? half : 1;
};
template <class S>
struct Lanes<S, 1> {
  using Packet = S;
};

/// Calls `body` with 0, 1, ... below `count` as constants: arrays that it indexes become registers.
template <int count, class Body>
EIGEN_ALWAYS_INLINE void unrolled(Body&& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) TTT_INLINE_LAMBDA {
    (body(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, count>{});
}

}  // namespace detail

/// n neighbouring numbers: as many as a register of the processor holds, or one.
template <class S, int n>
class Lane {
  using Packet = typename detail::Lanes<S, n>::Packet;

 public:
  using Array = Eigen::Array<S, n, 1>;

  EIGEN_ALWAYS_INLINE Lane(S number)  // NOLINT(google-explicit-constructor): constants mix in
      : packet_(Eigen::internal::pset1<Packet>(number)) {}
  EIGEN_ALWAYS_INLINE explicit Lane(const S* memory)
      : packet_(Eigen::internal::ploadu<Packet>(memory)) {}
  /// The numbers of an expression in arrays.
  template <class Derived>
  EIGEN_ALWAYS_INLINE Lane(const Eigen::ArrayBase<Derived>& expression) {  // NOLINT(*-explicit-*)
    const Array numbers = expression;
    packet_ = Eigen::internal::ploadu<Packet>(numbers.data());
  }

  EIGEN_ALWAYS_INLINE void store(S* memory) const { Eigen::internal::pstoreu(memory, packet_); }
  EIGEN_ALWAYS_INLINE Array array() const {
    Array numbers;
    store(numbers.data());
    return numbers;
  }
  EIGEN_ALWAYS_INLINE S sum() const { return Eigen::internal::predux(packet_); }
  /// The sum of each of n of them, for little more than one such sum costs.
  static EIGEN_ALWAYS_INLINE Lane sums(const Lane (&lanes)[n]) {
    Eigen::internal::PacketBlock<Packet, n> block;
    for (int i = 0; i < n; ++i) block.packet[i] = lanes[i].packet_;
    Eigen::internal::ptranspose(block);
    for (int half = n / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i)
        block.packet[i] = Eigen::internal::padd(block.packet[i], block.packet[i + half]);
    return Lane(block.packet[0], Done());
  }

  friend EIGEN_ALWAYS_INLINE Lane operator+(const Lane& a, const Lane& b) {
    return Lane(Eigen::internal::padd(a.packet_, b.packet_), Done());
  }
  friend EIGEN_ALWAYS_INLINE Lane operator-(const Lane& a, const Lane& b) {
    return Lane(Eigen::internal::psub(a.packet_, b.packet_), Done());
  }
  friend EIGEN_ALWAYS_INLINE Lane operator*(const Lane& a, const Lane& b) {
    return Lane(Eigen::internal::pmul(a.packet_, b.packet_), Done());
  }
  /// a b + c, rounded once where the processor can.
  friend EIGEN_ALWAYS_INLINE Lane multiply_add(const Lane& a, const Lane& b, const Lane& c) {
    return Lane(Eigen::internal::pmadd(a.packet_, b.packet_, c.packet_), Done());
  }
  friend EIGEN_ALWAYS_INLINE Lane tanh(const Lane& a) { return a.array().tanh(); }

 private:
  struct Done {};
  EIGEN_ALWAYS_INLINE Lane(const Packet& packet, Done) : packet_(packet) {}

  Packet packet_;
};

/// The place of n numbers among those of a token.
template <class S, int n>
struct LaneAt {
  Index first;

  EIGEN_ALWAYS_INLINE Lane<S, n> operator()(const S* memory) const {
    return Lane<S, n>(memory + first);
  }
  EIGEN_ALWAYS_INLINE void store(S* memory, const Lane<S, n>& numbers) const {
    numbers.store(memory + first);
  }
  EIGEN_ALWAYS_INLINE void add(S* memory, const Lane<S, n>& numbers) const {
    ((*this)(memory) + numbers).store(memory + first);
  }
};

template <class S>
inline constexpr int lane_size = Eigen::internal::packet_traits<S>::size;

/// Calls `body` with the places of [0, count), in ascending order.
template <class S, class Body>
EIGEN_ALWAYS_INLINE void each_lane(Index count, Body&& body) {
  constexpr int lanes = lane_size<S>;
  const Index whole = lanes > 1 ? count / lanes * lanes : 0;
  if constexpr (lanes > 1)
    for (Index i = 0; i < whole; i += lanes) body(LaneAt<S, lanes>{i});
  for (Index i = whole; i < count; ++i) body(LaneAt<S, 1>{i});
}

/// The place of n neighbouring entries of a column, in any matrix of one shape.
template <class S, int n>
struct EntriesAt {
  Index row, column;

  EIGEN_ALWAYS_INLINE Lane<S, n> operator()(const auto& matrix) const {
    return Lane<S, n>(matrix.data() + row + column * matrix.outerStride());
  }
  EIGEN_ALWAYS_INLINE void store(auto& matrix, const Lane<S, n>& numbers) const {
    numbers.store(matrix.data() + row + column * matrix.outerStride());
  }
};

/// Calls `body` with the places of all entries of `result`, column by column.
template <class S, class Body>
EIGEN_ALWAYS_INLINE void each_entry(const MatrixOut<S>& result, Body&& body) {
  for (Index column = 0; column < result.cols(); ++column)
    each_lane<S>(result.rows(), [&]<int n>(LaneAt<S, n> at) TTT_INLINE_LAMBDA {
      body(EntriesAt<S, n>{at.first, column});
    });
}

/// Calls `body(count)`, with the constant where the count is a usual one: loops of a few turns are
/// then unrolled.
template <class Body>
EIGEN_ALWAYS_INLINE void with_usual_count(Index count, Body&& body) {
  if (count == 64) return body(Index{64});
  if (count == 32) return body(Index{32});
  body(count);
}

/// A sum over the numbers of a token.
template <class S>
class Sum {
 public:
  template <int n>
  EIGEN_ALWAYS_INLINE void operator+=(const Lane<S, n>& numbers) {
    if constexpr (n == 1) {
      rest_ = rest_ + numbers;
    } else {
      lanes_ = lanes_ + numbers;
    }
  }
  EIGEN_ALWAYS_INLINE S total() const { return lanes_.sum() + rest_.sum(); }

 private:
  Lane<S, lane_size<S>> lanes_{S(0)};
  Lane<S, 1> rest_{S(0)};
};

}  // namespace ttt
