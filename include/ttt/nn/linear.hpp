/// @file
/// Linear map without bias: y = W' x for every token, with W [in, out] (the bytes of a PyTorch
/// weight [out, in]). Differentiates to
///   dx = W dy        dW = x dy'  (summed over the tokens)
#pragma once

#include <array>
#include <cstddef>

#include "ttt/core/check.hpp"
#include "ttt/core/product.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/decode_weights.hpp"

namespace ttt {

/// Shapes: x, dx [in, T]; y, dy [out, T]; weight, d_weight [in, out].
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct Linear {
  /// y = W' x
  static void forward(MatrixIn<S> x, MatrixIn<S> weight, MatrixOut<S> y) {
    require_shape("Linear.forward: x", x, weight.rows(), x.cols());
    require_shape("Linear.forward: y", y, weight.cols(), x.cols());
    Product<S>::atb(weight, x, y);
  }

  /// A weight [in, out], and where its product with the tokens goes, [out, T].
  using Projection = typename Product<S>::Transposed;

  /// The same for several weights that read the same tokens: threads meet once for all.
  ///   Linear<S>::forward(x, {{p.q_proj, q}, {p.k_proj, k}});
  template <std::size_t size>
  static void forward(MatrixIn<S> x, const Projection (&projections)[size]) {
    for (const auto& [weight, y] : projections) {
      require_shape("Linear.forward: x", x, weight.rows(), x.cols());
      require_shape("Linear.forward: y", y, weight.cols(), x.cols());
    }
    Product<S>::atb_each(projections, x);
  }

  /// dx = W dy
  static void backward_input(MatrixIn<S> dy, MatrixIn<S> weight, MatrixOut<S> dx) {
    require_shape("Linear.backward_input: dy", dy, weight.cols(), dy.cols());
    require_shape("Linear.backward_input: dx", dx, weight.rows(), dy.cols());
    Product<S>::ab(weight, dy, dx);
  }

  /// dx += W dy
  static void add_backward_input(MatrixIn<S> dy, MatrixIn<S> weight, MatrixOut<S> dx) {
    require_shape("Linear.add_backward_input: dy", dy, weight.cols(), dy.cols());
    require_shape("Linear.add_backward_input: dx", dx, weight.rows(), dy.cols());
    Product<S>::add_ab(weight, dy, dx);
  }

  /// dW += x dy'
  static void backward_weight(MatrixIn<S> dy, MatrixIn<S> x, MatrixOut<S> d_weight) {
    require_shape("Linear.backward_weight: x", x, x.rows(), dy.cols());
    require_shape("Linear.backward_weight: d_weight", d_weight, x.rows(), dy.rows());
    Product<S>::add_abt(x, dy, d_weight);
  }

  /// One token: x_t [in], y_t [out], which may not overlap. Reads the packed weight where `packed`
  /// has one. Allocates nothing.
  static void step(VectorIn<S> x_t, MatrixIn<S> weight, VectorOut<S> y_t,
                   const DecodeWeights* packed = nullptr) {
    eigen_assert(x_t.size() == weight.rows() && y_t.size() == weight.cols());
    if (const PackedMatrix* const matrix = find(packed, weight.data())) {
      if constexpr (std::same_as<S, float>) {
        const PackedProduct product{matrix, y_t.data()};
        packed->multiply(x_t.data(), {&product, 1});
      }
    } else {
      Product<S>::atb_column(weight, x_t, y_t);
    }
  }

  /// A weight [in, out], and where its product with one token goes, [out].
  struct TokenProjection {
    const Matrix<S>& weight;
    Vector<S>& y_t;
  };

  /// The same for several weights that read one token: threads meet once for all.
  ///   Linear<S>::step(x_t, {{p.q_proj, q_t}, {p.k_proj, k_t}}, packed);
  template <std::size_t size>
  static void step(VectorIn<S> x_t, const TokenProjection (&projections)[size],
                   const DecodeWeights* packed) {
    std::array<PackedProduct, size> products;
    std::size_t count = 0;
    for (const auto& [weight, y_t] : projections) {
      eigen_assert(x_t.size() == weight.rows() && y_t.size() == weight.cols());
      if (const PackedMatrix* const matrix = find(packed, weight.data())) {
        if constexpr (std::same_as<S, float>) products[count++] = {matrix, y_t.data()};
      } else {
        Product<S>::atb_column(weight, x_t, y_t);
      }
    }
    if constexpr (std::same_as<S, float>)
      if (count > 0) packed->multiply(x_t.data(), {products.data(), count});
  }

 private:
  static const PackedMatrix* find(const DecodeWeights* packed, const S* weight) {
    if constexpr (std::same_as<S, float>) return packed ? packed->find(weight) : nullptr;
    return nullptr;
  }
};

}  // namespace ttt
