/// @file
/// Clipping by the global norm (Pascanu et al., arXiv 1211.5063), as torch's clip_grad_norm_:
///   n = sqrt(sum over all tensors of |g|^2),   g = g min(1, n_max / (n + 1e-6)).
#pragma once

#include <cmath>

#include "ttt/core/check.hpp"
#include "ttt/core/fields.hpp"

namespace ttt {

/// Euclidean norm of all tensors together, summed in double and in the order of `fields()`.
template <HasFields Parameters>
double global_norm(const Parameters& gradient) {
  double squares = 0;
  for_each_tensor(
      [&](const TensorInfo&, const auto& tensor) {
        squares += tensor.template cast<double>().squaredNorm();
      },
      gradient);
  return std::sqrt(squares);
}

/// Scales `gradient` where its norm is above `max_norm`, and returns the norm that it had. A norm
/// that is not finite leaves the gradient as it is: the caller should stop.
template <HasFields Parameters>
double clip_gradient(Parameters& gradient, double max_norm) {
  require(max_norm > 0, "clip_gradient: max_norm is ", max_norm, ", expected a number above 0");
  const double norm = global_norm(gradient);
  const double scale = max_norm / (norm + 1e-6);
  if (!std::isfinite(norm) || scale >= 1) return norm;
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        using S = typename std::remove_cvref_t<decltype(tensor)>::Scalar;
        tensor *= static_cast<S>(scale);
      },
      gradient);
  return norm;
}

}  // namespace ttt
