/// @file
/// What a norm over the rows of a token divides by: x = (z - mean) / s, with
///   s = sqrt(mean((z - mean)^2) + epsilon)    layer norm (biased variance)
///   s = sqrt(mean(z^2) + epsilon), mean = 0   RMS norm
#pragma once

#include <array>
#include <cmath>

#include "ttt/core/lanes.hpp"

namespace ttt {

template <class S>
struct Moments {
  S share = S(0);  // 1 / rows
  S mean = S(0);   // 0 where the norm is not centred
  S inverse_s = S(0);
  bool centred = false;

  Moments() = default;
  Moments(const S* z, Index rows, double epsilon, bool centred_norm)
      : Moments(z, rows, centred_norm) {
    divide_by(mean_square(z, rows) + S(epsilon));
  }

  // The steps of that, one by one.
  EIGEN_ALWAYS_INLINE Moments(const S* z, Index rows, bool centred_norm)
      : share(S(1) / static_cast<S>(rows)), centred(centred_norm) {
    if (!centred) return;
    Sum<S> sum;
    each_lane<S>(rows, [&](auto at) { sum += at(z); });
    mean = share * sum.total();
  }
  EIGEN_ALWAYS_INLINE S mean_square(const S* z, Index rows) const {
    Sum<S> squares;
    each_lane<S>(rows, [&](auto at) {
      const auto deviation = at(z) - mean;
      squares += deviation * deviation;
    });
    return share * squares.total();
  }
  void divide_by(S square_of_s) {
    using std::sqrt;
    inverse_s = S(1) / sqrt(square_of_s);
  }

  /// x of the numbers z.
  EIGEN_ALWAYS_INLINE auto normalize(const auto& z) const { return (z - mean) * inverse_s; }

  /// The mean of numbers whose norm's gradient is centred; 0 where the norm is not.
  S mean_of(const Sum<S>& sum) const { return centred ? share * sum.total() : S(0); }
};

/// The moments of neighbouring tokens, every step for all of them before the next one: the steps of
/// one token wait for one another, and with them a processor for most of the time.
template <class S>
class TokenMoments {
 public:
  static constexpr Index most = 16;

  TokenMoments() = default;
  /// Of `count` tokens, at most `most`, `stride` numbers apart.
  EIGEN_ALWAYS_INLINE TokenMoments(const S* z, Index stride, Index rows, Index count,
                                   double epsilon, bool centred) {
    std::array<S, most> squares;
    for (Index t = 0; t < count; ++t) moments_[t] = Moments<S>(z + t * stride, rows, centred);
    for (Index t = 0; t < count; ++t) squares[t] = moments_[t].mean_square(z + t * stride, rows);
    for (Index t = 0; t < count; ++t) moments_[t].divide_by(squares[t] + S(epsilon));
  }

  const Moments<S>& operator[](Index t) const { return moments_[t]; }

 private:
  std::array<Moments<S>, most> moments_;
};

}  // namespace ttt
