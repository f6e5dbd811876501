/// @file
/// TTT-MLP of fixed size. One token of a head, with the numbers of fixed_ttt_head.hpp and two
/// affine maps, W_1 [4f, f] and W_2 [f, 4f]:
///   u_1 = W_1 k + b_1,  a = gelu(u_1),  u_2 = W_2 a + b_2
///   G_2 = dl/du_2,      G_1 = W_2' G_2 . gelu'(u_1)
///   R_1 <- R_1 + rate G_1 k',  R_2 <- R_2 + rate G_2 a',  and r alike
///   c = gelu(W_1 q + b_1 - tau (R_1 q + r_1)),   y = W_2 c + b_2 - tau (R_2 c + r_2)
#pragma once

#include "ttt/inner/mlp_model.hpp"
#include "ttt/layers/fixed_ttt_layer.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt {

template <class S, int f>
struct FixedMLPWeights {
  FixedMatrix<S, 4 * f, f> W_1;
  FixedVector<S, 4 * f> b_1;
  FixedMatrix<S, f, 4 * f> W_2;
  FixedVector<S, f> b_2;

  static void each(auto&& fn, auto& weights, auto&... more) {
    fn(weights.W_1, weights.b_1, more.W_1..., more.b_1...);
    fn(weights.W_2, weights.b_2, more.W_2..., more.b_2...);
  }
};

template <ttt::Scalar S, int f>
struct FixedTTTHead<S, f, MLPModel> : FixedTTTHeadBase<S, f, FixedMLPWeights<S, f>> {
  using Base = FixedTTTHeadBase<S, f, FixedMLPWeights<S, f>>;
  using Weights = FixedMLPWeights<S, f>;
  static constexpr const char* layer_name = "FixedTTTMLP";

  /// k, q, v, z [f]
  EIGEN_ALWAYS_INLINE void step(typename Base::State& state, const S* k, const S* q, const S* v,
                                S rate, S tau, S* z) const {
    auto& [anchor, sums] = state;
    Wide u_1, a, slope, D, G_1, y_1, c, change_1;
    Narrow u_2, G_2, y_2, change_2;
    anchor.W_1.multiply_both(k, q, u_1.data(), y_1.data());
    u_1.array() += Base::view(anchor.b_1);
    GeluTanh::inner_gradient<S>(u_1, a, slope);
    anchor.W_2.multiply(a.data(), u_2.data());
    G_2.array() = rate * Base::gradient(u_2.array() + Base::view(anchor.b_2), k, v);
    anchor.W_2.multiply_transposed(G_2.data(), D.data());
    G_1 = D.cwiseProduct(slope);

    sums.W_1.add_outer_then_multiply(G_1.data(), k, q, change_1.data());
    Base::view(sums.b_1) += G_1.array();
    y_1.array() += Base::view(anchor.b_1) - tau * (change_1.array() + Base::view(sums.b_1));
    GeluTanh::value<S>(y_1, c);
    sums.W_2.add_outer_then_multiply(G_2.data(), a.data(), c.data(), change_2.data());
    Base::view(sums.b_2) += G_2.array();
    anchor.W_2.multiply(c.data(), y_2.data());
    y_2.array() += Base::view(anchor.b_2) - tau * (change_2.array() + Base::view(sums.b_2));
    Base::output(y_2.array(), q, z);
  }

 private:
  using Wide = Eigen::Matrix<S, 4 * f, 1>;
  using Narrow = Eigen::Matrix<S, f, 1>;
};

template <ttt::Scalar S, int head_width, int heads = 1, int mini_batch = 16,
          FixedTTTOptions options = FixedTTTOptions{}>
using FixedTTTMLP = FixedTTTLayer<S, MLPModel, head_width, heads, mini_batch, options>;

}  // namespace ttt
