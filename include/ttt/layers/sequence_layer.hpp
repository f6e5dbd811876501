/// @file
/// The concept that all layers satisfy, and the calls that they share.
///
/// A layer maps a sequence x [width, T] to y [width, T], causally. Its one operation is to advance
/// a stream by any number of tokens. Five types:
///   Config      sizes and switches; a plain value
///   Parameters  what the outer loop learns; the same type holds gradients
///   State       what a stream carries from token to token; never hidden in the layer
///   Workspace   scratch memory, one per thread; sized by `workspace(max_tokens)`, grows on demand
///   Cache       what one forward leaves behind for one backward
/// Layers are const while they run, so threads share them.
#pragma once

#include <concepts>
#include <numeric>
#include <span>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/fields.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/decode_weights.hpp"

namespace ttt {

/// What a caller may vary from call to call.
struct RunOptions {
  /// Scales the learning rate of the inner loop: below 1 while training warms up, 0 to switch
  /// learning while reading off (what a rule forgets it forgets all the same). Layers without an
  /// inner loop ignore it.
  double inner_rate_scale = 1;
  /// Packed weights that `step` reads in place of the layer's own, with their threads; made from
  /// this very layer or model (nn/decode_weights.hpp). Null: the layer's own, on one thread.
  const DecodeWeights* decode_weights = nullptr;

  /// Parts in which `step` does independent work of its heads that reads `numbers` of type S.
  template <class S>
  Index step_parts(Index numbers) const {
    const Index bytes = numbers * static_cast<Index>(sizeof(S));
    return decode_weights ? decode_weights->parts(bytes) : 1;
  }
};

/// Tokens of each sequence of a batch; the sequences stand side by side in one matrix.
using Lengths = std::span<const Index>;
/// One state for each sequence of a batch.
template <class State>
using States = std::span<State* const>;

template <class L>
concept LayerTypes = requires {
  typename L::Scalar;
  typename L::Config;
  typename L::Parameters;
  typename L::State;
  typename L::Workspace;
  typename L::Cache;
}
&&Scalar<typename L::Scalar>&& HasFields<typename L::Parameters>&& HasFields<typename L::State>&&
    std::copyable<typename L::State>;

template <class L>
concept SequenceLayer = LayerTypes<L> &&
    requires(const L& layer, L& mutable_layer, const Matrix<typename L::Scalar>& x,
             Matrix<typename L::Scalar>& y, const Vector<typename L::Scalar>& x_t,
             Vector<typename L::Scalar>& y_t, typename L::State& state,
             const typename L::State& const_state, typename L::Workspace& workspace,
             typename L::Cache& cache, const typename L::Cache& const_cache,
             typename L::Parameters& grad, const RunOptions& options, Lengths lengths,
             States<typename L::State> states) {
  { layer.width() } -> std::same_as<Index>;
  { layer.config() } -> std::same_as<const typename L::Config&>;
  { layer.parameters() } -> std::same_as<const typename L::Parameters&>;
  { mutable_layer.parameters() } -> std::same_as<typename L::Parameters&>;
  { layer.initial_state() } -> std::same_as<typename L::State>;
  { layer.workspace(Index{1}) } -> std::same_as<typename L::Workspace>;
  layer.check(const_state);
  layer.forward(x, state, y, workspace, options);
  layer.forward(x, state, y, workspace, cache, options);
  layer.backward(x, const_cache, state, y, grad, workspace);
  layer.backward_initial_state(const_state, grad);
  layer.step(x_t, state, y_t, workspace, options);
  layer.forward_batch(x, lengths, states, y, workspace, &cache, options);
  layer.backward_batch(x, const_cache, states, y, grad, workspace);
  layer.step_batch(x, states, y, workspace, options);
};

/// Calls that follow from a layer's own `forward_batch`, `backward_batch` and `step`.
/// `Layer` derives from `StreamCalls<Layer, S>` and says `using StreamCalls<Layer, S>::step;`.
template <class Layer, class S>
class StreamCalls {
 public:
  /// Tokens that inference takes through a layer at once: scratch memory does not grow beyond it.
  static constexpr Index inference_tile = 1024;

  /// Advances `state` by the T tokens of x [width, T]; writes y [width, T].
  /// Throws `std::invalid_argument` where a shape is wrong.
  template <class State, class Workspace>
  void forward(MatrixIn<S> x, State& state, MatrixOut<S> y, Workspace& workspace,
               const RunOptions& options = {}) const {
    require_shape("forward: y", y, x.rows(), x.cols());
    State* const states[] = {&state};
    Index begin = 0;
    do {  // once for T = 0 too: its arguments are checked
      const Index size = std::min(inference_tile, x.cols() - begin);
      self().forward_batch(x.middleCols(begin, size), Lengths(&size, 1), states,
                           y.middleCols(begin, size), workspace, nullptr, options);
      begin += size;
    } while (begin < x.cols());
  }

  /// The same numbers; `cache` then holds what `backward` needs.
  template <class State, class Workspace, class Cache>
  requires(!std::same_as<std::remove_const_t<Cache>, RunOptions>) void forward(
      MatrixIn<S> x, State& state, MatrixOut<S> y, Workspace& workspace, Cache& cache,
      const RunOptions& options = {}) const {
    State* const states[] = {&state};
    const Index size = x.cols();
    self().forward_batch(x, Lengths(&size, 1), states, y, workspace, &cache, options);
  }

