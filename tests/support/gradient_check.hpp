/// @file
/// Compares an analytic gradient with differences of the loss, in double, element by element:
///   n = (8 (L(+h) - L(-h)) - (L(+2h) - L(-2h))) / 12 h,      h = 1e-3 max(1, |value|)
/// Pass condition, for the analytic element a:
///   |a - n| <= gradient_relative |n| + gradient_floor max(1, |L|)
/// so an error of 1e-4 is found in every element larger than 1e-6 of the loss. The message names
/// the worst tensor and element.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "support/tolerances.hpp"
#include "ttt/core/fields.hpp"
#include "ttt/core/random.hpp"

namespace ttt::test {

struct GradientCheckOptions {
  double relative = tolerance::gradient_relative;
  double floor = tolerance::gradient_floor;
  double step = 1e-3;
  /// Elements tried of each tensor, chosen at random (with `seed`); all where it has no more.
  Index elements_per_tensor = 256;
  std::uint64_t seed = 1;
};

namespace detail {

/// dL/dx for the number `x` that `loss` reads; puts x back to the very bits that it had.
template <class Loss>
double central_difference(double& x, double relative_step, Loss& loss) {
  const double centre = x;
  const double h = relative_step * std::max(1.0, std::abs(centre));
  const auto at = [&](double offset) {
    x = centre + offset;
    return static_cast<double>(loss());
  };
  const double near = at(h) - at(-h), far = at(2 * h) - at(-2 * h);
  x = centre;
  return (8 * near - far) / (12 * h);
}

/// The worst element so far: the one with the largest error in units of what is allowed.
struct GradientCheckReport {
  Index tried = 0;
  Index failed = 0;
  double worst_ratio = -1;
  std::string worst;

  void add(const std::string& element, double analytic, double numeric, double allowed) {
    const double error = std::abs(analytic - numeric);
    const double ratio =
        std::isfinite(error) ? error / allowed : std::numeric_limits<double>::infinity();
    ++tried;
    failed += ratio > 1;
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = concat(element, ": analytic ", analytic, ", difference quotient ", numeric,
                     ", error ", error, ", allowed ", allowed);
    }
  }
};

}  // namespace detail

/// `loss()` returns L as a double and reads `value`: a matrix, a vector, or a struct with fields().
/// `gradient` is the analytic gradient, of the same kind and shapes. `value` is left unchanged.
/// Throws `std::invalid_argument` where a shape differs. Fails where there is nothing to check.
template <class Value, class Gradient, class Loss>
::testing::AssertionResult check_gradient(Value& value, const Gradient& gradient, Loss&& loss,
                                          const GradientCheckOptions& options = {}) {
  const double loss_size = std::max(1.0, std::abs(static_cast<double>(loss())));
  detail::GradientCheckReport report;
  Random random(options.seed);
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor, const auto& analytic) {
        const std::string name = info.name.empty() ? "tensor" : info.name;
        require_shape(("check_gradient: gradient of " + name).c_str(), analytic, tensor.rows(),
                      tensor.cols());
        const bool all = tensor.size() <= options.elements_per_tensor;
        const Index count = all ? tensor.size() : options.elements_per_tensor;
        for (Index k = 0; k < count; ++k) {
          const Index element = all ? k : random.below(tensor.size());
          const Index i = element % tensor.rows(), j = element / tensor.rows();
          const double numeric = detail::central_difference(tensor(i, j), options.step, loss);
          report.add(concat(name, '(', i, ", ", j, ')'), analytic(i, j), numeric,
                     options.relative * std::abs(numeric) + options.floor * loss_size);
        }
      },
      value, gradient);
  if (report.tried == 0) return ::testing::AssertionFailure() << "there is nothing to check";
  if (report.failed == 0) return ::testing::AssertionSuccess() << "worst is " << report.worst;
  return ::testing::AssertionFailure() << report.failed << " of " << report.tried
                                       << " elements are wrong; worst is " << report.worst;
}

}  // namespace ttt::test
