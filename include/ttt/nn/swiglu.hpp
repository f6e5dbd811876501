/// @file
/// Gated feed-forward network (Shazeer 2020, arXiv 2002.05202, SwiGLU), without biases:
///   g = gate x    u = up x    h = silu(g) o u    y = down h,    silu(g) = g s,  s = sigmoid(g)
/// Differentiates, with q = dh o s, to
///   dh = down' dy    du = q o g    dg = q o u o (1 + g o (1 - s))    dx = gate' dg + up' du
#pragma once

#include <algorithm>
#include <tuple>

#include "ttt/core/check.hpp"
#include "ttt/core/fields.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/linear.hpp"

namespace ttt {

/// Shapes: x, y, dx, dy [D, T]; g, u, h [I, T].
/// Throws `std::invalid_argument` where a shape is wrong; `step` only asserts.
template <Scalar S>
struct SwiGLU {
  struct Parameters {
    Matrix<S> gate_proj;  // [D, I]
    Matrix<S> up_proj;    // [D, I]
    Matrix<S> down_proj;  // [I, D]
    static auto fields(auto& self) {
      return std::tuple(streamed(field("gate_proj.weight", self.gate_proj)),
                        streamed(field("up_proj.weight", self.up_proj)),
                        streamed(field("down_proj.weight", self.down_proj)));
    }
  };

  struct Cache {
    Matrix<S> x;     // [D, T]
    Matrix<S> gate;  // [I, T], g before the activation
    Matrix<S> up;    // [I, T]
  };

  /// Its matrices may have more columns than there are tokens; the first T are used.
  struct Workspace {
    Matrix<S> gate;    // [I, T]: g, then h; backward: h, then dg
    Matrix<S> up;      // [I, T]: u; backward: dh, then du
    Vector<S> gate_t;  // [I], for `step`
    Vector<S> up_t;    // [I], for `step`
  };

  /// Scratch memory for `max_tokens` tokens of width D, `hidden` = I. (The products write straight
  /// into the results, so that nothing here depends on D.)
  static Workspace workspace(Index /*width*/, Index hidden, Index max_tokens) {
    return {Matrix<S>(hidden, max_tokens), Matrix<S>(hidden, max_tokens), Vector<S>(hidden),
            Vector<S>(hidden)};
  }

  static void forward(MatrixIn<S> x, const Parameters& parameters, MatrixOut<S> y,
                      Workspace& workspace) {
    reserve(workspace, parameters.gate_proj.cols(), x.cols());
    auto gate = workspace.gate.leftCols(x.cols());
    auto up = workspace.up.leftCols(x.cols());
    Linear<S>::forward(x, {{parameters.gate_proj, gate}, {parameters.up_proj, up}});
    activate(gate, up, gate);
    Linear<S>::forward(gate, parameters.down_proj, y);
  }

  /// The same numbers; `cache` then holds what `backward` needs.
  static void forward(MatrixIn<S> x, const Parameters& parameters, MatrixOut<S> y,
                      Workspace& workspace, Cache& cache) {
    const Index hidden = parameters.gate_proj.cols();
    reserve(workspace, hidden, x.cols());
    ensure_shape(cache.gate, hidden, x.cols());
    ensure_shape(cache.up, hidden, x.cols());
    cache.x = x;
    auto h = workspace.gate.leftCols(x.cols());
    Linear<S>::forward(x, {{parameters.gate_proj, cache.gate}, {parameters.up_proj, cache.up}});
    activate(cache.gate, cache.up, h);
    Linear<S>::forward(h, parameters.down_proj, y);
  }

  /// Overwrites dx, ADDS into grad.
  static void backward(MatrixIn<S> dy, const Cache& cache, const Parameters& parameters,
                       MatrixOut<S> dx, Parameters& grad, Workspace& workspace) {
    require_shape("SwiGLU.backward: dy", dy, cache.x.rows(), cache.x.cols());
    require_shape("SwiGLU.backward: dx", dx, cache.x.rows(), cache.x.cols());
    reserve(workspace, cache.gate.rows(), dy.cols());
    auto gate = workspace.gate.leftCols(dy.cols());
    auto up = workspace.up.leftCols(dy.cols());

    activate(cache.gate, cache.up, gate);
    Linear<S>::backward_weight(dy, gate, grad.down_proj);
    Linear<S>::backward_input(dy, parameters.down_proj, up);
    backward_activation(cache, gate, up);
    Linear<S>::backward_weight(gate, cache.x, grad.gate_proj);
    Linear<S>::backward_weight(up, cache.x, grad.up_proj);
    Linear<S>::backward_input(gate, parameters.gate_proj, dx);
    Linear<S>::add_backward_input(up, parameters.up_proj, dx);
  }

  /// One token: x_t, y_t [D]. Allocates nothing in a workspace of the right size.
  static void step(VectorIn<S> x_t, const Parameters& parameters, VectorOut<S> y_t,
                   Workspace& workspace, const DecodeWeights* packed = nullptr) {
    const Index hidden = parameters.gate_proj.cols();
    if (workspace.gate_t.size() != hidden) workspace.gate_t.resize(hidden);
    if (workspace.up_t.size() != hidden) workspace.up_t.resize(hidden);
    Linear<S>::step(
        x_t, {{parameters.gate_proj, workspace.gate_t}, {parameters.up_proj, workspace.up_t}},
        packed);
    workspace.gate_t.array() *= sigmoid(workspace.gate_t.array()) * workspace.up_t.array();
    Linear<S>::step(workspace.gate_t, parameters.down_proj, y_t, packed);
  }

 private:
  template <class Array>
  static auto sigmoid(const Array& g) {
    return (S(1) + (-g).exp()).inverse();
  }

  /// Never shrinks, so that a shorter piece costs no allocation.
  static void reserve(Workspace& workspace, Index hidden, Index tokens) {
    ensure_shape(workspace.gate, hidden, std::max(tokens, workspace.gate.cols()));
    ensure_shape(workspace.up, hidden, std::max(tokens, workspace.up.cols()));
  }

  /// h = g s u; h may be the memory of g.
  static void activate(MatrixIn<S> gate, MatrixIn<S> up, MatrixOut<S> h) {
    parallel_blocks(h.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) {
        const auto g = gate.col(t).array();
        h.col(t).array() = g * sigmoid(g) * up.col(t).array();
      }
    });
  }

  /// d_up: dh in, du out; d_gate: dg out. Works in place, a column of each at a time.
  static void backward_activation(const Cache& cache, MatrixOut<S> d_gate, MatrixOut<S> d_up) {
    parallel_blocks(d_up.cols(), token_block, [&](Index begin, Index size) {
      for (Index t = begin; t < begin + size; ++t) {
        const auto g = cache.gate.col(t).array();
        auto dg = d_gate.col(t).array();
        auto du = d_up.col(t).array();
        dg = sigmoid(g);
        du *= dg;                                                      // q = dh o s
        dg = du * cache.up.col(t).array() * (S(1) + g * (S(1) - dg));  // dg is s until here
        du *= g;
      }
    });
  }
};

}  // namespace ttt
