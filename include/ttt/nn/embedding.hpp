/// @file
/// Embedding: y_t = E[:, id_t], with a table E [D, V] (the bytes of a PyTorch weight [V, D]).
/// Differentiates to dE[:, id_t] += dy_t; tokens with the same id are summed in their order.
#pragma once

#include <cstdint>
#include <span>

#include "ttt/core/check.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

/// Shapes: ids [T], each in {0, ..., V-1}; table, d_table [D, V]; y, dy [D, T].
/// Throws `std::invalid_argument` where a shape is wrong or an id out of range.
template <Scalar S>
struct Embedding {
  using Ids = std::span<const std::int32_t>;

  /// y_t = E[:, id_t]
  static void forward(Ids ids, MatrixIn<S> table, MatrixOut<S> y) {
    require_shape("Embedding.forward: y", y, table.rows(), length(ids));
    require_ids("Embedding.forward", ids, table.cols());
    parallel_blocks(length(ids), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) y.col(t) = table.col(id(ids, t));
    });
  }

  /// dE[:, id_t] += dy_t. Threads share the rows: each sees every token in its order.
  static void backward(MatrixIn<S> dy, Ids ids, MatrixOut<S> d_table) {
    require_shape("Embedding.backward: dy", dy, d_table.rows(), length(ids));
    require_ids("Embedding.backward", ids, d_table.cols());
    parallel_blocks(dy.rows(), row_block, [&](Index begin, Index size) {
      for (Index t = 0; t < dy.cols(); ++t)
        d_table.col(id(ids, t)).segment(begin, size) += dy.col(t).segment(begin, size);
    });
  }

  /// One token: y_t [D] = E[:, id].
  static void step(std::int32_t id, MatrixIn<S> table, VectorOut<S> y_t) {
    eigen_assert(y_t.size() == table.rows());
    require_ids("Embedding.step", Ids(&id, 1), table.cols());
    y_t = table.col(id);
  }

 private:
  /// Whole cache lines, so that threads do not write into each other's.
  static constexpr Index row_block = 128;

  static Index length(Ids ids) { return static_cast<Index>(ids.size()); }
  static Index id(Ids ids, Index t) { return ids[static_cast<std::size_t>(t)]; }

  static void require_ids(const char* what, Ids ids, Index vocabulary) {
    for (Index t = 0; t < length(ids); ++t)
      require(id(ids, t) >= 0 && id(ids, t) < vocabulary, what, ": the id at position ", t, " is ",
              id(ids, t), ", expected 0 to V - 1 with V = ", vocabulary);
  }
};

}  // namespace ttt
