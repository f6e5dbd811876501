/// @file
/// Whether a rule's updates gather speed, per head and token:
///   S_t = mu_t S_{t-1} - theta_t G_t      W_t = (1 - alpha_t) W_{t-1} + S_t
///   NoMomentum      mu = 0: W_t = (1 - alpha_t) W_{t-1} - theta_t G_t
///   TokenMomentum   mu_t = sigma(a.x_t + c), of the layer's input; with a direction that is not
///                   linear in the gradient, the mean of mu_t over the mini-batch (directions.hpp)
/// Source: Titans (Behrouz et al. 2024, arXiv 2501.00663), section 3.1; the mean: LaCT (Zhang et
/// al. 2025, arXiv 2505.23884).
#pragma once

namespace ttt {

struct NoMomentum {
  static constexpr bool present = false;
};

struct TokenMomentum {
  static constexpr bool present = true;
  double initial_bias = 0;  // c before training: mu near 1/2
};

}  // namespace ttt
