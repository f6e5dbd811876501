/// @file
/// One head of TTT-Linear whose width f its type says, and one token of its inner loop, with the
/// weights W, b of the last border and R, r, the sums of rate times gradient since:
///   G = dl/du of u = W k + b,   l = 1/2 |k + norm(u) - v|^2,   norm(u) = gamma . x + beta
///   R <- R + rate G k',  r <- r + rate G
///   z = q + norm(W q + b - tau (R q + r))
/// and after the last token of a mini-batch W <- W - tau R, b <- b - tau r, R = r = 0.
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.4 and 2.7: inner/online_step.hpp.
#pragma once

#include <cmath>

#include "ttt/core/fixed_matrix.hpp"
#include "ttt/inner/linear_model.hpp"

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

template <ttt::Scalar S, int f>
struct FixedTTTHead {
  struct State {
    FixedMatrix<S, f, f> W, R;
    FixedVector<S, f> b, r;
  };

  FixedVector<S, f> gamma, beta;

  /// k, q, v, z [f]
  EIGEN_ALWAYS_INLINE void step(State& state, const S* k, const S* q, const S* v, S rate, S tau,
                                S* z) const {
    Numbers u, y, G, change;
    state.W.multiply_both(k, q, u.data(), y.data());
    G = rate * gradient(u + view(state.b.data()), k, v);
    state.R.add_outer_then_multiply(G.data(), k, q, change.data());
    auto r = view(state.r.data());
    r += G;
    y += view(state.b.data()) - tau * (change + r);
    view(z) = view(q) + norm(Normalized(y, epsilon));
  }

  static void finish_mini_batch(State& state, S tau) {
    using Weights = Eigen::Map<Eigen::Array<S, f * f, 1>>;
    Weights R(state.R.numbers().data());
    auto r = view(state.r.data());
    Weights(state.W.numbers().data()) -= tau * R;
    view(state.b.data()) -= tau * r;
    R.setZero();
    r.setZero();
  }

 private:
  using Numbers = Eigen::Array<S, f, 1>;
  using Normalized = FixedNormalized<S, f>;
  static constexpr double epsilon = LinearModel::Output::epsilon;

  static auto view(S* numbers) { return Eigen::Map<Numbers>(numbers); }
  static auto view(const S* numbers) { return Eigen::Map<const Numbers>(numbers); }

  EIGEN_ALWAYS_INLINE auto norm(const Normalized& z) const {
    return view(beta.data()) + view(gamma.data()) * z.x;
  }

  /// With d = gamma . (norm(u) - (v - k)): G = (d - mean(d) - x mean(d . x)) / s
  EIGEN_ALWAYS_INLINE Numbers gradient(const Numbers& u, const S* k, const S* v) const {
    const Normalized z(u, epsilon);
    const Numbers d = view(gamma.data()) * (norm(z) - (view(v) - view(k)));
    return (d - d.mean() - z.x * (d * z.x).mean()) * z.inverse_s;
  }
};

}  // namespace ttt
