/// @file
/// What the library asks of every inner model f(x; W), and where its weights live. A model is a
/// type, a list of choices, never an object. It says how many weight matrices one head has, the
/// shape of each, and what stands between its top and the loss (output_rule.hpp). How it is
/// computed is one of two kinds:
///   Stack<...>               a list of stages (stack.hpp), run by the dual form
///   FirstOrderInnerModel     a user's own function and its gradient (first_order.hpp)
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <utility>

#include "ttt/core/fields.hpp"
#include "ttt/inner/output_rule.hpp"

namespace ttt {

/// One weight matrix of a head, [rows, cols], and whether a bias [rows] goes with it.
struct WeightShape {
  Index rows, cols;
  bool bias = false;
};

template <class M>
concept HasWeightShapes = requires(std::size_t l, Index head_width) {
  { M::weight_count } -> std::convertible_to<std::size_t>;
  { M::weight_shape(l, head_width) } -> std::same_as<WeightShape>;
};

template <class M>
concept HasOutputRule = requires {
  typename M::Output;
  { M::Output::has_norm } -> std::convertible_to<bool>;
};

template <class M>
concept InnerModel = HasWeightShapes<M> && HasOutputRule<M>;

/// The weights of one head: maps into memory that somebody else owns.
template <class S, std::size_t N>
struct HeadWeights {
  using MatrixMap = Eigen::Map<
      std::conditional_t<std::is_const_v<S>, const Matrix<std::remove_const_t<S>>, Matrix<S>>>;
  using VectorMap = Eigen::Map<
      std::conditional_t<std::is_const_v<S>, const Vector<std::remove_const_t<S>>, Vector<S>>>;
  std::array<MatrixMap, N> W;  // [rows, cols]
  std::array<VectorMap, N> b;  // [rows]; empty without a bias
};

/// The same memory, to be read only.
template <class S, std::size_t N>
HeadWeights<const S, N> read_only(const HeadWeights<S, N>& weights) {
  return [&]<std::size_t... L>(std::index_sequence<L...>) {
    return HeadWeights<const S, N>{
        {typename HeadWeights<const S, N>::MatrixMap(weights.W[L].data(), weights.W[L].rows(),
                                                     weights.W[L].cols())...},
        {typename HeadWeights<const S, N>::VectorMap(weights.b[L].data(), weights.b[L].size())...}};
  }
  (std::make_index_sequence<N>{});
}

/// Copies the numbers that one head's views show to where another's point.
template <class From, class To, std::size_t N>
void copy_weights(const HeadWeights<From, N>& from, HeadWeights<To, N> to) {
  for (std::size_t l = 0; l < N; ++l) {
    eigen_assert(from.W[l].size() == to.W[l].size() && from.b[l].size() == to.b[l].size());
    std::copy_n(from.W[l].data(), from.W[l].size(), to.W[l].data());
    std::copy_n(from.b[l].data(), from.b[l].size(), to.b[l].data());
  }
}

template <class S, std::size_t N>
void set_zero(HeadWeights<S, N> weights) {
  for (auto& W : weights.W) std::fill_n(W.data(), W.size(), S(0));
  for (auto& b : weights.b) std::fill_n(b.data(), b.size(), S(0));
}

template <class S, std::size_t N>
void scale(HeadWeights<S, N> weights, S factor) {
  for (auto& W : weights.W) W *= factor;
  for (auto& b : weights.b) b *= factor;
}

/// to <- to + factor from
template <class From, class S, std::size_t N>
void add_scaled(HeadWeights<S, N> to, S factor, const HeadWeights<From, N>& from) {
  const auto add = [&](const auto& numbers, auto& sum) {
    eigen_assert(numbers.size() == sum.size());
    each_lane<S>(sum.size(), [&](auto at) { at.add(sum.data(), factor * at(numbers.data())); });
  };
  for (std::size_t l = 0; l < N; ++l) {
    add(from.W[l], to.W[l]);
    add(from.b[l], to.b[l]);
  }
}

/// The sum of all products of two numbers at the same place.
template <class A, class B, std::size_t N>
std::remove_const_t<A> inner_product(const HeadWeights<A, N>& a, const HeadWeights<B, N>& b) {
  std::remove_const_t<A> sum = 0;
  for (std::size_t l = 0; l < N; ++l)
    sum += a.W[l].cwiseProduct(b.W[l]).sum() + a.b[l].cwiseProduct(b.b[l]).sum();
  return sum;
}

/// The weights of all heads, side by side: those that are learned inside (as state), their initial
/// values W_0 (as parameters), sums of gradients, and adjoints. In the paper's convention z = W k;
/// the bytes are those of the official `W1 [H, in, out]`, `b1 [H, 1, out]`.
template <Scalar S, InnerModel M>
struct InnerWeights {
  static constexpr std::size_t count = M::weight_count;
  Index heads = 0;
  std::array<Matrix<S>, count> W;  // [rows, H * cols]
  std::array<Matrix<S>, count> b;  // [rows, H]; empty without a bias

  static auto fields(auto& self) {
    return std::tuple(field("", self.heads), field("W", self.W, self.heads),
                      field("b", self.b, self.heads));
  }

  static InnerWeights zero(Index heads, Index head_width) {
    InnerWeights result;
    result.heads = heads;
    for (std::size_t l = 0; l < count; ++l) {
      const WeightShape shape = M::weight_shape(l, head_width);
      result.W[l].setZero(shape.rows, heads * shape.cols);
      if (shape.bias) result.b[l].setZero(shape.rows, heads);
    }
    return result;
  }

  friend bool same_shape(const InnerWeights& one, const InnerWeights& other) {
    if (one.heads != other.heads) return false;
    for (std::size_t l = 0; l < count; ++l)
      if (one.W[l].rows() != other.W[l].rows() || one.W[l].cols() != other.W[l].cols())
        return false;
    return true;
  }

  HeadWeights<S, count> head(Index h) { return view<S>(*this, h, Matrices{}); }
  HeadWeights<const S, count> head(Index h) const { return view<const S>(*this, h, Matrices{}); }

 private:
  using Matrices = std::make_index_sequence<count>;

  template <class T, std::size_t... L>
  static HeadWeights<T, count> view(auto& self, Index h, std::index_sequence<L...>) {
    return {{weight_map<T>(self.W[L], self.heads, h)...}, {bias_map<T>(self.b[L], h)...}};
  }
  template <class T>
  static auto weight_map(auto& W, Index heads, Index h) {
    const Index cols = W.cols() / heads;
    return
        typename HeadWeights<T, count>::MatrixMap(W.data() + h * cols * W.rows(), W.rows(), cols);
  }
  template <class T>
  static auto bias_map(auto& b, Index h) {
    return typename HeadWeights<T, count>::VectorMap(b.data() + h * b.rows(), b.rows());
  }
};

}  // namespace ttt
