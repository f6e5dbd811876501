/// @file
/// What rate theta, momentum mu and forgetting alpha of n tokens do to the gradients G_s of an
/// anchored chunk (all taken at one point, at weights that have not been decayed). The loop
///   S_t = mu_t S_{t-1} - theta_t G_t              W_t = (1 - alpha_t) W_{t-1} + S_t
/// unrolls, from the W and S before the first token, to
///   W_t = beta_t W + c_t S - sum_{s<=t} E(s,t) G_s      S_n = m S - sum_s ES(s) G_s
/// where, with F(s,t) the weight of -G_s in S_t (ES its last column), p_t that of S (m its last),
///   F(s,t) = mu_t F(s,t-1) + [s=t] theta_t        p_t    = mu_t p_{t-1},           p_0 = 1
///   E(s,t) = (1 - alpha_t) E(s,t-1) + F(s,t)      c_t    = (1 - alpha_t) c_{t-1} + p_t,  c_0 = 0
///                                                 beta_t = (1 - alpha_t) beta_{t-1},  beta_0 = 1
/// Source of the loop: Titans (Behrouz et al. 2024, arXiv 2501.00663), section 3.1.
#pragma once

#include "ttt/core/check.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// The kernel of a piece of n tokens. A piece may begin anywhere in its chunk: W and S are those
/// before its first token, the gradients still those at the chunk's anchor.
/// Without momentum S does not exist, and E(s,t) = theta_s prod_{s<u<=t} (1 - alpha_u); without
/// forgetting alpha is zero. Both absent: gradient descent, E(s,t) = theta_s.
template <Scalar S, bool Momentum = true, bool Forgetting = true>
struct UpdateKernel {
  Matrix<S> E;     // [n, n], zero below the diagonal
  Vector<S> beta;  // [n]
  Matrix<S> F;     // [n, n], zero below the diagonal; empty without momentum
  Vector<S> c, p;  // [n]; empty without momentum

  /// The carry of S, for n > 0 and with momentum: S_n = m S - sum_s ES(s) G_s.
  auto ES() const { return F.col(F.cols() - 1); }  // [n]
  S m() const { return p[p.size() - 1]; }

  /// Adjoints of what `build` made. Those of ES and m count beside what dE and d_c say.
  struct Adjoint {
    Matrix<S> dE;         // [n, n]; read on and above the diagonal only
    Vector<S> d_beta;     // [n]
    Vector<S> d_c, d_ES;  // [n]; empty without momentum
    S d_m = S(0);

    void set_zero(Index n) {
      dE.setZero(n, n);
      d_beta.setZero(n);
      d_c.setZero(Momentum ? n : 0);
      d_ES.setZero(Momentum ? n : 0);
      d_m = S(0);
    }
  };

  /// theta, mu, alpha [n]; mu is empty without momentum, alpha without forgetting. O(n^2).
  /// Allocates only where n differs from the last call's.
  /// Throws `std::invalid_argument` where a length is wrong.
  void build(VectorIn<S> theta, VectorIn<S> mu, VectorIn<S> alpha) {
    const Index n = theta.size();
    require_lengths("UpdateKernel.build", n, mu, alpha);
    E.setZero(n, n);
    beta.resize(n);
    F.setZero(Momentum ? n : 0, Momentum ? n : 0);
    c.resize(Momentum ? n : 0);
    p.resize(Momentum ? n : 0);
    for (Index t = 0; t < n; ++t) {
      const S keep = kept(alpha, t);
      beta[t] = keep * before(beta, t, S(1));
      if (t > 0) E.col(t).head(t) = keep * E.col(t - 1).head(t);
      E(t, t) = theta[t];
      if constexpr (Momentum) {
        p[t] = mu[t] * before(p, t, S(1));
        c[t] = keep * before(c, t, S(0)) + p[t];
        if (t > 0) F.col(t).head(t) = mu[t] * F.col(t - 1).head(t);
        F(t, t) = theta[t];
        E.col(t).head(t) += F.col(t).head(t);
      }
    }
  }

