/// @file
/// The introductory task of the paper (Sun et al. 2024, arXiv 2407.04620, section 2.1): learn to
/// reconstruct x_t from a corrupted x~_t, l(W; x_t) = |f(x~_t; W) - x_t|^2.
///   NoCorruption   x~ = x
///   MaskedInput    x~ = x with a fraction of each token's channels set to zero
///   NoisyInput     x~ = x + deviation * normal noise
///   LowRankInput   x~ = P x,  P = U U' with U [f, rank] orthonormal and random
/// All randomness is a function of (seed, token's place in the stream, channel): a stream cut into
/// pieces, and a backward pass, see the same corruption. Heads that shall differ get other seeds.
/// Shapes: x, x~ and their adjoints [f, n]; no argument may be the memory of another.
#pragma once

#include <cmath>

#include "ttt/core/check.hpp"
#include "ttt/core/random.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// One interface for plain values that a configuration can hold, with their scratch memory apart,
/// so that threads share them. `first_token` is the place of column 0 in the stream. `backward`
/// adds into dx.
template <class C, class S>
concept Corruption = requires(const C& corruption, MatrixIn<S> in, Index f, Index first_token,
                              MatrixOut<S> out, typename C::template Scratch<S>& scratch) {
  corruption.validate(f);
  corruption.template apply<S>(in, first_token, out, scratch);
  corruption.template backward<S>(in, first_token, out, scratch);
};

namespace detail {

/// The random numbers of one token, a number a channel: SplitMix64 counts up from a hashed start.
inline Random token_random(std::uint64_t seed, Index token) {
  return Random(Random(seed).next() + static_cast<std::uint64_t>(token));
}

}  // namespace detail

struct NoCorruption {
  template <Scalar S>
  struct Scratch {};

  void validate(Index) const {}
  template <Scalar S>
  void apply(MatrixIn<S> x, Index, MatrixOut<S> corrupted, Scratch<S>&) const {
    corrupted = x;
  }
  template <Scalar S>
  void backward(MatrixIn<S> d_corrupted, Index, MatrixOut<S> dx, Scratch<S>&) const {
    dx += d_corrupted;
  }
};

/// round(fraction * f) channels of every token, each set of them equally likely.
struct MaskedInput {
  template <Scalar S>
  struct Scratch {};

  double fraction = 0.5;
  std::uint64_t seed = 0;

  /// Throws `std::invalid_argument`.
  void validate(Index /*head_width*/) const {
    require(fraction >= 0 && fraction <= 1, "MaskedInput: fraction is ", fraction,
            ", expected 0 to 1");
  }
  template <Scalar S>
  void apply(MatrixIn<S> x, Index first_token, MatrixOut<S> corrupted, Scratch<S>&) const {
    for_each_element(x, first_token, [&](Index i, Index t, bool masked) {
      corrupted(i, t) = masked ? S(0) : x(i, t);
    });
  }
  template <Scalar S>
  void backward(MatrixIn<S> d_corrupted, Index first_token, MatrixOut<S> dx, Scratch<S>&) const {
    for_each_element(d_corrupted, first_token, [&](Index i, Index t, bool masked) {
      if (!masked) dx(i, t) += d_corrupted(i, t);
    });
  }

 private:
  /// Selection sampling (Knuth, volume 2, 3.4.2, algorithm S): a channel is taken with probability
  /// (channels still to take) / (channels still to come).
  void for_each_element(const auto& x, Index first_token, auto&& visit) const {
    const Index f = x.rows();
    for (Index t = 0; t < x.cols(); ++t) {
      Random random = detail::token_random(seed, first_token + t);
      auto missing = static_cast<Index>(std::lround(fraction * static_cast<double>(f)));
      for (Index i = 0; i < f; ++i) {
        const bool masked = random.below(f - i) < missing;
        missing -= masked;
        visit(i, t, masked);
      }
    }
  }
};

struct NoisyInput {
  template <Scalar S>
  struct Scratch {};

  double deviation = 0.1;  // standard deviation, in units of x
  std::uint64_t seed = 0;

  /// Throws `std::invalid_argument`.
  void validate(Index /*head_width*/) const {
    require(deviation >= 0 && std::isfinite(deviation), "NoisyInput: deviation is ", deviation,
            ", expected a finite number that is not negative");
  }
  template <Scalar S>
  void apply(MatrixIn<S> x, Index first_token, MatrixOut<S> corrupted, Scratch<S>&) const {
    for (Index t = 0; t < x.cols(); ++t) {
      Random random = detail::token_random(seed, first_token + t);
      for (Index i = 0; i < x.rows(); ++i)
        corrupted(i, t) = x(i, t) + static_cast<S>(deviation * random.normal());
    }
  }
  template <Scalar S>
  void backward(MatrixIn<S> d_corrupted, Index, MatrixOut<S> dx, Scratch<S>&) const {
    dx += d_corrupted;
  }
};

/// `apply` throws `std::invalid_argument` where x has fewer than `rank` channels.
struct LowRankInput {
  /// U belongs to (f, rank, seed) and is made anew when they differ.
  template <Scalar S>
  struct Scratch {
    Matrix<S> U;   // [f, rank]
    Vector<S> Ux;  // [rank] U' x of one token
    std::uint64_t seed = 0;
  };

  Index rank = 1;
  std::uint64_t seed = 0;

  /// Throws `std::invalid_argument`.
  void validate(Index head_width) const {
    require(rank >= 1 && rank <= head_width, "LowRankInput: rank is ", rank,
            ", expected 1 to the head width ", head_width);
  }
  template <Scalar S>
  void apply(MatrixIn<S> x, Index, MatrixOut<S> corrupted, Scratch<S>& scratch) const {
    prepare(x.rows(), scratch);
    for (Index t = 0; t < x.cols(); ++t) {
      scratch.Ux.noalias() = scratch.U.transpose() * x.col(t);
      corrupted.col(t).noalias() = scratch.U * scratch.Ux;
    }
  }
  /// P' = P
  template <Scalar S>
  void backward(MatrixIn<S> d_corrupted, Index, MatrixOut<S> dx, Scratch<S>& scratch) const {
    prepare(dx.rows(), scratch);
    for (Index t = 0; t < dx.cols(); ++t) {
      scratch.Ux.noalias() = scratch.U.transpose() * d_corrupted.col(t);
      dx.col(t).noalias() += scratch.U * scratch.Ux;
    }
  }

  /// U [f, rank]: normal numbers, made orthonormal column by column (Gram-Schmidt, done twice
  /// against rounding). A template, so that only programs that use it compile it.
  template <Scalar D = double>
  Matrix<D> basis(Index f) const {
    require(rank <= f, "LowRankInput: rank is ", rank, ", expected at most the width ", f);
    Matrix<D> U(f, rank);
    Random(seed).fill_normal(U, 1);
    for (Index j = 0; j < rank; ++j) {
      for (int pass = 0; pass < 2; ++pass)
        for (Index i = 0; i < j; ++i) U.col(j) -= U.col(i).dot(U.col(j)) * U.col(i);
      U.col(j).normalize();
    }
    return U;
  }

 private:
  template <Scalar S>
  void prepare(Index f, Scratch<S>& scratch) const {
    if (scratch.U.rows() == f && scratch.U.cols() == rank && scratch.seed == seed) return;
    scratch.U = basis<double>(f).template cast<S>();
    scratch.Ux.resize(rank);
    scratch.seed = seed;
  }
};

}  // namespace ttt
