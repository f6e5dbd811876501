/// @file
/// Matrices of numbers (value, tangent). What a computation does to the tangent of its argument is
/// its derivative in that direction:
///   (A, dA) (B, dB) = (A B, dA B + A dB),   s(Z, dZ) = (s(Z), s'(Z) . dZ)
/// Code that computes a gradient g(w), run on (w, u), so gives d/de g(w + e u) as well: second
/// order from first-order code (first_order.hpp), at the speed of matrix products. (Here alone a
/// leading d is a direction, not an adjoint.) Members are spelled as Eigen spells them; where that
/// cannot be had there is a free function for both kinds of matrix. So one template runs on
/// both, if it keeps to + - * += -= with matrices, * with numbers, and the functions below.
#pragma once

#include <type_traits>

#include "ttt/core/types.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

/// A pair of matrices, or of expressions in such: `transpose()` refers to its matrix, like Eigen's.
template <class Values>
struct Dual {
  using Scalar = typename Values::Scalar;
  Values value, tangent;  // [rows, cols]

  Index rows() const { return value.rows(); }
  Index cols() const { return value.cols(); }

  Dual<Eigen::Transpose<const Values>> transpose() const {
    return {value.transpose(), tangent.transpose()};
  }

  template <class Other>
  Dual<Matrix<Scalar>> cwiseProduct(const Dual<Other>& other) const {
    return {value.cwiseProduct(other.value),
            tangent.cwiseProduct(other.value) + value.cwiseProduct(other.tangent)};
  }

  template <class Other>
  Dual& operator+=(const Dual<Other>& other) {
    value += other.value;
    tangent += other.tangent;
    return *this;
  }
  template <class Other>
  Dual& operator-=(const Dual<Other>& other) {
    value -= other.value;
    tangent -= other.tangent;
    return *this;
  }

  operator Dual<Matrix<Scalar>>() const requires(!std::is_same_v<Values, Matrix<Scalar>>) {
    return {value, tangent};
  }
};

template <class S>
using DualMatrix = Dual<Matrix<S>>;

template <class A, class B>
DualMatrix<typename A::Scalar> operator*(const Dual<A>& a, const Dual<B>& b) {
  DualMatrix<typename A::Scalar> result{a.value * b.value, a.tangent * b.value};
  result.tangent.noalias() += a.value * b.tangent;
  return result;
}
template <class A>
DualMatrix<typename A::Scalar> operator*(typename A::Scalar scale, const Dual<A>& a) {
  return {scale * a.value, scale * a.tangent};
}
template <class A>
DualMatrix<typename A::Scalar> operator*(const Dual<A>& a, typename A::Scalar scale) {
  return scale * a;
}
template <class A, class B>
DualMatrix<typename A::Scalar> operator+(const Dual<A>& a, const Dual<B>& b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class A, class B>
DualMatrix<typename A::Scalar> operator-(const Dual<A>& a, const Dual<B>& b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class A>
DualMatrix<typename A::Scalar> operator-(const Dual<A>& a) {
  return {-a.value, -a.tangent};
}

/// A + c 1': the column c [rows, 1], a bias, added to every column of A [rows, cols].
template <class A, class C>
Matrix<typename A::Scalar> add_column(const Eigen::MatrixBase<A>& a,
                                      const Eigen::MatrixBase<C>& c) {
  Matrix<typename A::Scalar> result = a;
  result.colwise() += c.derived().col(0);
  return result;
}
template <class A, class C>
DualMatrix<typename A::Scalar> add_column(const Dual<A>& a, const Dual<C>& c) {
  return {add_column(a.value, c.value), add_column(a.tangent, c.tangent)};
}

/// A 1 [rows, 1]: the sum of the columns of A, which is the gradient of a bias.
template <class A>
Matrix<typename A::Scalar> sum_columns(const Eigen::MatrixBase<A>& a) {
  return a.rowwise().sum();
}
template <class A>
DualMatrix<typename A::Scalar> sum_columns(const Dual<A>& a) {
  return {sum_columns(a.value), sum_columns(a.tangent)};
}

/// `map(x)` for a map that is linear in x: a gather, a permutation, another shape. It takes a
/// Matrix<S> and returns one.
template <class A, class Map>
Matrix<typename A::Scalar> map_linear(const Eigen::MatrixBase<A>& x, Map&& map) {
  return map(x.derived());
}
template <class A, class Map>
DualMatrix<typename A::Scalar> map_linear(const Dual<A>& x, Map&& map) {
  return {map(x.value), map(x.tangent)};
}

/// s(z) for an activation of nn/activation.hpp or one's own: `activation<Tanh>(z)`.
template <class Function, class Z>
Matrix<typename Z::Scalar> activation(const Eigen::MatrixBase<Z>& z) {
  Matrix<typename Z::Scalar> a(z.rows(), z.cols());
  Function::template value<typename Z::Scalar>(z.derived(), a);
  return a;
}
template <class Function, class Z>
DualMatrix<typename Z::Scalar> activation(const Dual<Z>& z) {
  Matrix<typename Z::Scalar> d(z.rows(), z.cols());
  Function::template derivative<typename Z::Scalar>(z.value, d);
  return {activation<Function>(z.value), d.cwiseProduct(z.tangent)};
}

/// s'(z), the derivative that an inner gradient uses.
template <class Function, class Z>
Matrix<typename Z::Scalar> activation_derivative(const Eigen::MatrixBase<Z>& z) {
  using S = typename Z::Scalar;
  Matrix<S> a(z.rows(), z.cols()), g(z.rows(), z.cols());
  Function::template inner_gradient<S>(z.derived(), a, g);
  return g;
}
template <class Function, class Z>
DualMatrix<typename Z::Scalar> activation_derivative(const Dual<Z>& z) {
  using S = typename Z::Scalar;
  Matrix<S> d(z.rows(), z.cols()), h(z.rows(), z.cols());
  Function::template outer_gradients<S>(z.value, d, h);
  return {activation_derivative<Function>(z.value), h.cwiseProduct(z.tangent)};
}

}  // namespace ttt
