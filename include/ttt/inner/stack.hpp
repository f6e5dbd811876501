/// @file
/// An inner model as a stack of affine maps with a pointwise activation between them:
///   A_1 = k,  Z_l = W_l A_l + b_l,  A_{l+1} = s(Z_l),  f_res(k) = Z_N
/// and, on top, a rule that makes a loss and an output of Z_N (output_rule.hpp).
/// The two published models, and any deeper one, are one line:
///   using LinearModel = Stack<Identity>;   using MLPModel = Stack<GeluTanh, 4>;
///   using ThreeLayerModel = Stack<SiLU, 4, 2>;
#pragma once

#include <array>

#include "ttt/core/fields.hpp"
#include "ttt/inner/output_rule.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

/// Hidden widths are multiples of the head width f.
template <class HiddenActivation, int... HiddenMultiples>
struct Stack {
  static_assert(((HiddenMultiples > 0) && ...), "hidden widths must be positive multiples of f");
  using Activation = HiddenActivation;
  using Output = LayerNormResidual;
  static constexpr bool has_bias = true;
  static constexpr std::array<int, sizeof...(HiddenMultiples)> hidden_multiples{HiddenMultiples...};
};

/// The same stack without biases and without norm or residual: l = 1/2 |W k - v|^2 at depth one.
template <class HiddenActivation, int... HiddenMultiples>
struct PlainStack : Stack<HiddenActivation, HiddenMultiples...> {
  using Output = PlainOutput;
  static constexpr bool has_bias = false;
};

/// What the library asks of an inner model. It is a list of choices, never an object.
template <class M>
concept InnerModel = requires {
  typename M::Activation;
  typename M::Output;
  { M::has_bias } -> std::convertible_to<bool>;
  { M::hidden_multiples.size() } -> std::convertible_to<std::size_t>;
};

/// Affine maps of a stack.
template <InnerModel M>
inline constexpr std::size_t stack_depth = M::hidden_multiples.size() + 1;

/// Rows of level l of a stack: 0 is its input, `stack_depth` its output.
template <InnerModel M>
constexpr Index level_width(std::size_t level, Index head_width) {
  if (level == 0 || level == stack_depth<M>) return head_width;
  return M::hidden_multiples[level - 1] * head_width;
}

/// The weights of one head of a stack: maps into memory that somebody else owns.
template <class S, std::size_t N>
struct HeadWeights {
  using MatrixMap = Eigen::Map<
      std::conditional_t<std::is_const_v<S>, const Matrix<std::remove_const_t<S>>, Matrix<S>>>;
  using VectorMap = Eigen::Map<
      std::conditional_t<std::is_const_v<S>, const Vector<std::remove_const_t<S>>, Vector<S>>>;
  std::array<MatrixMap, N> W;  // [out, in]
  std::array<VectorMap, N> b;  // [out]; empty without biases
};

/// Copies the numbers that one head's views show to where another's point.
template <class From, class To, std::size_t N>
void copy_weights(const HeadWeights<From, N>& from, HeadWeights<To, N> to) {
  for (std::size_t l = 0; l < N; ++l) {
    to.W[l] = from.W[l];
    to.b[l] = from.b[l];
  }
}

/// The weights of all heads, side by side: those that are learned inside (as state), their initial
/// values W_0 (as parameters), sums of gradients, and adjoints. In the paper's convention z = W k;
/// the bytes are those of the official `W1 [H, in, out]`, `b1 [H, 1, out]`.
template <Scalar S, InnerModel M>
struct StackWeights {
  static constexpr std::size_t depth = stack_depth<M>;
  Index heads = 0;
  std::array<Matrix<S>, depth> W;  // [out, H * in]
  std::array<Matrix<S>, depth> b;  // [out, H]; empty without biases

  static auto fields(auto& self) {
    return std::tuple(field("", self.heads), field("W", self.W, self.heads),
                      field("b", self.b, self.heads));
  }

  static StackWeights zero(Index heads, Index head_width) {
    StackWeights result;
    result.heads = heads;
    for (std::size_t l = 0; l < depth; ++l) {
      const Index in = level_width<M>(l, head_width), out = level_width<M>(l + 1, head_width);
      result.W[l].setZero(out, heads * in);
      if (M::has_bias) result.b[l].setZero(out, heads);
    }
    return result;
  }

  HeadWeights<S, depth> head(Index h) { return view<S>(*this, h, Levels{}); }
  HeadWeights<const S, depth> head(Index h) const { return view<const S>(*this, h, Levels{}); }

 private:
  using Levels = std::make_index_sequence<depth>;

  template <class T, std::size_t... L>
  static HeadWeights<T, depth> view(auto& self, Index h, std::index_sequence<L...>) {
    return {{weight_map<T>(self.W[L], self.heads, h)...}, {bias_map<T>(self.b[L], h)...}};
  }
  template <class T>
  static auto weight_map(auto& W, Index heads, Index h) {
    const Index in = W.cols() / heads;
    return typename HeadWeights<T, depth>::MatrixMap(W.data() + h * in * W.rows(), W.rows(), in);
  }
  template <class T>
  static auto bias_map(auto& b, Index h) {
    return typename HeadWeights<T, depth>::VectorMap(b.data() + h * b.rows(), b.rows());
  }
};

}  // namespace ttt