  /// Adjoints of theta, mu and alpha, overwritten ([n]; empty where absent), from those of the
  /// kernel that the same mu and alpha built. Uses `d` up: the recursion runs in its memory.
  /// Throws `std::invalid_argument` where a length is wrong.
  void backward(VectorIn<S> mu, VectorIn<S> alpha, Adjoint& d, VectorOut<S> d_theta,
                VectorOut<S> d_mu, VectorOut<S> d_alpha) const {
    const Index n = E.cols();
    require_lengths("UpdateKernel.backward", n, mu, alpha);
    require_lengths("UpdateKernel.backward: adjoints", n, d_mu, d_alpha);
    require_shape("UpdateKernel.backward: dE", d.dE, n, n);
    require_shape("UpdateKernel.backward: d_theta", d_theta, n, 1);
    require_shape("UpdateKernel.backward: d_beta", d.d_beta, n, 1);
    require_shape("UpdateKernel.backward: d_c", d.d_c, Momentum ? n : 0, 1);
    require_shape("UpdateKernel.backward: d_ES", d.d_ES, Momentum ? n : 0, 1);
    for (Index t = n; t-- > 0;) {
      // E(s,t) = keep E(s,t-1) + F(s,t), c_t = keep c_{t-1} + p_t, beta_t = keep beta_{t-1}
      if constexpr (Momentum) {
        d.d_ES.head(t + 1) += d.dE.col(t).head(t + 1);  // d_ES holds dF(.,t), d_m holds dp_t
        d.d_m += d.d_c[t];
        d_theta[t] = d.d_ES[t];
        momentum_backward(mu[t], t, d, d_mu[t]);
      } else {
        d_theta[t] = d.dE(t, t);
      }
      if constexpr (Forgetting) d_alpha[t] = -keep_backward(t, d);
      if (t == 0) continue;
      const S keep = kept(alpha, t);
      d.dE.col(t - 1).head(t) += keep * d.dE.col(t).head(t);
      d.d_beta[t - 1] += keep * d.d_beta[t];
      if constexpr (Momentum) d.d_c[t - 1] += keep * d.d_c[t];
    }
  }

 private:
  static void require_lengths(const char* where, Index n, const auto& mu, const auto& alpha) {
    require(mu.size() == (Momentum ? n : 0), where, ": mu has ", mu.size(), " elements, expected ",
            Momentum ? n : 0);
    require(alpha.size() == (Forgetting ? n : 0), where, ": alpha has ", alpha.size(),
            " elements, expected ", Forgetting ? n : 0);
  }

  static S kept([[maybe_unused]] VectorIn<S> alpha, [[maybe_unused]] Index t) {
    if constexpr (Forgetting) return S(1) - alpha[t];
    return S(1);
  }

  /// The value before token t of a sequence that begins with `first`.
  static S before(const Vector<S>& values, Index t, S first) {
    return t > 0 ? values[t - 1] : first;
  }

  /// F(s,t) = mu_t F(s,t-1) for s < t, p_t = mu_t p_{t-1}
  void momentum_backward(S mu_t, Index t, Adjoint& d, S& d_mu_t) const {
    d_mu_t = d.d_m * before(p, t, S(1));
    if (t > 0) d_mu_t += d.d_ES.head(t).dot(F.col(t - 1).head(t));
    d.d_m *= mu_t;
    d.d_ES.head(t) *= mu_t;
  }

  /// The adjoint of 1 - alpha_t.
  S keep_backward(Index t, const Adjoint& d) const {
    S sum = d.d_beta[t] * before(beta, t, S(1));
    if (t > 0) sum += d.dE.col(t).head(t).dot(E.col(t - 1).head(t));
    if constexpr (Momentum) sum += d.d_c[t] * before(c, t, S(0));
    return sum;
  }
};

}  // namespace ttt
