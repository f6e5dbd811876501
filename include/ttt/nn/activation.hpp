/// @file
/// Pointwise activations s(z), with the derivatives that an inner model needs. Three roles:
///   value            a = s(z)
///   inner_gradient   a = s(z), g = the derivative that the *inner* loop's gradient uses
///   outer_gradients  d = s'(z), the derivative of the value; h = dg/dz, so that the *outer* loop
///                    can differentiate through the inner gradient
/// g equals d, except in GeluTanhRounded. An activation of one's own is a struct with these four
/// functions. Arguments are matrices of equal shape; outputs must not alias z.
#pragma once

#include "ttt/core/scalar.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

template <class A, class S>
concept Activation = requires(MatrixIn<S> z, MatrixOut<S> out) {
  A::template value<S>(z, out);
  A::template inner_gradient<S>(z, out, out);
  A::template derivative<S>(z, out);
  A::template outer_gradients<S>(z, out, out);
};

/// s(z) = z
struct Identity {
  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    a = z;
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    a = z;
    g.setOnes();
  }
  template <Scalar S>
  static void derivative(MatrixIn<S>, MatrixOut<S> d) {
    d.setOnes();
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S>, MatrixOut<S> d, MatrixOut<S> h) {
    d.setOnes();
    h.setZero();
  }
};

/// s(z) = max(0, z); the derivative at 0 is 0.
struct ReLU {
  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    a = z.cwiseMax(S(0));
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    value<S>(z, a);
    derivative<S>(z, g);
  }
  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    d = (z.array() > S(0)).template cast<S>();
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    derivative<S>(z, d);
    h.setZero();
  }
};

/// s(z) = tanh(z)
struct Tanh {
  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    a = z.array().tanh();
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    value<S>(z, a);
    g = S(1) - a.array().square();
  }
  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    value<S>(z, d);
    d = S(1) - d.array().square();
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    value<S>(z, h);
    d = S(1) - h.array().square();
    h = S(-2) * h.array() * d.array();  // s'' = -2 tanh (1 - tanh^2)
  }
};

/// s(z) = z sigma(z), sigma the logistic function
struct SiLU {
  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    sigmoid<S>(z, a);
    a.array() *= z.array();
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    sigmoid<S>(z, a);
    g = a.array() * (S(1) + z.array() * (S(1) - a.array()));  // s' = sigma (1 + z (1 - sigma))
    a.array() *= z.array();
  }
  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    sigmoid<S>(z, d);
    d = d.array() * (S(1) + z.array() * (S(1) - d.array()));
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    sigmoid<S>(z, d);
    // s'' = sigma (1 - sigma) (2 + z (1 - 2 sigma))
    h = d.array() * (S(1) - d.array()) * (S(2) + z.array() * (S(1) - S(2) * d.array()));
    d = d.array() * (S(1) + z.array() * (S(1) - d.array()));
  }

  /// sigma(z) = (1 + tanh(z / 2)) / 2, which cannot overflow. `a` may be the memory of z.
  template <Scalar S>
  static void sigmoid(MatrixIn<S> z, MatrixOut<S> a) {
    a = S(0.5) * ((S(0.5) * z.array()).tanh() + S(1));
  }
};

namespace detail {

/// s(z) = z (1 + tanh u) / 2, u = c z (1 + 0.044715 z^2), c = sqrt(2/pi).
/// `inner` are the constants of g: c again, and 3 * 0.044715 * c.
template <class InnerConstants>
struct GeluTanhWith {
  static constexpr double c = 0.79788456080286535588;
  static constexpr double cubic = 0.044715;

  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    tanh_u<S>(z, c, a);
    a = S(0.5) * z.array() * (S(1) + a.array());
  }

  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    tanh_u<S>(z, InnerConstants::c, a);
    gradient_from_tanh<S>(z, a, InnerConstants::c, InnerConstants::c3, g);
    if constexpr (InnerConstants::c != c) tanh_u<S>(z, c, a);
    a = S(0.5) * z.array() * (S(1) + a.array());
  }

  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    tanh_u<S>(z, c, d);
    d = S(0.5) * z.array() * (S(1) - d.array().square()) *
            (S(c) + S(3 * cubic * c) * z.array().square()) +
        S(0.5) * (S(1) + d.array());
  }

  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    tanh_u<S>(z, InnerConstants::c, h);
    if constexpr (InnerConstants::c == c) gradient_from_tanh<S>(z, h, c, 3 * cubic * c, d);
    // g = z (1 - t^2) p / 2 + (1 + t) / 2 with t = tanh u, p = c + c3 z^2, so
    // g' = (1 - t^2) [p + u' + z (p' - 2 t u' p)] / 2
    const auto t = h.array();
    const auto z2 = z.array().square();
    const auto p = S(InnerConstants::c) + S(InnerConstants::c3) * z2;
    const auto du = S(InnerConstants::c) * (S(1) + S(3 * cubic) * z2);
    h = S(0.5) * (S(1) - t.square()) *
        (p + du + z.array() * (S(2 * InnerConstants::c3) * z.array() - S(2) * t * du * p));
    if constexpr (InnerConstants::c != c) derivative<S>(z, d);
  }

 private:
  template <Scalar S>
  static void tanh_u(MatrixIn<S> z, double scale, MatrixOut<S> t) {
    t = (z.array() * (S(scale) + S(scale * cubic) * z.array().square())).tanh();
  }

  template <Scalar S>
  static void gradient_from_tanh(MatrixIn<S> z, MatrixIn<S> t, double scale, double scale3,
                                 MatrixOut<S> g) {
    g = S(0.5) * z.array() * (S(1) - t.array().square()) *
            (S(scale) + S(scale3) * z.array().square()) +
        S(0.5) * (S(1) + t.array());
  }
};

struct ExactGeluConstants {
  static constexpr double c = 0.79788456080286535588;
  static constexpr double c3 = 3 * 0.044715 * c;
};

struct RoundedGeluConstants {
  static constexpr double c = 0.79788456;
  static constexpr double c3 = 0.1070322243;
};

}  // namespace detail

/// The tanh form of GELU (Hendrycks and Gimpel 2016).
struct GeluTanh : detail::GeluTanhWith<detail::ExactGeluConstants> {};

/// The same value, but the inner gradient uses the constants rounded to 8 and 10 digits that the
/// official TTT code has there: reproduces its numbers beyond 1e-9.
struct GeluTanhRounded : detail::GeluTanhWith<detail::RoundedGeluConstants> {};

}  // namespace ttt
