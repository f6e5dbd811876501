/// @file
/// Losses of predictions y against targets, both [D, T], for continuous signals. With a penalty h
/// of one error e = y - target,
///   l_t = sum_i h(e_it)                       dy = scale h'(e)
///   squared  h(e) = e^2 / 2
///   Huber    h(e) = e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond (Huber 1964)
/// Another loss is one more penalty: `value` and `derivative` of one error.
#pragma once

#include "ttt/core/check.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

template <Scalar S>
struct SquaredPenalty {
  void validate() const {}
  S value(S e) const { return S(0.5) * e * e; }
  S derivative(S e) const { return e; }
};

/// Errors beyond `delta` pull with the same force, so that outliers do not rule.
template <Scalar S>
struct HuberPenalty {
  S delta = S(1);

  void validate() const {
    require(delta > S(0), "HuberPenalty: delta is ", delta, ", expected a positive number");
  }
  S value(S e) const {
    const S size = e < S(0) ? -e : e;
    return size > delta ? delta * (size - S(0.5) * delta) : S(0.5) * e * e;
  }
  S derivative(S e) const { return e > delta ? delta : e < -delta ? -delta : e; }
};

/// Throws `std::invalid_argument` where a shape is wrong or the penalty is invalid.
template <Scalar S, class Penalty>
struct RegressionLoss {
  Penalty penalty = {};

  /// The loss of every token: values [T].
  void forward(MatrixIn<S> y, MatrixIn<S> targets, VectorOut<S> values) const {
    require_arguments("RegressionLoss.forward", y, targets);
    require_shape("RegressionLoss.forward: values", values, y.cols(), 1);
    for (Index t = 0; t < y.cols(); ++t) values(t) = token(y, targets, t);
  }

  /// The mean of the losses of all tokens, summed in double; 0 without tokens.
  double mean(MatrixIn<S> y, MatrixIn<S> targets) const {
    require_arguments("RegressionLoss.mean", y, targets);
    double sum = 0;
    for (Index t = 0; t < y.cols(); ++t) sum += static_cast<double>(token(y, targets, t));
    return y.cols() > 0 ? sum / static_cast<double>(y.cols()) : 0;
  }

  /// Overwrites dy with `scale` times the gradient of the sum of all tokens' losses; for the mean,
  /// `scale` is 1 / T.
  void backward(MatrixIn<S> y, MatrixIn<S> targets, double scale, MatrixOut<S> dy) const {
    require_arguments("RegressionLoss.backward", y, targets);
    require_shape("RegressionLoss.backward: dy", dy, y.rows(), y.cols());
    dy = static_cast<S>(scale) *
         (y - targets).unaryExpr([this](S e) { return penalty.derivative(e); });
  }

 private:
  void require_arguments(const char* what, MatrixIn<S> y, MatrixIn<S> targets) const {
    penalty.validate();
    require(targets.rows() == y.rows() && targets.cols() == y.cols(), what, ": targets has shape ",
            targets.rows(), " x ", targets.cols(), ", expected the shape of y, ", y.rows(), " x ",
            y.cols());
  }

  S token(MatrixIn<S> y, MatrixIn<S> targets, Index t) const {
    return (y.col(t) - targets.col(t)).unaryExpr([this](S e) { return penalty.value(e); }).sum();
  }
};

template <Scalar S>
using SquaredLoss = RegressionLoss<S, SquaredPenalty<S>>;
/// `HuberLoss<float>{0.5f}` has delta 0.5.
template <Scalar S>
using HuberLoss = RegressionLoss<S, HuberPenalty<S>>;

}  // namespace ttt