  /// The same without a workspace: allocates one.
  template <class State>
  void forward(MatrixIn<S> x, State& state, MatrixOut<S> y) const {
    auto workspace = self().workspace(std::min(inference_tile, x.cols()));
    forward(x, state, y, workspace);
  }

  /// Given dy = dLoss/dy and, in `d_state`, dLoss/d(state after): writes dx, replaces `d_state` by
  /// dLoss/d(state before), and adds into `grad`.
  template <class Cache, class State, class Parameters, class Workspace>
  void backward(MatrixIn<S> dy, const Cache& cache, State& d_state, MatrixOut<S> dx,
                Parameters& grad, Workspace& workspace) const {
    State* const d_states[] = {&d_state};
    self().backward_batch(dy, cache, d_states, dx, grad, workspace);
  }

  /// One token without a workspace: allocates one.
  template <class State>
  void step(VectorIn<S> x, State& state, VectorOut<S> y) const {
    auto workspace = self().workspace(1);
    self().step(x, state, y, workspace);
  }

  /// One token of each of several streams, a column each.
  template <class State, class Workspace>
  void step_batch(MatrixIn<S> x, std::span<State* const> states, MatrixOut<S> y,
                  Workspace& workspace, const RunOptions& options = {}) const {
    const std::vector<Index> lengths(states.size(), 1);
    self().forward_batch(x, lengths, states, y, workspace, nullptr, options);
  }

 protected:
  /// What every `forward_batch` requires of its arguments; `what` names the layer's function.
  template <class State>
  void require_batch(const char* what, MatrixIn<S> x, Lengths lengths, States<State> states,
                     MatrixIn<S> y) const {
    require(x.rows() == self().width(), what, ": x has ", x.rows(), " rows, expected width ",
            self().width());
    require(y.rows() == x.rows() && y.cols() == x.cols(), what, ": y has shape ", y.rows(), " x ",
            y.cols(), ", expected the shape of x, ", x.rows(), " x ", x.cols());
    require(lengths.size() == states.size(), what, ": ", lengths.size(), " lengths for ",
            states.size(), " states");
    for (const Index length : lengths)
      require(length >= 0, what, ": a sequence has the negative length ", length);
    const Index tokens = std::accumulate(lengths.begin(), lengths.end(), Index{0});
    require(tokens == x.cols(), what, ": the lengths sum to ", tokens, ", x has ", x.cols(),
            " columns");
    for (const State* state : states) self().check(*state);
  }

  /// What every `backward_batch` requires after a forward of `sequences` sequences that gave
  /// x_before its columns.
  template <class State>
  void require_backward(const char* what, MatrixIn<S> x_before, std::size_t sequences,
                        MatrixIn<S> dy, States<State> d_states, MatrixIn<S> dx) const {
    require_shape(concat(what, ": dy").c_str(), dy, self().width(), x_before.cols());
    require_shape(concat(what, ": dx").c_str(), dx, self().width(), x_before.cols());
    require(d_states.size() == sequences, what, ": ", d_states.size(), " adjoint states for ",
            sequences, " sequences");
    for (const State* d_state : d_states) self().check(*d_state);
  }

  /// `grad` must have the shapes of the layer's own parameters.
  template <class Parameters>
  void require_gradient(const char* what, const Parameters& grad) const {
    for_each_tensor(
        [&](const TensorInfo& info, const auto& parameter, const auto& gradient) {
          if (parameter.rows() != gradient.rows() || parameter.cols() != gradient.cols())
            require_shape(concat(what, ": grad's ", info.name).c_str(), gradient, parameter.rows(),
                          parameter.cols());
        },
        self().parameters(), grad);
  }

 private:
  const Layer& self() const { return static_cast<const Layer&>(*this); }
};

/// Several streams, each with its own state: x holds their tokens side by side. Equals separate
/// calls (to rounding); projections run as one product, inner loops in parallel.
template <SequenceLayer L>
void forward_batch(const L& layer, MatrixIn<typename L::Scalar> x, Lengths lengths,
                   std::span<typename L::State> states, MatrixOut<typename L::Scalar> y,
                   typename L::Workspace& workspace, const RunOptions& options = {}) {
  std::vector<typename L::State*> pointers;
  for (auto& state : states) pointers.push_back(&state);
  layer.forward_batch(x, lengths, pointers, y, workspace, nullptr, options);
}

/// One token of each of several streams, a column each.
template <SequenceLayer L>
void step_batch(const L& layer, MatrixIn<typename L::Scalar> x, std::span<typename L::State> states,
                MatrixOut<typename L::Scalar> y, typename L::Workspace& workspace,
                const RunOptions& options = {}) {
  std::vector<typename L::State*> pointers;
  for (auto& state : states) pointers.push_back(&state);
  layer.step_batch(x, States<typename L::State>(pointers), y, workspace, options);
}

/// A new stream with room for `capacity` tokens, where a layer's memory grows with the tokens that
/// it has read; the layer's initial state elsewhere.
template <SequenceLayer L>
typename L::State initial_state(const L& layer, Index capacity) {
  if constexpr (requires { layer.initial_state(capacity); }) {
    return layer.initial_state(capacity);
  } else {
    return layer.initial_state();
  }
}

/// A point of a stream to come back to: a copy for recurrent layers, a length for attention.
template <class State>
State mark(const State& state) {
  return state;
}
template <class State>
void rewind(State& state, const State& marked) {
  state = marked;
}

}  // namespace ttt
