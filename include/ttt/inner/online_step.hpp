/// @file
/// One token of the inner loop for streaming, as the published layers do it: the chunk form with
/// n = 1, on scratch of fixed shape: no allocation.
///   R <- R + rate grad l(W; k, v),   z = f(q; W - tau R)
#pragma once

#include "ttt/inner/dual_form.hpp"

namespace ttt {

/// At a border: W <- W - tau R, R <- 0.
template <Scalar S, std::size_t N>
void finish_mini_batch(HeadWeights<S, N> W, HeadWeights<S, N> R, S tau) {
  add_scaled(W, -tau, R);
  set_zero(R);
}

/// With the scratch of one head.
template <Scalar S, InnerModel M>
class OnlineStep {
 public:
  using Weights = HeadWeights<S, M::weight_count>;
  using ConstWeights = HeadWeights<const S, M::weight_count>;

  /// Takes a step, so that everything has its size before the first token.
  explicit OnlineStep(Index head_width) {
    const Vector<S> ones = Vector<S>::Ones(head_width);
    const HeadNorm<S> norm{{ones.data(), head_width}, {ones.data(), head_width}};
    auto W = InnerWeights<S, M>::zero(1, head_width), R = W;
    Vector<S> z = ones;
    step(std::as_const(W).head(0), R.head(0), norm, ones, ones, ones, S(0), S(0), z);
  }

  /// k, q, v, z [f]; R is the sum of rate times gradient since the last border, W the weights
  /// there.
  void step(const ConstWeights& W, Weights R, const HeadNorm<S>& norm, VectorIn<S> k, VectorIn<S> q,
            VectorIn<S> v, S rate, S tau, VectorOut<S> z) {
    read_[0] = -tau;
    rate_[0] = rate;
    const CarriedWeights<S, M> carried{read_only(R), read_};
    Form::step({W, true, std::span(&carried, 1), norm, k, q, v, Matrix<S>()}, rate_, R, z, trace_);
  }

 private:
  using Form = ChunkForm<S, M>;
  typename Form::Trace trace_;
  Vector<S> read_ = Vector<S>::Zero(1), rate_ = read_;
};

}  // namespace ttt
