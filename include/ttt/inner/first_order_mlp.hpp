/// @file
/// A first-order inner model (first_order.hpp) to copy from: an MLP of two layers,
///   z(x) = W_2 s(W_1 x + b_1) + b_2,  hidden width m f
/// the model of `Stack<Affine<m>, s, Affine<>>` as a user's own code. Tests hold the two equal; the
/// stack is an order of magnitude faster.
#pragma once

#include "ttt/inner/first_order.hpp"

namespace ttt {

template <class Activation = GeluTanh, int multiple = 4>
struct FirstOrderMLP {
  using Output = LayerNormResidual;
  static constexpr std::size_t weight_count = 2;
  static constexpr WeightShape weight_shape(std::size_t l, Index f) {
    return l == 0 ? WeightShape{multiple * f, f, true} : WeightShape{f, multiple * f, true};
  }

  template <class T>
  using Weights = ModelWeights<T, weight_count>;
  template <class T>
  struct Saved {  // what `predict` leaves for `gradient`
    T x, z, a;
  };

  template <class T>
  static T predict(const Weights<T>& w, const T& x, Saved<T>& saved) {
    saved.x = x;
    saved.z = add_column(w.W[0] * x, w.b[0]);
    saved.a = activation<Activation>(saved.z);
    return add_column(w.W[1] * saved.a, w.b[1]);
  }

  /// dw and dx from dy, the gradient at the result.
  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    const T da = w.W[1].transpose() * dy;
    const T dz = activation_derivative<Activation>(saved.z).cwiseProduct(da);
    dw.W[1] = dy * saved.a.transpose();
    dw.b[1] = sum_columns(dy);
    dw.W[0] = dz * saved.x.transpose();
    dw.b[0] = sum_columns(dz);
    dx = w.W[0].transpose() * dz;
  }
};

}  // namespace ttt
