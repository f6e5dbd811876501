/// @file
/// What the heads of TTT layers of fixed size have in common: the norm and the loss on top of an
/// inner model of width f, and weights W, b of the last border with R, r, the sums of rate times
/// gradient since. After the last token of a mini-batch W <- W - tau R, R = 0, and b alike.
///   l = 1/2 |k + norm(u) - v|^2,   z = q + norm(y),   norm(u) = gamma . x + beta
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.4 and 2.7: inner/online_step.hpp.
#pragma once

#include <cmath>

#include "ttt/core/fixed_matrix.hpp"
#include "ttt/inner/output_rule.hpp"

namespace ttt {

/// x = (z - mean) / s of n numbers, s the root of their variance and epsilon.
template <class S, int n>
struct FixedNormalized {
  Eigen::Array<S, n, 1> x;
  S inverse_s;

  EIGEN_ALWAYS_INLINE FixedNormalized(const Eigen::Array<S, n, 1>& z, double epsilon)
      : x(z - z.mean()), inverse_s(S(1) / std::sqrt(x.square().mean() + static_cast<S>(epsilon))) {
    x *= inverse_s;
  }
};

/// `Weights` has `each(self, fn)`, which calls fn(W, b) for every stage that learns.
template <ttt::Scalar S, int f, class Weights>
struct FixedTTTHeadBase {
  struct State {
    Weights anchor, sums;
  };

  FixedVector<S, f> gamma, beta;

  static void finish_mini_batch(State& state, S tau) {
    Weights::each(
        [&](auto& W, auto& b, auto& R, auto& r) {
          settle(W.numbers(), R.numbers(), tau);
          settle(b, r, tau);
        },
        state.anchor, state.sums);
  }

 protected:
  template <int n>
  using Numbers = Eigen::Array<S, n, 1>;

  template <int n>
  static auto view(FixedVector<S, n>& numbers) {
    return Eigen::Map<Numbers<n>>(numbers.data());
  }
  template <int n>
  static auto view(const FixedVector<S, n>& numbers) {
    return Eigen::Map<const Numbers<n>>(numbers.data());
  }
  static auto view(const S* numbers) { return Eigen::Map<const Numbers<f>>(numbers); }

  /// With d = gamma . (norm(u) - (v - k)): G = (d - mean(d) - x mean(d . x)) / s
  EIGEN_ALWAYS_INLINE Numbers<f> gradient(const Numbers<f>& u, const S* k, const S* v) const {
    const Normalized z(u, epsilon);
    const Numbers<f> d = view(gamma) * (norm(z) - (view(v) - view(k)));
    return (d - d.mean() - z.x * (d * z.x).mean()) * z.inverse_s;
  }

  /// q + norm(y)
  EIGEN_ALWAYS_INLINE void output(const Numbers<f>& y, const S* q, S* z) const {
    Eigen::Map<Numbers<f>>{z} = view(q) + norm(Normalized(y, epsilon));
  }

 private:
  using Normalized = FixedNormalized<S, f>;
  static constexpr double epsilon = LayerNormResidual::epsilon;

  EIGEN_ALWAYS_INLINE auto norm(const Normalized& z) const {
    return view(beta) + view(gamma) * z.x;
  }

  template <int n>
  static void settle(FixedVector<S, n>& weights, FixedVector<S, n>& sums, S tau) {
    view(weights) -= tau * view(sums);
    view(sums).setZero();
  }
};

/// One head of an inner model that has steps of fixed size.
template <ttt::Scalar S, int f, class Model>
struct FixedTTTHead;

}  // namespace ttt
