/// @file
/// Numbers that carry two derivatives: v + d h + dd h^2 / 2 for a small h (a Taylor series cut
/// after its third term). A function computed with them gives its value and both derivatives, by
/// the chain rule  u(z): v = u, d = u' z.d, dd = u'' z.d^2 + u' z.dd.
/// For activations written as their value alone (nn/own_activation.hpp).
#pragma once

#include <cmath>

#include "ttt/core/scalar.hpp"

namespace ttt {

template <Scalar S>
struct Jet {
  S v, d = S(0), dd = S(0);

  constexpr Jet(S value) : v(value) {}  // NOLINT(google-explicit-constructor): constants mix in
  constexpr Jet(S value, S first, S second) : v(value), d(first), dd(second) {}

  /// u(z), given u, u' and u'' at z.v.
  constexpr Jet chain(S u, S du, S ddu) const { return {u, du * d, ddu * d * d + du * dd}; }

  friend constexpr Jet operator+(const Jet& a, const Jet& b) {
    return {a.v + b.v, a.d + b.d, a.dd + b.dd};
  }
  friend constexpr Jet operator-(const Jet& a, const Jet& b) {
    return {a.v - b.v, a.d - b.d, a.dd - b.dd};
  }
  friend constexpr Jet operator-(const Jet& a) { return {-a.v, -a.d, -a.dd}; }
  friend constexpr Jet operator*(const Jet& a, const Jet& b) {
    return {a.v * b.v, a.d * b.v + a.v * b.d, a.dd * b.v + S(2) * a.d * b.d + a.v * b.dd};
  }
  friend constexpr Jet operator/(const Jet& a, const Jet& b) {
    const S r = S(1) / b.v;
    return a * b.chain(r, -r * r, S(2) * r * r * r);
  }
  constexpr Jet& operator+=(const Jet& other) { return *this = *this + other; }
  constexpr Jet& operator-=(const Jet& other) { return *this = *this - other; }
  constexpr Jet& operator*=(const Jet& other) { return *this = *this * other; }
  constexpr Jet& operator/=(const Jet& other) { return *this = *this / other; }
  friend constexpr bool operator<(const Jet& a, const Jet& b) { return a.v < b.v; }
  friend constexpr bool operator>(const Jet& a, const Jet& b) { return a.v > b.v; }
  friend constexpr bool operator<=(const Jet& a, const Jet& b) { return a.v <= b.v; }
  friend constexpr bool operator>=(const Jet& a, const Jet& b) { return a.v >= b.v; }

  friend Jet exp(const Jet& z) {
    const S e = std::exp(z.v);
    return z.chain(e, e, e);
  }
  friend Jet log(const Jet& z) {
    const S r = S(1) / z.v;
    return z.chain(std::log(z.v), r, -r * r);
  }
  friend Jet log1p(const Jet& z) {
    const S r = S(1) / (S(1) + z.v);
    return z.chain(std::log1p(z.v), r, -r * r);
  }
  friend Jet sqrt(const Jet& z) {
    const S root = std::sqrt(z.v), r = S(1) / root;
    return z.chain(root, S(0.5) * r, S(-0.25) * r * r * r);
  }
  friend Jet sin(const Jet& z) {
    const S s = std::sin(z.v), c = std::cos(z.v);
    return z.chain(s, c, -s);
  }
  friend Jet cos(const Jet& z) {
    const S s = std::sin(z.v), c = std::cos(z.v);
    return z.chain(c, -s, -c);
  }
  friend Jet tanh(const Jet& z) {
    const S t = std::tanh(z.v), dt = S(1) - t * t;
    return z.chain(t, dt, S(-2) * t * dt);
  }
  friend Jet atan(const Jet& z) {
    const S r = S(1) / (S(1) + z.v * z.v);
    return z.chain(std::atan(z.v), r, S(-2) * z.v * r * r);
  }
  friend Jet erf(const Jet& z) {
    const S slope = S(1.12837916709551257390) * std::exp(-z.v * z.v);  // 2 / sqrt(pi) exp(-z^2)
    return z.chain(std::erf(z.v), slope, S(-2) * z.v * slope);
  }
  friend Jet abs(const Jet& z) { return z.v < S(0) ? -z : z; }
};

}  // namespace ttt
