/// @file
/// Losses l(p, t) = sum_i phi(p_i, t_i) that an inner model learns from, p its prediction and t the
/// target of one token. Policies: for one number, or an array of them,
///   value   phi          slope  d phi / dp          (the inner gradient begins with it)
///   bend    d^2 phi / dp^2,  and mixed  d^2 phi / dp dt   (the outer gradient needs both)
///   SquaredError   (p - t)^2 / 2           the published layers, DeltaNet
///   DotProduct     -p t                    linear attention and its kin: nothing to overshoot
///   HuberError     quadratic near 0, linear beyond delta (Huber 1964): outliers pull no harder
/// A loss of one's own is a struct with these four functions. They return expressions in their
/// arguments, never in arrays of their own: these are gone when the expression is evaluated.
#pragma once

#include <ratio>

#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

/// Arguments are arrays or expressions of equal shape; so are the results.
struct SquaredError {
  static auto value(const auto& p, const auto& t) { return half(p) * (p - t).square(); }
  static auto slope(const auto& p, const auto& t) { return p - t; }
  static auto bend(const auto& p, const auto&) { return constant(p, 1); }
  static auto mixed(const auto& p, const auto&) { return constant(p, -1); }

  template <class P>
  static auto constant(const P& p, int number) {
    using S = typename P::Scalar;
    return Eigen::Array<S, P::RowsAtCompileTime, 1>::Constant(p.rows(), static_cast<S>(number));
  }
  template <class P>
  static auto half(const P&) {
    return static_cast<typename P::Scalar>(0.5);
  }
};

struct DotProduct {
  static auto value(const auto& p, const auto& t) { return -p * t; }
  static auto slope(const auto& p, const auto& t) { return SquaredError::constant(p, -1) * t; }
  static auto bend(const auto& p, const auto&) { return SquaredError::constant(p, 0); }
  static auto mixed(const auto& p, const auto&) { return SquaredError::constant(p, -1); }
};

/// `HuberError<std::ratio<1, 2>>` has delta 1/2.
template <class Delta = std::ratio<1>>
struct HuberError {
  static_assert(Delta::num > 0, "HuberError: delta must be positive");

  template <class P>
  static auto value(const P& p, const auto& t) {
    const auto delta = threshold<P>();
    const auto inside = (p - t).abs().min(delta);  // delta (|e| - delta / 2) beyond delta
    return inside * ((p - t).abs() - half<P>() * inside);
  }
  template <class P>
  static auto slope(const P& p, const auto& t) {
    using S = typename P::Scalar;
    return (p - t).unaryExpr([](S e) {  // NaN stays NaN
      return e > threshold<P>() ? threshold<P>() : e < -threshold<P>() ? -threshold<P>() : e;
    });
  }
  template <class P>
  static auto bend(const P& p, const auto& t) {
    return ((p - t).abs() <= threshold<P>()).template cast<typename P::Scalar>();
  }
  static auto mixed(const auto& p, const auto& t) { return -bend(p, t); }

 private:
  template <class P>
  static constexpr auto threshold() {
    return static_cast<typename P::Scalar>(Delta::num) /
           static_cast<typename P::Scalar>(Delta::den);
  }
  template <class P>
  static constexpr auto half() {
    return static_cast<typename P::Scalar>(0.5);
  }
};

}  // namespace ttt
