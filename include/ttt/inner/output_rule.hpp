/// @file
/// What stands between the top of an inner model, z [f], and its loss and output.
///   LayerNormResidual: l = 1/2 |LN(z) - (v - k)|^2, output q + LN(y): the published layers.
///   PlainOutput:       l = 1/2 |z - v|^2,           output y.
/// LN(z) = gamma . x + beta, x = (z - mean) / s, s = sqrt(var + 1e-6), over the f rows of a token;
/// gamma and beta belong to a head and are learned by the outer loop only.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7, and the official code.
#pragma once

#include <cmath>
#include <type_traits>

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
    with_head_width(Z.rows(), [&](auto f) {
      const auto gamma = column<f>(norm.weight, 0), beta = column<f>(norm.bias, 0);
      for (Index t = 0; t < Z.cols(); ++t) {
        const auto z = column<f>(Z, t);
        const Moments<S> m(z);
        auto g = column<f>(G, t);
        const auto x = kept<f>((z - m.mean) * m.inverse_s);
        const auto d = kept<f>(gamma * (gamma * x + beta - column<f>(V, t) + column<f>(K, t)));
        const S mean_d = m.share * d.sum(), mean_dx = m.share * (d * x).sum();
        g = (d - mean_d - x * mean_dx) * m.inverse_s;
      }
    });
  }

  /// O = Q + LN(Y)
  template <Scalar S>
  static void output(MatrixIn<S> Y, MatrixIn<S> Q, const HeadNorm<S>& norm, MatrixOut<S> O) {
    with_head_width(Y.rows(), [&](auto f) {
      const auto gamma = column<f>(norm.weight, 0), beta = column<f>(norm.bias, 0);
      for (Index t = 0; t < Y.cols(); ++t) {
        const auto y = column<f>(Y, t);
        const Moments<S> m(y);
        auto o = column<f>(O, t);
        o = column<f>(Q, t) + beta + gamma * ((y - m.mean) * m.inverse_s);
      }
    });
  }

  /// Adjoint of `gradient`: overwrites dZ, adds into dK, dV and the norm's gradient.
  /// Forward: e = gamma . x + beta - (v - k), d = gamma . e, m1 = mean(d), m2 = mean(d . x),
  /// G = (d - m1 - x m2) / s.
  template <Scalar S>
  static void gradient_backward(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V,
                                const HeadNorm<S>& norm, MatrixIn<S> dG, MatrixOut<S> dZ,
                                MatrixOut<S> dK, MatrixOut<S> dV, HeadNormGradient<S>& d_norm) {
    with_head_width(Z.rows(), [&](auto f) {
      const auto gamma = column<f>(norm.weight, 0), beta = column<f>(norm.bias, 0);
      auto d_gamma = column<f>(d_norm.weight, 0), d_beta = column<f>(d_norm.bias, 0);
      for (Index t = 0; t < Z.cols(); ++t) {
        const auto z = column<f>(Z, t);
        const Moments<S> m(z);
        const auto mean = [&](const auto& numbers) { return m.share * numbers.sum(); };
        const auto x = kept<f>((z - m.mean) * m.inverse_s);
        const auto e = kept<f>(gamma * x + beta - column<f>(V, t) + column<f>(K, t));
        const auto d = kept<f>(gamma * e);
        const S m1 = mean(d), m2 = mean(d * x);
        const auto g = kept<f>(column<f>(dG, t) * m.inverse_s);
        const S mean_g = mean(g), mean_gx = mean(g * x);
        const S ds = -m.inverse_s * (g * (d - m1 - x * m2)).sum();  // -sum(dG . G) / s
        const auto dd = kept<f>(g - mean_g - x * mean_gx);
        const auto de = kept<f>(gamma * dd);
        d_gamma += dd * (e + gamma * x);
        d_beta += de;
        auto dv = column<f>(dV, t), dk = column<f>(dK, t), dz = column<f>(dZ, t);
        dv -= de;
        dk += de;
        const auto dx = kept<f>(gamma * de - g * m2 - mean_gx * d);
        const S mean_dx = mean(dx), mean_dxx = mean(dx * x);
        dz = (dx - mean_dx - x * mean_dxx) * m.inverse_s + x * (m.share * ds);
      }
    });
  }

  /// Adjoint of `output`: overwrites dY and dQ, adds into the norm's gradient.
  template <Scalar S>
  static void output_backward(MatrixIn<S> Y, const HeadNorm<S>& norm, MatrixIn<S> dO,
                              MatrixOut<S> dY, MatrixOut<S> dQ, HeadNormGradient<S>& d_norm) {
    with_head_width(Y.rows(), [&](auto f) {
      const auto gamma = column<f>(norm.weight, 0);
      auto d_gamma = column<f>(d_norm.weight, 0), d_beta = column<f>(d_norm.bias, 0);
      for (Index t = 0; t < Y.cols(); ++t) {
        const auto z = column<f>(Y, t), d_out = column<f>(dO, t);
        const Moments<S> m(z);
        const auto y = kept<f>((z - m.mean) * m.inverse_s);
        d_gamma += d_out * y;
        d_beta += d_out;
        const auto d = kept<f>(gamma * d_out);
        const S mean_d = m.share * d.sum(), mean_dy = m.share * (d * y).sum();
        auto dy = column<f>(dY, t);
        dy = (d - mean_d - y * mean_dy) * m.inverse_s;
      }
    });
    dQ = dO;
  }

 private:
  /// mean, 1 / s and 1 / f of the f numbers z.
  template <Scalar S>
  struct Moments {
    S share, mean, inverse_s;

    explicit Moments(const auto& z) : share(S(1) / static_cast<S>(z.size())) {
      using std::sqrt;
      mean = share * z.sum();
      inverse_s = S(1) / sqrt(share * (z - mean).square().sum() + S(epsilon));
    }
  };

  /// Calls `body` with the head width as a constant where it is a usual one: its loops over the
  /// rows of a token, of a few instructions, then need no code for their ends (twice as fast).
  template <class Body>
  static void with_head_width(Index head_width, Body&& body) {
    if (head_width == 64) {
      body(std::integral_constant<int, 64>{});
    } else if (head_width == 32) {
      body(std::integral_constant<int, 32>{});
    } else {
      body(std::integral_constant<int, Eigen::Dynamic>{});
    }
  }

  /// The value of an expression in f numbers, where f is a constant; otherwise, since that would
  /// ask for memory at every token, the expression itself.
  template <int f>
  static auto kept(const auto& expression) {
    if constexpr (f == Eigen::Dynamic) {
      return expression;
    } else {
      return expression.eval();
    }
  }

  /// Column t of `tokens` as an array of f numbers.
  template <int f>
  static auto column(const auto& tokens, Index t) {
    using Tensor = std::remove_cvref_t<decltype(tokens)>;
    using Column = Eigen::Array<typename Tensor::Scalar, f, 1>;
    return Eigen::Map<const Column>(tokens.data() + t * tokens.outerStride(), tokens.rows());
  }
  template <int f>
  static auto column(auto& tokens, Index t) {
    using Tensor = std::remove_cvref_t<decltype(tokens)>;
    using Column = Eigen::Array<typename Tensor::Scalar, f, 1>;
    return Eigen::Map<Column>(tokens.data() + t * tokens.outerStride(), tokens.rows());
  }
};

}  // namespace ttt
