/// @file
/// What stands between the top of an inner model, z [f], and its loss and output: a norm, a loss
/// (inner_loss.hpp), and whether f has a residual, f(k) = k + norm(z):
///   p = norm(z), target t = v - k (residual) or v, loss l(p, t), output q + norm(y) or norm(y)
///   LayerNormTop, RMSNormTop: norm(z) = gamma . x + beta, x = (z - mean) / s (RMSNorm: z / s),
///   s = sqrt(mean square + 1e-6), over the f rows of a token; NoNorm: norm(z) = z.
/// gamma and beta belong to a head and are learned by the outer loop only.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7, and the official code.
#pragma once

#include <cmath>
#include <type_traits>

#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"
#include "ttt/inner/inner_loss.hpp"

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

struct NoNorm {
  static constexpr bool normalizes = false, centred = false;
};
struct LayerNormTop {
  static constexpr bool normalizes = true, centred = true;
};
struct RMSNormTop {
  static constexpr bool normalizes = true, centred = false;
};

template <class Norm, class Loss, bool residual>
struct OutputRule {
  using InnerLoss = Loss;
  static constexpr bool has_norm = Norm::normalizes;
  static constexpr double epsilon = 1e-6;

  /// l of one token.
  template <Scalar S>
  static S loss(VectorIn<S> z, VectorIn<S> k, VectorIn<S> v, const HeadNorm<S>& norm) {
    const Vector<S> p = normed<Eigen::Dynamic>(z.array(), norm);
    return Loss::value(p.array(), target(k.array(), v.array())).sum();
  }

  /// G = dl/dz, a column a token: with d = gamma . l'(norm(z), t),
  /// G = (d - mean(d) - x mean(d . x)) / s, RMSNorm without mean(d).
  template <Scalar S>
  static void gradient(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V, const HeadNorm<S>& norm,
                       MatrixOut<S> G) {
    with_head_width(Z.rows(), [&](auto width) {
      for (Index t = 0; t < Z.cols(); ++t) {
        const auto z = column<width>(Z, t), k = column<width>(K, t), v = column<width>(V, t);
        auto g = column<width>(G, t);
        if constexpr (has_norm) {
          const auto gamma = column<width>(norm.weight, 0), beta = column<width>(norm.bias, 0);
          const Moments<S> m(z);
          const auto x = kept<width>((z - m.mean) * m.inverse_s);
          const auto d = kept<width>(gamma * Loss::slope(gamma * x + beta, target(k, v)));
          const S mean_d = m.mean_of(d), mean_dx = m.share * (d * x).sum();
          g = (d - mean_d - x * mean_dx) * m.inverse_s;
        } else {
          g = Loss::slope(z, target(k, v));
        }
      }
    });
  }

  /// O = norm(Y), or Q + norm(Y).
  template <Scalar S>
  static void output(MatrixIn<S> Y, MatrixIn<S> Q, const HeadNorm<S>& norm, MatrixOut<S> O) {
    with_head_width(Y.rows(), [&](auto width) {
      for (Index t = 0; t < Y.cols(); ++t) {
        const auto y = column<width>(Y, t), q = column<width>(Q, t);
        auto o = column<width>(O, t);
        if constexpr (residual) {
          o = q + normed<width>(y, norm);
        } else {
          o = normed<width>(y, norm);
        }
      }
    });
  }

