/// @file
/// The five types of a Mamba layer. D width, E inner width, N states a channel, R rank of the step
/// sizes, K convolution kernel. Tensors carry the names and bytes of the published checkpoints.
/// Source: Gu and Dao 2023 (arXiv 2312.00752); state-spaces/mamba.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "ttt/core/fields.hpp"
#include "ttt/core/random.hpp"
#include "ttt/layers/selective_scan.hpp"

namespace ttt {

/// Sizes and switches; 0 stands for the published choice where one is named.
struct MambaConfig {
  Index width = 0;
  Index inner_width = 0;  ///< E; 0: 2 width
  Index state_size = 16;  ///< N
  Index conv_kernel = 4;
  Index dt_rank = 0;            ///< R; 0: width / 16, rounded up
  bool bias = false;            ///< of in_proj and out_proj
  bool conv_bias = true;        ///< of the convolution
  double dt_min = 1e-3;         ///< step sizes at initialization, before any input,
  double dt_max = 0.1;          ///< are log-uniform between these,
  double dt_init_floor = 1e-4;  ///< and at least this

  Index inner() const { return inner_width > 0 ? inner_width : 2 * width; }
  Index rank() const { return dt_rank > 0 ? dt_rank : (width + 15) / 16; }

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    const auto positive = [](const char* name, Index value) {
      require(value > 0, "MambaConfig: ", name, " is ", value, ", expected a positive number");
    };
    positive("width", width);
    require(inner_width >= 0, "MambaConfig: inner_width is ", inner_width,
            ", expected a positive number, or 0 for 2 width");
    positive("state_size", state_size);
    positive("conv_kernel", conv_kernel);
    require(dt_rank >= 0, "MambaConfig: dt_rank is ", dt_rank,
            ", expected a positive number, or 0 for width / 16");
    require(std::isfinite(dt_min) && dt_min > 0, "MambaConfig: dt_min is ", dt_min,
            ", expected a positive number");
    require(std::isfinite(dt_max) && dt_max >= dt_min, "MambaConfig: dt_max is ", dt_max,
            ", expected a finite number, at least dt_min, ", dt_min);
    require(std::isfinite(dt_init_floor) && dt_init_floor >= 0, "MambaConfig: dt_init_floor is ",
            dt_init_floor, ", expected a finite number, at least 0");
  }
};

/// What the outer loop learns. Tensors that a switch leaves out are empty. Weight decay is not for
/// A_log and D, as published.
template <Scalar S>
struct MambaParameters {
  Matrix<S> in_proj_weight;   // [D, 2E]: u, then z
  Vector<S> in_proj_bias;     // [2E]
  Matrix<S> conv_weight;      // [K, E]
  Vector<S> conv_bias;        // [E]
  Matrix<S> x_proj_weight;    // [E, R + 2N]: low-rank step sizes, B, C
  Matrix<S> dt_proj_weight;   // [R, E]
  Vector<S> dt_proj_bias;     // [E]
  Matrix<S> A_log;            // [N, E]: log(-A)
  Vector<S> D;                // [E]: what of u skips the states
  Matrix<S> out_proj_weight;  // [E, D]
  Vector<S> out_proj_bias;    // [D]

  static auto fields(auto& self) {
    return std::tuple(
        streamed(field("in_proj.weight", self.in_proj_weight)),
        field("in_proj.bias", self.in_proj_bias),
        field("conv1d.weight", self.conv_weight, self.conv_weight.cols()),
        field("conv1d.bias", self.conv_bias), streamed(field("x_proj.weight", self.x_proj_weight)),
        streamed(field("dt_proj.weight", self.dt_proj_weight)),
        field("dt_proj.bias", self.dt_proj_bias), without_decay(field("A_log", self.A_log)),
        without_decay(field("D", self.D)), streamed(field("out_proj.weight", self.out_proj_weight)),
        field("out_proj.bias", self.out_proj_bias));
  }

  /// The published initialization: A = -1 .. -N in every channel, D = 1, steps log-uniform,
  /// projections uniform in +-1/sqrt(fan in), convolutions in +-1/sqrt(K), other biases 0.
  static MambaParameters initial(const MambaConfig& config, Random& random) {
    const Index width = config.width, E = config.inner(), N = config.state_size, R = config.rank();
    MambaParameters p;
    const auto uniform = [&](Matrix<S>& weight, Index rows, Index cols) {
      const double bound = 1 / std::sqrt(static_cast<double>(rows));
      weight.resize(rows, cols);
      random.fill_uniform(weight, -bound, bound);
    };
    uniform(p.in_proj_weight, width, 2 * E);
    uniform(p.conv_weight, config.conv_kernel, E);
    uniform(p.x_proj_weight, E, R + 2 * N);
    uniform(p.dt_proj_weight, R, E);
    uniform(p.out_proj_weight, E, width);
    if (config.bias) {
      p.in_proj_bias.setZero(2 * E);
      p.out_proj_bias.setZero(width);
    }
    if (config.conv_bias) p.conv_bias.setZero(E);
    p.dt_proj_bias.resize(E);
    for (S& bias : p.dt_proj_bias) {
      const double low = std::log(config.dt_min), high = std::log(config.dt_max);
      const double dt = std::max(std::exp(random.uniform(low, high)), config.dt_init_floor);
      bias = static_cast<S>(dt + std::log(-std::expm1(-dt)));  // softplus(bias) = dt
    }
    p.A_log.resize(N, E);
    for (Index n = 0; n < N; ++n)
      p.A_log.row(n).setConstant(static_cast<S>(std::log(static_cast<double>(n + 1))));
    p.D.setOnes(E);
    return p;
  }

  ScanCoefficients<S> scan() const { return {A_log, D, dt_proj_bias}; }
};

/// What a stream carries.
template <Scalar S>
struct MambaState {
  Matrix<S> conv_tail;  // [E, K-1] last inputs of the convolution, oldest first
  Matrix<S> ssm;        // [E, N]

  static auto fields(auto& self) {
    return std::tuple(field("conv_tail", self.conv_tail), field("ssm", self.ssm));
  }
};

/// Intermediate values of a forward, one column a token of the batch.
template <Scalar S>
struct MambaActivations {
  Matrix<S> projected;  // [2E, T] inputs of the convolution; z, the gate before its activation
  Matrix<S> convolved;  // [E, T] before the activation
  Matrix<S> u;          // [E, T] inputs of the scan
  Matrix<S> selected;   // [R + 2N, T] low-rank step sizes, B, C
  Matrix<S> dt;         // [E, T] step sizes before bias and softplus
  Matrix<S> y;          // [E, T] outputs of the scan, gated
};

/// What one forward leaves behind for one backward.
template <Scalar S>
struct MambaCache {
  Matrix<S> x;
  MambaActivations<S> activations;
  std::vector<Index> lengths;      // per sequence
  std::vector<Matrix<S>> tails;    // convolution inputs before each sequence
  std::vector<Matrix<S>> borders;  // [E, N * chunks] per sequence: the states before each chunk
};

/// Scratch memory of a layer.
template <Scalar S>
struct MambaWorkspace {
  MambaActivations<S> activations;
  MambaActivations<S> adjoints;      // each of the activation at its place
  Matrix<S> shares;                  // [2N * blocks, T] each block's part of dB and dC
  Matrix<S> d_coefficients;          // [N + 2, E * sequences] dA_log, dD, d(step bias)
  std::vector<ScanBlock<S>> blocks;  // one for each thread
  Vector<S> projected, convolved, u, selected, dt, y;  // one token
};

}  // namespace ttt
