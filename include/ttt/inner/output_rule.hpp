/// @file
/// What stands between the top of an inner model, z [f], and its loss and output.
///   LayerNormResidual: l = 1/2 |LN(z) - (v - k)|^2, output q + LN(y): the published layers.
///   PlainOutput:       l = 1/2 |z - v|^2,           output y.
/// LN(z) = gamma . x + beta, x = (z - mean) / s, s = sqrt(var + 1e-6), over the f rows of a token;
/// gamma and beta belong to a head and are learned by the outer loop only.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7, and the official code.
#pragma once

#include <cmath>

#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

/// gamma and beta of one head; both are empty for a plain output.
template <Scalar S>
struct HeadNorm {
  Eigen::Map<const Vector<S>> weight;  // [f]
  Eigen::Map<const Vector<S>> bias;    // [f]
};

/// Where the adjoints of gamma and beta of one head are added.
template <Scalar S>
struct HeadNormGradient {
  Eigen::Map<Vector<S>> weight;  // [f]
  Eigen::Map<Vector<S>> bias;    // [f]
};

struct PlainOutput {
  static constexpr bool has_norm = false;

  template <Scalar S>
  static S loss(VectorIn<S> z, VectorIn<S>, VectorIn<S> v, const HeadNorm<S>&) {
    return S(0.5) * (z - v).squaredNorm();
  }

  /// G = dl/dz, a column a token.
  template <Scalar S>
  static void gradient(MatrixIn<S> Z, MatrixIn<S>, MatrixIn<S> V, const HeadNorm<S>&,
                       MatrixOut<S> G) {
    G = Z - V;
  }

  template <Scalar S>
  static void output(MatrixIn<S> Y, MatrixIn<S>, const HeadNorm<S>&, MatrixOut<S> O) {
    O = Y;
  }

  /// Adjoint of `gradient`: overwrites dZ, adds into dK and dV.
  template <Scalar S>
  static void gradient_backward(MatrixIn<S>, MatrixIn<S>, MatrixIn<S>, const HeadNorm<S>&,
                                MatrixIn<S> dG, MatrixOut<S> dZ, MatrixOut<S>, MatrixOut<S> dV,
                                HeadNormGradient<S>&) {
    dZ = dG;
    dV -= dG;
  }

  /// Adjoint of `output`: overwrites dY and dQ.
  template <Scalar S>
  static void output_backward(MatrixIn<S>, const HeadNorm<S>&, MatrixIn<S> dO, MatrixOut<S> dY,
                              MatrixOut<S> dQ, HeadNormGradient<S>&) {
    dY = dO;
    dQ.setZero();
  }
};

struct LayerNormResidual {
  static constexpr bool has_norm = true;
  static constexpr double epsilon = 1e-6;

  template <Scalar S>
  static S loss(VectorIn<S> z, VectorIn<S> k, VectorIn<S> v, const HeadNorm<S>& norm) {
    using std::sqrt;
    const S mean = z.mean();
    const S s = sqrt((z.array() - mean).square().mean() + S(epsilon));
    const auto prediction = norm.weight.array() * ((z.array() - mean) / s) + norm.bias.array();
    return S(0.5) * (prediction - (v - k).array()).square().sum();
  }

  /// G = dl/dz, a column a token: with d = gamma . (LN(z) - (v - k)),
  /// G = (d - mean(d) - x mean(d . x)) / s
  template <Scalar S>
  static void gradient(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V, const HeadNorm<S>& norm,
                       MatrixOut<S> G) {
    const auto gamma = norm.weight.array(), beta = norm.bias.array();
    for (Index t = 0; t < Z.cols(); ++t) {
      const auto [mean, inverse_s] = moments<S>(Z, t);
      const auto x = (Z.col(t).array() - mean) * inverse_s;
      auto d = G.col(t).array();
      d = gamma * (gamma * x + beta - V.col(t).array() + K.col(t).array());
      const S mean_d = d.mean(), mean_dx = (d * x).mean();
      d = (d - mean_d - x * mean_dx) * inverse_s;
    }
  }