  /// Adjoint of `gradient`: overwrites dZ, adds into dK, dV and the norm's gradient.
  /// Forward: p = gamma . x + beta, e = l'(p, t), d = gamma . e, m1 = mean(d), m2 = mean(d . x),
  /// G = (d - m1 - x m2) / s.
  template <Scalar S>
  static void gradient_backward(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V,
                                const HeadNorm<S>& norm, MatrixIn<S> dG, MatrixOut<S> dZ,
                                MatrixOut<S> dK, MatrixOut<S> dV, HeadNormGradient<S>& d_norm) {
    with_head_width(Z.rows(), [&](auto width) {
      for (Index t = 0; t < Z.cols(); ++t) {
        const auto z = column<width>(Z, t), k = column<width>(K, t), v = column<width>(V, t);
        const auto d_gradient = column<width>(dG, t);
        auto dv = column<width>(dV, t), dk = column<width>(dK, t), dz = column<width>(dZ, t);
        const auto add_to_target = [&](const auto& dt) {
          dv += dt;
          if constexpr (residual) dk -= dt;
        };
        if constexpr (has_norm) {
          const auto gamma = column<width>(norm.weight, 0), beta = column<width>(norm.bias, 0);
          const Moments<S> m(z);
          const auto x = kept<width>((z - m.mean) * m.inverse_s);
          const auto p = kept<width>(gamma * x + beta);
          const auto e = kept<width>(Loss::slope(p, target(k, v)));
          const auto d = kept<width>(gamma * e);
          const S m1 = m.mean_of(d), m2 = m.share * (d * x).sum();
          const auto g = kept<width>(d_gradient * m.inverse_s);
          const S mean_gx = m.share * (g * x).sum();
          const S ds = -m.inverse_s * (g * (d - m1 - x * m2)).sum();  // -sum(dG . G) / s
          const auto dd = kept<width>(g - m.mean_of(g) - x * mean_gx);
          const auto de = kept<width>(gamma * dd);
          const auto dp = kept<width>(Loss::bend(p, target(k, v)) * de);
          column<width>(d_norm.weight, 0) += dd * e + dp * x;
          column<width>(d_norm.bias, 0) += dp;
          add_to_target(Loss::mixed(p, target(k, v)) * de);
          const auto dx = kept<width>(gamma * dp - g * m2 - mean_gx * d);
          const S mean_dxx = m.share * (dx * x).sum();
          dz = (dx - m.mean_of(dx) - x * mean_dxx) * m.inverse_s + x * (m.share * ds);
        } else {
          add_to_target(Loss::mixed(z, target(k, v)) * d_gradient);
          dz = Loss::bend(z, target(k, v)) * d_gradient;
        }
      }
    });
  }

  /// Adjoint of `output`: overwrites dY and dQ, adds into the norm's gradient.
  template <Scalar S>
  static void output_backward(MatrixIn<S> Y, const HeadNorm<S>& norm, MatrixIn<S> dO,
                              MatrixOut<S> dY, MatrixOut<S> dQ, HeadNormGradient<S>& d_norm) {
    if constexpr (has_norm) {
      with_head_width(Y.rows(), [&](auto width) {
        const auto gamma = column<width>(norm.weight, 0);
        auto d_gamma = column<width>(d_norm.weight, 0), d_beta = column<width>(d_norm.bias, 0);
        for (Index t = 0; t < Y.cols(); ++t) {
          const auto y = column<width>(Y, t), d_out = column<width>(dO, t);
          const Moments<S> m(y);
          const auto x = kept<width>((y - m.mean) * m.inverse_s);
          d_gamma += d_out * x;
          d_beta += d_out;
          const auto d = kept<width>(gamma * d_out);
          const S mean_dx = m.share * (d * x).sum();
          auto dy = column<width>(dY, t);
          dy = (d - m.mean_of(d) - x * mean_dx) * m.inverse_s;
        }
      });
    } else {
      dY = dO;
    }
    if constexpr (residual) {
      dQ = dO;
    } else {
      dQ.setZero();
    }
  }

 private:
  /// mean, 1 / s and 1 / f of the f numbers z.
  template <Scalar S>
  struct Moments {
    S share, mean, inverse_s;

    explicit Moments(const auto& z) : share(S(1) / static_cast<S>(z.size())) {
      using std::sqrt;
      mean = mean_of(z);
      inverse_s = S(1) / sqrt(share * (z - mean).square().sum() + S(epsilon));
    }
    /// 0 where the norm is not centred.
    S mean_of(const auto& numbers) const { return Norm::centred ? share * numbers.sum() : S(0); }
  };

  /// v - k with a residual, else v.
  static auto target(const auto& k, const auto& v) {
    if constexpr (residual) {
      return v - k;
    } else {
      return v;
    }
  }

  /// norm(z) of one token.
  template <int width, Scalar S>
  static auto normed(const auto& z, const HeadNorm<S>& norm) {
    if constexpr (has_norm) {
      const Moments<S> m(z);
      return column<width>(norm.bias, 0) +
             column<width>(norm.weight, 0) * ((z - m.mean) * m.inverse_s);
    } else {
      return z;
    }
  }

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

/// The published layers: f(k) = k + LN(z), l = 1/2 |f(k) - v|^2.
struct LayerNormResidual : OutputRule<LayerNormTop, SquaredError, true> {};

/// f(k) = z, l = 1/2 |f(k) - v|^2.
struct PlainOutput : OutputRule<NoNorm, SquaredError, false> {};

}  // namespace ttt
