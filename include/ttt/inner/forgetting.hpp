/// @file
/// Whether the weights decay while a head reads, alpha_t = sigma(a.x_t + c) of the layer's input:
///   NoForgetting           W_t = W_{t-1} - theta_t grad l(W_{t-1})
///   ForgetAfterGradient    W_t = (1 - alpha_t) W_{t-1} - theta_t grad l(W_{t-1})
///   ForgetBeforeGradient   W_t = W' - theta_t grad l(W'),  W' = (1 - alpha_t) W_{t-1}
/// which differ: the first gradient is taken at weights that have not decayed. Momentum, if any,
/// does not decay. Every inner step decays; with a direction that is not linear in the gradient W
/// decays once a mini-batch, by the mean of alpha_t.
/// Source: after, Titans (Behrouz et al. 2024, arXiv 2501.00663), section 3.1; before, Gated
/// DeltaNet (Yang et al. 2024, arXiv 2412.06464), section 3.
#pragma once

namespace ttt {

struct NoForgetting {
  static constexpr bool present = false, before_gradient = false;
};

struct ForgetAfterGradient {
  static constexpr bool present = true, before_gradient = false;
  double initial_bias = -4;  // c before training: alpha near 0.02
};

struct ForgetBeforeGradient {
  static constexpr bool present = true, before_gradient = true;
  double initial_bias = -4;  // c before training: alpha near 0.02
};

}  // namespace ttt
