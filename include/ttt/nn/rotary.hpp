/// @file
/// Rotary positions (Su et al. 2021, arXiv 2104.09864, eq. 34): a head of f rows is f/2 pairs
/// (a_i, b_i); at position m each is turned by the angle m theta^(-2i/f):
///   a_i' = a_i cos - b_i sin        b_i' = a_i sin + b_i cos
/// The adjoint of a rotation is the rotation back. The pairs are (2i, 2i+1) in RotaryInterleaved,
/// which TTT layers use with m modulo the mini-batch, and (i, i + f/2) in RotaryHalfSplit (Llama).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

namespace detail {

/// theta^(-2i/f) for i in [0, f/2).
inline std::vector<double> rotary_frequencies(const char* name, Index head_width, double theta) {
  require(head_width > 0 && head_width % 2 == 0, name, ": head_width is ", head_width,
          ", expected a positive even number");
  require(theta > 0, name, ": theta is ", theta, ", expected a positive number");
  std::vector<double> frequencies;
  for (Index i = 0; i < head_width / 2; ++i)
    frequencies.push_back(
        std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(head_width)));
  return frequencies;
}

inline void require_rotary(const char* what, Index rows, Index head_width, Index first_position) {
  require(rows % head_width == 0, what, ": x has ", rows, " rows, expected a multiple of the head ",
          "width ", head_width);
  require(first_position >= 0, what, ": first_position is ", first_position,
          ", expected at least 0");
}

}  // namespace detail

/// Pairs (2i, 2i+1), positions modulo `period`. Const while it runs: threads share it.
template <Scalar S>
class RotaryInterleaved {
 public:
  /// Throws `std::invalid_argument` unless head_width is even and all three are positive.
  RotaryInterleaved(Index head_width, Index period, double theta) : head_width_(head_width) {
    const auto frequencies = detail::rotary_frequencies("RotaryInterleaved", head_width, theta);
    require(period > 0, "RotaryInterleaved: period is ", period, ", expected a positive number");
    cos_.resize(head_width / 2, period);
    sin_.resize(head_width / 2, period);
    for (Index m = 0; m < period; ++m) {
      for (Index i = 0; i < head_width / 2; ++i) {
        const double angle = static_cast<double>(m) * frequencies[static_cast<std::size_t>(i)];
        cos_(i, m) = static_cast<S>(std::cos(angle));
        sin_(i, m) = static_cast<S>(std::sin(angle));
      }
    }
  }

  /// Rotates every head of x [H f, T] in place; column t stands at (first_position + t) mod period.
  void rotate(MatrixOut<S> x, Index first_position) const { turn(x, first_position, S(1)); }

  /// The adjoint and inverse of `rotate`.
  void rotate_back(MatrixOut<S> x, Index first_position) const { turn(x, first_position, S(-1)); }

  const Matrix<S>& cos() const { return cos_; }  // [f/2, period]
  const Matrix<S>& sin() const { return sin_; }  // [f/2, period]

 private:
  void turn(MatrixOut<S> x, Index first_position, S direction) const {
    detail::require_rotary("RotaryInterleaved", x.rows(), head_width_, first_position);
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) {
        const Index m = (first_position % cos_.cols() + t) % cos_.cols();
        for (Index row = 0; row < x.rows(); row += head_width_)
          turn_head(&x(row, t), cos_.col(m).data(), sin_.col(m).data(), direction);
      }
    });
  }

  /// A plain loop: compilers vectorise its stride of two, Eigen does not.
  void turn_head(S* head, const S* cosines, const S* sines, S direction) const {
    for (Index i = 0; i < head_width_ / 2; ++i) {
      const S a = head[2 * i], b = head[2 * i + 1];
      const S cosine = cosines[i], sine = direction * sines[i];
      head[2 * i] = a * cosine - b * sine;
      head[2 * i + 1] = a * sine + b * cosine;
    }
  }

  Index head_width_;
  Matrix<S> cos_;
  Matrix<S> sin_;
};

/// Pairs (i, i + f/2), absolute positions of 64 bits. Const while it runs: threads share it.
template <Scalar S>
class RotaryHalfSplit {
 public:
  /// Throws `std::invalid_argument` unless head_width is even and both are positive.
  RotaryHalfSplit(Index head_width, double theta)
      : head_width_(head_width),
        frequencies_(detail::rotary_frequencies("RotaryHalfSplit", head_width, theta)) {}

  /// Tabulates the positions below `positions`. Later ones work too, only slower.
  void reserve(Index positions) {
    const Index tabulated = cos_.cols();
    if (positions <= tabulated) return;
    cos_.conservativeResize(head_width_ / 2, positions);
    sin_.conservativeResize(head_width_ / 2, positions);
    for (Index m = tabulated; m < positions; ++m)
      compute(m, 0, head_width_ / 2, cos_.col(m).data(), sin_.col(m).data());
  }

  /// Rotates every head of x [H f, T] in place; column t stands at position first_position + t.
  void rotate(MatrixOut<S> x, Index first_position) const { turn(x, first_position, S(1)); }

  /// The adjoint and inverse of `rotate`.
  void rotate_back(MatrixOut<S> x, Index first_position) const { turn(x, first_position, S(-1)); }

 private:
  /// Pairs handled at once, so that angles that are not tabulated fit the stack.
  static constexpr Index chunk = 64;

  void turn(MatrixOut<S> x, Index first_position, S direction) const {
    detail::require_rotary("RotaryHalfSplit", x.rows(), head_width_, first_position);
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t)
        for (Index i = 0; i < head_width_ / 2; i += chunk)
          turn_pairs(x.col(t), first_position + t, i, std::min(chunk, head_width_ / 2 - i),
                     direction);
    });
  }

  /// Turns the pairs [first, first + count) of every head of x_t [H f].
  void turn_pairs(VectorOut<S> x_t, Index position, Index first, Index count, S direction) const {
    std::array<S, chunk> computed_cos, computed_sin;
    const bool tabulated = position < cos_.cols();
    if (!tabulated) compute(position, first, count, computed_cos.data(), computed_sin.data());
    const S* cosines = tabulated ? &cos_(first, position) : computed_cos.data();
    const S* sines = tabulated ? &sin_(first, position) : computed_sin.data();
    for (Index row = first; row < x_t.size(); row += head_width_) {
      S* low = &x_t(row);
      S* high = low + head_width_ / 2;
      for (Index i = 0; i < count; ++i) {
        const S a = low[i], b = high[i], sine = direction * sines[i];
        low[i] = a * cosines[i] - b * sine;
        high[i] = a * sine + b * cosines[i];
      }
    }
  }

  void compute(Index position, Index first, Index count, S* cosines, S* sines) const {
    for (Index i = 0; i < count; ++i) {
      const double angle =
          static_cast<double>(position) * frequencies_[static_cast<std::size_t>(first + i)];
      cosines[i] = static_cast<S>(std::cos(angle));
      sines[i] = static_cast<S>(std::sin(angle));
    }
  }

  Index head_width_;
  std::vector<double> frequencies_;
  Matrix<S> cos_;  // [f/2, tabulated positions]
  Matrix<S> sin_;
};

}  // namespace ttt
