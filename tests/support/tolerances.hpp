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

/// The same sums in another order, or by another formula: an error of sqrt(n) roundings for n
/// terms, of which there are up to some hundreds here, times a margin of about ten.
/// double: 5.7e-14, float: 3.1e-5
template <class S>
inline constexpr double rounding = 256 * static_cast<double>(std::numeric_limits<S>::epsilon());

/// float against double, both from the same float inputs: one operation, forward and backward.
/// 168 roundings of float, measured errors are below a tenth of it.
inline constexpr double float_against_double = 2e-5;

/// Analytic gradients against fourth-order differences in double with step h = 1e-3 (see
/// gradient_check.hpp). Truncation is h^4 f'''''/30, about 1e-12 for the functions tested.
inline constexpr double gradient_relative = 1e-6;

/// The part of |loss| below which differences see only its rounding error: the loss carries about
/// 100 roundings, 2e-14 of it, which dividing by h turns into 2e-11; times five.
inline constexpr double gradient_floor = 1e-10;

}  // namespace tolerance
}  // namespace ttt::test
