/// @file
/// Pointwise activations s(z), with the derivatives that an inner model needs. Three roles:
///   value            a = s(z)
///   inner_gradient   a = s(z), g = the derivative that the *inner* loop's gradient uses
///   outer_gradients  d = s'(z), the derivative of the value; h = dg/dz, so that the *outer* loop
///                    can differentiate through the inner gradient
/// g equals d, except in GeluTanhRounded. An activation of one's own is a struct with these four
/// functions. Arguments are matrices of equal shape; outputs must not alias z.
#pragma once

#include "ttt/core/lanes.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

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
    each_entry<S>(a, [&](auto at) { at.store(a, at(a) * at(z)); });
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    sigmoid<S>(z, a);
    each_entry<S>(a, [&](auto at) {
      at.store(g, slope<S>(at(z), at(a)));
      at.store(a, at(a) * at(z));
    });
  }
  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    sigmoid<S>(z, d);
    each_entry<S>(d, [&](auto at) { at.store(d, slope<S>(at(z), at(d))); });
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    sigmoid<S>(z, d);
    each_entry<S>(d, [&](auto at) {  // s'' = sigma (1 - sigma) (2 + z (1 - 2 sigma))
      const auto sigma = at(d);
      at.store(h, sigma * (S(1) - sigma) * (S(2) + at(z) * (S(1) - S(2) * sigma)));
      at.store(d, slope<S>(at(z), sigma));
    });
  }

  /// sigma(z) = (1 + tanh(z / 2)) / 2, which cannot overflow. `a` may be the memory of z.
  template <Scalar S>
  static void sigmoid(MatrixIn<S> z, MatrixOut<S> a) {
    each_entry<S>(a, [&](auto at) { at.store(a, S(0.5) * (tanh(S(0.5) * at(z)) + S(1))); });
  }

 private:
  /// s' = sigma (1 + z (1 - sigma))
  template <Scalar S>
  static auto slope(const auto& z, const auto& sigma) {
    return sigma * (S(1) + z * (S(1) - sigma));
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
    value_from_tanh<S>(z, a);
  }

  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    tanh_u<S>(z, InnerConstants::c, a);
    gradient_from_tanh<S>(z, a, InnerConstants::c, InnerConstants::c3, g);
    if constexpr (InnerConstants::c != c) tanh_u<S>(z, c, a);
    value_from_tanh<S>(z, a);
  }

  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    tanh_u<S>(z, c, d);
    gradient_from_tanh<S>(z, d, c, 3 * cubic * c, d);
  }

  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    tanh_u<S>(z, InnerConstants::c, h);
    if constexpr (InnerConstants::c == c) gradient_from_tanh<S>(z, h, c, 3 * cubic * c, d);
    // g = z (1 - t^2) p / 2 + (1 + t) / 2 with t = tanh u, p = c + c3 z^2, so
    // g' = (1 - t^2) [p + u' + z (p' - 2 t u' p)] / 2
    each_entry<S>(h, [&](auto at) {
      const auto x = at(z), t = at(h), x2 = x * x;
      const auto p = S(InnerConstants::c) + S(InnerConstants::c3) * x2;
      const auto du = S(InnerConstants::c) * (S(1) + S(3 * cubic) * x2);
      at.store(h, S(0.5) * (S(1) - t * t) *
                      (p + du + x * (S(2 * InnerConstants::c3) * x - S(2) * t * du * p)));
    });
    if constexpr (InnerConstants::c != c) derivative<S>(z, d);
  }

 private:
  template <Scalar S>
  static void tanh_u(MatrixIn<S> z, double scale, MatrixOut<S> t) {
    const S linear = S(scale), third = S(scale * cubic);
    each_entry<S>(t, [&](auto at) {
      const auto x = at(z);
      at.store(t, tanh(x * (linear + third * (x * x))));
    });
  }

  /// In: a, tanh u.
  template <Scalar S>
  static void value_from_tanh(MatrixIn<S> z, MatrixOut<S> a) {
    each_entry<S>(a, [&](auto at) { at.store(a, S(0.5) * at(z) * (S(1) + at(a))); });
  }

  /// g may be the memory of t.
  template <Scalar S>
  static void gradient_from_tanh(MatrixIn<S> z, MatrixIn<S> t, double scale, double scale3,
                                 MatrixOut<S> g) {
    const S p_0 = S(scale), p_2 = S(scale3);
    each_entry<S>(g, [&](auto at) {
      const auto x = at(z), t_at = at(t);
      at.store(g,
               S(0.5) * x * (S(1) - t_at * t_at) * (p_0 + p_2 * (x * x)) + S(0.5) * (S(1) + t_at));
    });
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