  /// O = Q + LN(Y)
  template <Scalar S>
  static void output(MatrixIn<S> Y, MatrixIn<S> Q, const HeadNorm<S>& norm, MatrixOut<S> O) {
    for (Index t = 0; t < Y.cols(); ++t) {
      const auto [mean, inverse_s] = moments<S>(Y, t);
      O.col(t).array() = Q.col(t).array() + norm.bias.array() +
                         norm.weight.array() * ((Y.col(t).array() - mean) * inverse_s);
    }
  }

  /// Adjoint of `gradient`: overwrites dZ, adds into dK, dV and the norm's gradient.
  /// Forward: e = gamma . x + beta - (v - k), d = gamma . e, m1 = mean(d), m2 = mean(d . x),
  /// G = (d - m1 - x m2) / s.
  template <Scalar S>
  static void gradient_backward(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V,
                                const HeadNorm<S>& norm, MatrixIn<S> dG, MatrixOut<S> dZ,
                                MatrixOut<S> dK, MatrixOut<S> dV, HeadNormGradient<S>& d_norm) {
    const auto gamma = norm.weight.array(), beta = norm.bias.array();
    const S f = static_cast<S>(Z.rows());
    for (Index t = 0; t < Z.cols(); ++t) {
      const auto [mean, inverse_s] = moments<S>(Z, t);
      const auto x = (Z.col(t).array() - mean) * inverse_s;
      const auto e = gamma * x + beta - V.col(t).array() + K.col(t).array();
      const auto g = dG.col(t).array() * inverse_s;
      const S m1 = (gamma * e).mean(), m2 = (gamma * e * x).mean();
      const S mean_g = g.mean(), mean_gx = (g * x).mean();
      // ds = -sum(dG . G) / s
      const S ds = -(g * ((gamma * e - m1 - x * m2) * inverse_s)).sum();
      auto dz = dZ.col(t).array();
      dz = g - mean_g - x * mean_gx;  // dd
      d_norm.weight.array() += dz * (e + gamma * x);
      d_norm.bias.array() += dz * gamma;
      dV.col(t).array() -= dz * gamma;
      dK.col(t).array() += dz * gamma;
      dz = gamma * gamma * dz - g * m2 - mean_gx * (gamma * e);  // dx
      const S mean_dx = dz.mean(), mean_dxx = (dz * x).mean();
      dz = (dz - mean_dx - x * mean_dxx) * inverse_s + x * (ds / f);
    }
  }

  /// Adjoint of `output`: overwrites dY and dQ, adds into the norm's gradient.
  template <Scalar S>
  static void output_backward(MatrixIn<S> Y, const HeadNorm<S>& norm, MatrixIn<S> dO,
                              MatrixOut<S> dY, MatrixOut<S> dQ, HeadNormGradient<S>& d_norm) {
    for (Index t = 0; t < Y.cols(); ++t) {
      const auto [mean, inverse_s] = moments<S>(Y, t);
      const auto y = (Y.col(t).array() - mean) * inverse_s;
      const auto d_out = dO.col(t).array();
      d_norm.weight.array() += d_out * y;
      d_norm.bias += dO.col(t);
      auto d = dY.col(t).array();
      d = norm.weight.array() * d_out;
      const S mean_d = d.mean(), mean_dy = (d * y).mean();
      d = (d - mean_d - y * mean_dy) * inverse_s;
    }
    dQ = dO;
  }

 private:
  template <Scalar S>
  struct Moments {
    S mean, inverse_s;
  };

  template <Scalar S>
  static Moments<S> moments(MatrixIn<S> Z, Index t) {
    using std::sqrt;
    const S mean = Z.col(t).mean();
    const S variance = (Z.col(t).array() - mean).square().mean();
    return {mean, S(1) / sqrt(variance + S(epsilon))};
  }
};

}  // namespace ttt
