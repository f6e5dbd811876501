/// @file
/// What a norm over the rows of a token divides by: x = (z - mean) / s, with
///   s = sqrt(mean((z - mean)^2) + epsilon)    layer norm (biased variance)
///   s = sqrt(mean(z^2) + epsilon), mean = 0   RMS norm
#pragma once

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
      : share(S(1) / static_cast<S>(rows)), centred(centred_norm) {
    using std::sqrt;
    if (centred) {
      Sum<S> sum;
      each_lane<S>(rows, [&](auto at) { sum += at(z); });
      mean = share * sum.total();
    }
    Sum<S> squares;
    each_lane<S>(rows, [&](auto at) {
      const auto deviation = at(z) - mean;
      squares += deviation * deviation;
    });
    inverse_s = S(1) / sqrt(share * squares.total() + S(epsilon));
  }

  /// x of the numbers z.
  EIGEN_ALWAYS_INLINE auto normalize(const auto& z) const { return (z - mean) * inverse_s; }

  /// The mean of numbers whose norm's gradient is centred; 0 where the norm is not.
  S mean_of(const Sum<S>& sum) const { return centred ? share * sum.total() : S(0); }
};

}  // namespace ttt
