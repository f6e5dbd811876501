/// @file
/// The table of tolerances, with the reason for each, and the one measure that they apply to:
///   relative_error(A, B) = max |A - B| / max |B|      (max |A| where B = 0)
/// By tensor and not by element: an element that is small because large terms cancel carries their
/// rounding error.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "ttt/core/types.hpp"

namespace ttt::test {

/// Infinite where shapes differ or a number is not finite; 0 for two empty tensors.
template <class A, class B>
double relative_error(const Eigen::DenseBase<A>& actual, const Eigen::DenseBase<B>& expected) {
  if (actual.rows() != expected.rows() || actual.cols() != expected.cols())
    return std::numeric_limits<double>::infinity();
  double difference = 0, scale = 0;
  for (Index j = 0; j < actual.cols(); ++j) {
    for (Index i = 0; i < actual.rows(); ++i) {
      const auto a = static_cast<double>(actual.derived().coeff(i, j));
      const auto b = static_cast<double>(expected.derived().coeff(i, j));
      if (!std::isfinite(a) || !std::isfinite(b)) return std::numeric_limits<double>::infinity();
      difference = std::max(difference, std::abs(a - b));
      scale = std::max(scale, std::abs(b));
    }
  }
  return scale > 0 ? difference / scale : difference;
}

namespace tolerance {

/// The same sums in another order, or by another formula: n random roundings add up to sqrt(n) of
/// them relative to the largest element, and 256 covers sums of some thousands of terms with a
/// margin. The largest in the tests of nn/, whose sums are short, is 3 roundings.
/// double: 5.7e-14, float: 3.1e-5
template <class S>
inline constexpr double rounding = 256 * static_cast<double>(std::numeric_limits<S>::epsilon());

/// float against double, both from the same float inputs: one operation, forward and backward.
/// 42 roundings of float; the largest in the tests of nn/ is 3.4e-7, a fifteenth of it.
inline constexpr double float_against_double = 5e-6;

/// One stream cut into other pieces, stepped or batched, through a layer and back. An inner loop
/// that divides by a standard deviation passes rounding on enlarged: measured errors of all layers
/// are below 0.7 `rounding`; times six.
template <class S>
inline constexpr double stream = 4 * rounding<S>;

/// float against double over one such stream; measured errors are below 4e-6.
inline constexpr double stream_float_against_double = 5e-5;

/// Analytic gradients against fourth-order differences in double with step h = 1e-3 (see
/// gradient_check.hpp). Truncation is h^4 L'''''/30, 3e-14 of L''''': this allows for fifth
/// derivatives up to 3e7 times the first, and is still a hundredth of the error to be found, 1e-4.
inline constexpr double gradient_relative = 1e-6;

/// The part of |loss| below which differences see only its rounding error. One rounding of the
/// loss, 1.1e-16 of it, divided by h is 1.1e-13 of it, so this allows about 900 of them. The
/// largest error in the tests of nn/ is 1e-3 of all that is allowed.
inline constexpr double gradient_floor = 1e-10;

}  // namespace tolerance
}  // namespace ttt::test
