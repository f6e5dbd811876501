/// @file
/// An activation of one's own from its value alone; the derivatives follow (nn/jet.hpp):
///
///     struct Snake {
///       static auto value(auto z) { return z + sin(z) * sin(z); }
///     };
///     using Model = ttt::Stack<ttt::Affine<4>, ttt::OwnActivation<Snake>, ttt::Affine<>>;
///
/// `value` is called with one number of type Jet<S>: arithmetic with constants, < > <= >=, and
/// exp, log, log1p, sqrt, sin, cos, tanh, atan, erf, abs (unqualified, as above). One number at a
/// time, so slower than the activations of nn/activation.hpp, which work on whole matrices.
#pragma once

#include "ttt/nn/activation.hpp"
#include "ttt/nn/jet.hpp"

namespace ttt {

template <class F>
concept ActivationValue = requires(Jet<double> z) {
  { F::value(z) } -> std::convertible_to<Jet<double>>;
};

template <ActivationValue F>
struct OwnActivation {
  template <Scalar S>
  static void value(MatrixIn<S> z, MatrixOut<S> a) {
    each<S>(z, [&](Index i, Index j, const Jet<S>& s) { a(i, j) = s.v; });
  }
  template <Scalar S>
  static void inner_gradient(MatrixIn<S> z, MatrixOut<S> a, MatrixOut<S> g) {
    each<S>(z, [&](Index i, Index j, const Jet<S>& s) {
      a(i, j) = s.v;
      g(i, j) = s.d;
    });
  }
  template <Scalar S>
  static void derivative(MatrixIn<S> z, MatrixOut<S> d) {
    each<S>(z, [&](Index i, Index j, const Jet<S>& s) { d(i, j) = s.d; });
  }
  template <Scalar S>
  static void outer_gradients(MatrixIn<S> z, MatrixOut<S> d, MatrixOut<S> h) {
    each<S>(z, [&](Index i, Index j, const Jet<S>& s) {
      d(i, j) = s.d;
      h(i, j) = s.dd;
    });
  }

 private:
  template <Scalar S>
  static void each(MatrixIn<S> z, auto&& write) {
    for (Index j = 0; j < z.cols(); ++j)
      for (Index i = 0; i < z.rows(); ++i) write(i, j, F::value(Jet<S>(z(i, j), S(1), S(0))));
  }
};

}  // namespace ttt
