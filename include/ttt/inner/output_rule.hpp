/// @file
/// What stands between the top of an inner model, z [f], and its loss and output: a norm, a loss
/// (inner_loss.hpp), and whether f has a residual, f(k) = k + norm(z):
///   p = norm(z), target t = v - k (residual) or v, loss l(p, t), output q + norm(y) or norm(y)
///   LayerNormTop, RMSNormTop: norm(z) = gamma . x + beta, x = (z - mean) / s (RMSNorm: z / s),
///   s = sqrt(mean square + 1e-6), over the f rows of a token; NoNorm: norm(z) = z.
/// gamma and beta belong to a head and are learned by the outer loop only.
/// Tokens are taken in groups, and every step up to the next sum over a token's rows for the whole
/// group: that saves a third to a half of a gradient's time (TokenMoments says why).
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 2.7, and the official code.
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/inner/inner_loss.hpp"
#include "ttt/nn/moments.hpp"

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
    const Moments<S> moments =
        has_norm ? Moments<S>(z.data(), z.size(), epsilon, Norm::centred) : Moments<S>();
    const Token<S> token(z.data(), moments, norm);
    Sum<S> loss;
    each_lane<S>(z.size(), [&](auto at) {
      const auto p = token.p(at), t = target(at, k.data(), v.data());
      loss += std::remove_cv_t<decltype(p)>(Loss::value(p.array(), t.array()));
    });
    return loss.total();
  }

  /// G = dl/dz, a column a token: with d = gamma . l'(norm(z), t),
  /// G = (d - mean(d) - x mean(d . x)) / s, RMSNorm without mean(d). G overlaps nothing else.
  template <Scalar S>
  static void gradient(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V, const HeadNorm<S>& norm,
                       MatrixOut<S> G) {
    with_usual_count(Z.rows(), [&](Index rows) TTT_INLINE_LAMBDA {
      each_group<S>(Z, rows, norm, [&](const Group<S>& group) TTT_INLINE_LAMBDA {
        OfGroup<S> mean_d, mean_dx;
        group.each([&](const Token<S>& z, Index t, Index i) TTT_INLINE_LAMBDA {
          const S *k = column(K, t), *v = column(V, t);
          S* const g = column(G, t);
          Sum<S> sum_d, sum_dx;
          each_lane<S>(rows, [&](auto at) {
            const auto e = slope(z.p(at), target(at, k, v));
            if constexpr (has_norm) {
              const auto d = z.gamma(at) * e;
              at.store(g, d);
              sum_d += d;
              sum_dx += d * z.x(at);
            } else {
              at.store(g, e);
            }
          });
          mean_d[i] = z.mean_of(sum_d);
          mean_dx[i] = z.share * sum_dx.total();
        });
        if constexpr (has_norm)
          group.each([&](const Token<S>& z, Index t, Index i) TTT_INLINE_LAMBDA {
            S* const g = column(G, t);
            each_lane<S>(rows, [&](auto at) {
              at.store(g, (at(g) - mean_d[i] - z.x(at) * mean_dx[i]) * z.inverse_s);
            });
          });
      });
    });
  }

  /// O = norm(Y), or Q + norm(Y).
  template <Scalar S>
  static void output(MatrixIn<S> Y, MatrixIn<S> Q, const HeadNorm<S>& norm, MatrixOut<S> O) {
    with_usual_count(Y.rows(), [&](Index rows) TTT_INLINE_LAMBDA {
      each_group<S>(Y, rows, norm, [&](const Group<S>& group) TTT_INLINE_LAMBDA {
        group.each([&](const Token<S>& y, Index t, Index) TTT_INLINE_LAMBDA {
          const S* const q = column(Q, t);
          S* const o = column(O, t);
          each_lane<S>(rows, [&](auto at) {
            if constexpr (residual) {
              at.store(o, at(q) + y.p(at));
            } else {
              at.store(o, y.p(at));
            }
          });
        });
      });
    });
  }

  /// Adjoint of `gradient`: overwrites dZ, adds into dK, dV and the norm's gradient.
  template <Scalar S>
  static void gradient_backward(MatrixIn<S> Z, MatrixIn<S> K, MatrixIn<S> V,
                                const HeadNorm<S>& norm, MatrixIn<S> dG, MatrixOut<S> dZ,
                                MatrixOut<S> dK, MatrixOut<S> dV, HeadNormGradient<S>& d_norm) {
    const Index rows = Z.rows();
    each_group<S>(Z, rows, norm, [&](const Group<S>& group) {
      if constexpr (has_norm) {
        normed_gradient_backward<S>(group, rows, K, V, dG, dZ, dK, dV, d_norm);
      } else {
        group.each([&](const Token<S>& z, Index t, Index) {
          const S *k = column(K, t), *v = column(V, t), *d_gradient = column(dG, t);
          S *dk = column(dK, t), *dv = column(dV, t), *dz = column(dZ, t);
          each_lane<S>(rows, [&](auto at) {
            const auto p = z.p(at), aim = target(at, k, v), de = at(d_gradient);
            add_to_target(at, mixed(p, aim) * de, dk, dv);
            at.store(dz, bend(p, aim) * de);
          });
        });
      }
    });
  }

  /// Adjoint of `output`: overwrites dY and dQ, adds into the norm's gradient.
  template <Scalar S>
  static void output_backward(MatrixIn<S> Y, const HeadNorm<S>& norm, MatrixIn<S> dO,
                              MatrixOut<S> dY, MatrixOut<S> dQ, HeadNormGradient<S>& d_norm) {
    if constexpr (has_norm) {
      const Index rows = Y.rows();
      each_group<S>(Y, rows, norm, [&](const Group<S>& group) {
        OfGroup<S> mean_d, mean_dx;
        group.each([&](const Token<S>& y, Index t, Index i) {
          const S* const d_out = column(dO, t);
          Sum<S> sum_d, sum_dx;
          each_lane<S>(rows, [&](auto at) {
            const auto x = y.x(at), d = y.gamma(at) * at(d_out);
            at.add(d_norm.weight.data(), at(d_out) * x);
            at.add(d_norm.bias.data(), at(d_out));
            sum_d += d;
            sum_dx += d * x;
          });
          mean_d[i] = y.mean_of(sum_d);
          mean_dx[i] = y.share * sum_dx.total();
        });
        group.each([&](const Token<S>& y, Index t, Index i) {
          const S* const d_out = column(dO, t);
          S* const dy = column(dY, t);
          each_lane<S>(rows, [&](auto at) {
            const auto d = y.gamma(at) * at(d_out);
            at.store(dy, (d - mean_d[i] - y.x(at) * mean_dx[i]) * y.inverse_s);
          });
        });
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
  /// z of one token, x, and p = norm(z).
  template <Scalar S>
  struct Token : Moments<S> {
    const S *z, *weight, *bias;  // [f]

    Token(const S* numbers, const Moments<S>& moments, const HeadNorm<S>& norm)
        : Moments<S>(moments), z(numbers), weight(norm.weight.data()), bias(norm.bias.data()) {}
    auto x(auto at) const { return this->normalize(at(z)); }
    auto gamma(auto at) const { return at(weight); }
    auto p(auto at) const {
      if constexpr (has_norm) {
        return at(bias) + at(weight) * x(at);
      } else {
        return at(z);
      }
    }
  };

  /// Neighbouring tokens of Z, at most as many as a mini-batch usually has.
  template <Scalar S>
  class Group {
   public:
    static constexpr Index most = TokenMoments<S>::most;

    EIGEN_ALWAYS_INLINE Group(MatrixIn<S> Z, Index begin, Index rows, const HeadNorm<S>& norm)
        : Z_(Z), norm_(norm), begin_(begin), count_(std::min(most, Z.cols() - begin)) {
      if constexpr (has_norm)
        moments_ = TokenMoments<S>(column(Z, begin), Z.outerStride(), rows, count_, epsilon,
                                   Norm::centred);
    }
    /// Calls `body(token, its column of Z, its place in the group)`.
    EIGEN_ALWAYS_INLINE void each(auto&& body) const {
      for (Index i = 0; i < count_; ++i)
        body(Token<S>(column(Z_, begin_ + i), moments_[i], norm_), begin_ + i, i);
    }

   private:
    MatrixIn<S> Z_;
    const HeadNorm<S>& norm_;
    Index begin_, count_;
    TokenMoments<S> moments_;
  };
  /// A number of every token of a group.
  template <Scalar S>
  using OfGroup = std::array<S, static_cast<std::size_t>(Group<S>::most)>;

  template <Scalar S>
  EIGEN_ALWAYS_INLINE static void each_group(MatrixIn<S> Z, Index rows, const HeadNorm<S>& norm,
                                             auto&& body) {
    for (Index begin = 0; begin < Z.cols(); begin += Group<S>::most)
      body(Group<S>(Z, begin, rows, norm));
  }

  /// A group of `gradient_backward`. Forward: p = gamma . x + beta, e = l'(p, t), d = gamma . e,
  /// m1 = mean(d), m2 = mean(d . x), G = (d - m1 - x m2) / s.  Here g = dG / s.
  template <Scalar S>
  static void normed_gradient_backward(const Group<S>& group, Index rows, MatrixIn<S> K,
                                       MatrixIn<S> V, MatrixIn<S> dG, MatrixOut<S>& dZ,
                                       MatrixOut<S>& dK, MatrixOut<S>& dV,
                                       HeadNormGradient<S>& d_norm) {
    OfGroup<S> m1, m2, mean_g, mean_gx, ds, mean_dx, mean_dxx;
    group.each([&](const Token<S>& z, Index t, Index i) {
      const S *k = column(K, t), *v = column(V, t), *d_gradient = column(dG, t);
      Sum<S> sum_d, sum_dx, sum_g, sum_gx;
      each_lane<S>(rows, [&](auto at) {
        const auto x = z.x(at), g = at(d_gradient) * z.inverse_s;
        const auto d = z.gamma(at) * slope(z.p(at), target(at, k, v));
        sum_d += d;
        sum_dx += d * x;
        sum_g += g;
        sum_gx += g * x;
      });
      m1[i] = z.mean_of(sum_d);
      m2[i] = z.share * sum_dx.total();
      mean_g[i] = z.mean_of(sum_g);
      mean_gx[i] = z.share * sum_gx.total();
    });
    group.each([&](const Token<S>& z, Index column_of_z, Index i) {
      const S *k = column(K, column_of_z), *v = column(V, column_of_z);
      const S* const d_gradient = column(dG, column_of_z);
      S *dk = column(dK, column_of_z), *dv = column(dV, column_of_z);
      S* const dz = column(dZ, column_of_z);
      Sum<S> sum_gG, sum_dx, sum_dxx;
      each_lane<S>(rows, [&](auto at) {
        const auto x = z.x(at), g = at(d_gradient) * z.inverse_s, gamma = z.gamma(at);
        const auto p = z.p(at), t = target(at, k, v), e = slope(p, t), d = gamma * e;
        const auto dd = g - mean_g[i] - x * mean_gx[i], de = gamma * dd, dp = bend(p, t) * de;
        at.add(d_norm.weight.data(), dd * e + dp * x);
        at.add(d_norm.bias.data(), dp);
        add_to_target(at, mixed(p, t) * de, dk, dv);
        const auto dx = gamma * dp - g * m2[i] - mean_gx[i] * d;
        at.store(dz, dx);
        sum_gG += g * (d - m1[i] - x * m2[i]);
        sum_dx += dx;
        sum_dxx += dx * x;
      });
      ds[i] = -z.inverse_s * sum_gG.total();  // -sum(dG . G) / s
      mean_dx[i] = z.mean_of(sum_dx);
      mean_dxx[i] = z.share * sum_dxx.total();
    });
    group.each([&](const Token<S>& z, Index t, Index i) {
      S* const dz = column(dZ, t);
      each_lane<S>(rows, [&](auto at) {
        const auto x = z.x(at);
        at.store(dz, (at(dz) - mean_dx[i] - x * mean_dxx[i]) * z.inverse_s + x * (z.share * ds[i]));
      });
    });
  }

  /// v - k with a residual, else v.
  template <class S>
  static auto target(auto at, const S* k, const S* v) {
    if constexpr (residual) {
      return at(v) - at(k);
    } else {
      return at(v);
    }
  }
  template <class S>
  static void add_to_target(auto at, const auto& dt, S* dk, S* dv) {
    at.add(dv, dt);
    if constexpr (residual) at.store(dk, at(dk) - dt);
  }

  /// The derivatives of the loss.
  template <class L>
  static L slope(const L& p, const L& t) {
    return Loss::slope(p.array(), t.array());
  }
  template <class L>
  static L bend(const L& p, const L& t) {
    return Loss::bend(p.array(), t.array());
  }
  template <class L>
  static L mixed(const L& p, const L& t) {
    return Loss::mixed(p.array(), t.array());
  }

  /// Column t of `tokens`, f numbers.
  static auto column(auto& tokens, Index t) { return tokens.data() + t * tokens.outerStride(); }
};

/// The published layers: f(k) = k + LN(z), l = 1/2 |f(k) - v|^2.
struct LayerNormResidual : OutputRule<LayerNormTop, SquaredError, true> {};

/// f(k) = z, l = 1/2 |f(k) - v|^2.
struct PlainOutput : OutputRule<NoNorm, SquaredError, false> {};

}  // namespace ttt
