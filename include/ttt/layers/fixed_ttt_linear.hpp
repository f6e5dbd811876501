/// @file
/// TTT-Linear of fixed size. One token of a head, with the numbers of fixed_ttt_head.hpp:
///   G = dl/du of u = W k + b
///   R <- R + rate G k',  r <- r + rate G
///   y = W q + b - tau (R q + r)
#pragma once

#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/fixed_ttt_layer.hpp"
#include "ttt/layers/ttt_linear.hpp"

namespace ttt {

template <class S, int f>
struct FixedLinearWeights {
  FixedMatrix<S, f, f> W;
  FixedVector<S, f> b;

  static void each(auto&& fn, auto& weights, auto&... more) {
    fn(weights.W, weights.b, more.W..., more.b...);
  }
};

template <ttt::Scalar S, int f>
struct FixedTTTHead<S, f, LinearModel> : FixedTTTHeadBase<S, f, FixedLinearWeights<S, f>> {
  using Base = FixedTTTHeadBase<S, f, FixedLinearWeights<S, f>>;
  using Weights = FixedLinearWeights<S, f>;
  static constexpr const char* layer_name = "FixedTTTLinear";

  /// k, q, v, z [f]
  EIGEN_ALWAYS_INLINE void step(typename Base::State& state, const S* k, const S* q, const S* v,
                                S rate, S tau, S* z) const {
    auto& [anchor, sums] = state;
    typename Base::template Numbers<f> u, y, G, change;
    anchor.W.multiply_both(k, q, u.data(), y.data());
    G = rate * Base::gradient(u + Base::view(anchor.b), k, v);
    sums.W.add_outer_then_multiply(G.data(), k, q, change.data());
    auto r = Base::view(sums.b);
    r += G;
    y += Base::view(anchor.b) - tau * (change + r);
    Base::output(y, q, z);
  }
};

template <ttt::Scalar S, int head_width, int heads = 1, int mini_batch = 16,
          FixedTTTOptions options = FixedTTTOptions{}>
using FixedTTTLinear = FixedTTTLayer<S, LinearModel, head_width, heads, mini_batch, options>;

}  // namespace ttt
