// A first-order inner model whose gradient is missing.
#include "ttt/inner/first_order.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Model {
  using Output = ttt::PlainOutput;
  static constexpr std::size_t weight_count = 1;
  static ttt::WeightShape weight_shape(std::size_t, ttt::Index f) { return {f, f}; }
  template <class T>
  struct Saved {};
  template <class T>
  static T predict(const ttt::ModelWeights<T, 1>& w, const T& x, Saved<T>&) {
    return w.W[0] * x;
  }
};

ttt::TTTLayer<float, Model> layer({.width = 8, .heads = 2});
