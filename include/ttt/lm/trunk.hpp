/// @file
/// The part that all models share: a list of blocks, each holding one of the named mixers, and a
/// final RMSNorm. One mixer is the usual case; several make a hybrid. A trunk is a SequenceLayer.
#pragma once

#include "ttt/lm/block.hpp"

namespace ttt {

/// Sizes of a trunk. `mixers` holds one configuration for each kind of mixer, `layer_types` says by
/// index which kind each block uses (empty: the first everywhere).
template <SequenceLayer... Mixers>
struct TrunkConfig {
  Index depth = 1;  ///< blocks
  BlockConfig block;
  std::tuple<typename Mixers::Config...> mixers;
  std::vector<std::size_t> layer_types;

  std::size_t layer_type(Index block_index) const {
    return layer_types.empty() ? 0 : layer_types[static_cast<std::size_t>(block_index)];
  }

  void validate() const {
    require(depth > 0, "TrunkConfig: depth is ", depth, ", expected a positive number");
    block.validate();
    require(layer_types.empty() || std::ssize(layer_types) == depth,
            "TrunkConfig: layer_types has ", layer_types.size(),
            " entries, expected one for each of the ", depth, " blocks");
    for (const std::size_t type : layer_types)
      require(type < sizeof...(Mixers), "TrunkConfig: layer type ", type, ", expected 0 to ",
              sizeof...(Mixers) - 1);
  }
};

template <SequenceLayer... Mixers>
class Trunk : public StreamCalls<Trunk<Mixers...>, typename Block<Mixers...>::Scalar> {
 public:
  using BlockType = Block<Mixers...>;
  using Scalar = typename BlockType::Scalar;
  using S = Scalar;
  using Config = TrunkConfig<Mixers...>;
  using Calls = StreamCalls<Trunk, S>;
  using Calls::step;

  struct Parameters {
    std::vector<BlockType> layers;
    Vector<S> norm;  // [D]
    static auto fields(auto& self) {
      return std::tuple(field("layers", self.layers), field("norm.weight", self.norm));
    }
  };

  /// A point of a stream (see `mark`).
  struct Mark {
    std::vector<typename BlockType::Mark> layers;
  };

  struct State {
    std::vector<typename BlockType::State> layers;
    static auto fields(auto& self) { return std::tuple(field("layers", self.layers)); }

    friend Mark mark(const State& state) {
      Mark point;
      for (const auto& layer : state.layers) point.layers.push_back(mark(layer));
      return point;
    }
    friend void rewind(State& state, const Mark& point) {
      require(state.layers.size() == point.layers.size(), "rewind: the mark has ",
              point.layers.size(), " layers, expected ", state.layers.size());
      for (std::size_t i = 0; i < state.layers.size(); ++i)
        rewind(state.layers[i], point.layers[i]);
    }
  };

  struct Workspace {
    typename BlockType::Workspace block;
    Matrix<S> h;                           // [D, T]
    Vector<S> h_t;                         // [D]
    typename BlockType::Cache recomputed;  // of the block whose backward runs
    Matrix<S> y;                           // [D, T], its output, which nobody reads
  };

  struct Cache {
    /// To be set before a forward: keeps only what enters each block, and backward runs the block's
    /// forward again. Up to a third more work; the memory of one block instead of all.
    bool recompute = false;
    std::vector<typename BlockType::Cache> layers;  // empty with `recompute`
    std::vector<Matrix<S>> inputs;                  // [D, T] of each block, with `recompute`
    std::vector<std::vector<typename BlockType::State>> states;  // before it, with `recompute`
    std::vector<Index> lengths;
    RunOptions options;
    Matrix<S> h;  // [D, T] before the final norm
  };

  Trunk(const Config& config, Random& random) : config_(config) {
    config.validate();
    for (Index i = 0; i < config.depth; ++i)
      parameters_.layers.emplace_back(config.block, make_mixer(config, i, random), random);
    parameters_.norm.setOnes(config.block.width);
  }

  Index width() const { return config_.block.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// With room for `capacity` tokens where a mixer's memory grows.
  State initial_state(Index capacity = 0) const {
    State state;
    for (const auto& layer : parameters_.layers)
      state.layers.push_back(layer.initial_state(capacity));
    return state;
  }

  Workspace workspace(Index max_tokens) const {
    Workspace w;
    for (const auto& layer : parameters_.layers) layer.prepare(w.block, max_tokens);
    w.h.resize(width(), max_tokens);
    w.h_t.resize(width());
    return w;
  }

  void check(const State& state) const {
    require(state.layers.size() == parameters_.layers.size(), "Trunk: the state has ",
            state.layers.size(), " layers, expected ", parameters_.layers.size());
    for (std::size_t i = 0; i < state.layers.size(); ++i)
      parameters_.layers[i].check(state.layers[i]);
  }

  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& w, Cache* cache, const RunOptions& options = {}) const {
    this->require_batch("Trunk.forward", x, lengths, states, y);
    ensure_shape(w.h, width(), x.cols());
    w.h = x;
    if (cache) begin(lengths, options, *cache);
    for (std::size_t i = 0; i < parameters_.layers.size(); ++i) {
      const auto block_states = layer_states(states, i);
      const bool keeps = cache && !cache->recompute;
      if (cache && cache->recompute) {
        cache->inputs[i] = w.h;
        for (const auto* state : block_states) cache->states[i].push_back(*state);
      }
      parameters_.layers[i].forward_batch(w.h, lengths, block_states, w.h, w.block,
                                          keeps ? &cache->layers[i] : nullptr, options);
    }
    if (cache) cache->h = w.h;
    RMSNorm<S>::forward(w.h, parameters_.norm, config_.block.rms_norm_epsilon, y);
  }

  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& w) const {
    this->require_backward("Trunk.backward", cache.h, cache.lengths.size(), dy, d_states, dx);
    ensure_shape(w.h, width(), dy.cols());
    w.h.setZero();
    RMSNorm<S>::add_backward(dy, cache.h, parameters_.norm, config_.block.rms_norm_epsilon, w.h,
                             grad.norm);
    for (std::size_t i = parameters_.layers.size(); i-- > 0;)
      parameters_.layers[i].backward_batch(w.h, block_cache(i, cache, w), layer_states(d_states, i),
                                           w.h, grad.layers[i].parameters(), w.block);
    dx = w.h;
  }

  void backward_initial_state(const State& d_state, Parameters& grad) const {
    for (std::size_t i = 0; i < parameters_.layers.size(); ++i)
      parameters_.layers[i].backward_initial_state(d_state.layers[i], grad.layers[i].parameters());
  }

  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
            const RunOptions& options = {}) const {
    w.h_t = x_t;
    for (std::size_t i = 0; i < parameters_.layers.size(); ++i)
      parameters_.layers[i].step(w.h_t, state.layers[i], w.h_t, w.block, options);
    RMSNorm<S>::step(w.h_t, parameters_.norm, config_.block.rms_norm_epsilon, y_t);
  }

  /// What the forward of block i left behind: kept in `cache`, or computed again into `w`.
  const typename BlockType::Cache& block_cache(std::size_t i, const Cache& cache,
                                               Workspace& w) const {
    if (!cache.layers.empty()) return cache.layers[i];
    auto states = cache.states[i];
    std::vector<typename BlockType::State*> pointers;
    for (auto& state : states) pointers.push_back(&state);
    ensure_shape(w.y, width(), cache.h.cols());
    parameters_.layers[i].forward_batch(cache.inputs[i], cache.lengths, pointers, w.y, w.block,
                                        &w.recomputed, cache.options);
    return w.recomputed;
  }

 private:
  void begin(Lengths lengths, const RunOptions& options, Cache& cache) const {
    const std::size_t blocks = parameters_.layers.size();
    cache.lengths.assign(lengths.begin(), lengths.end());
    cache.options = options;
    cache.options.decode_weights = nullptr;  // for `step` alone
    cache.layers.resize(cache.recompute ? 0 : blocks);
    cache.inputs.resize(cache.recompute ? blocks : 0);
    cache.states.assign(cache.recompute ? blocks : 0, {});
  }

  static std::variant<Mixers...> make_mixer(const Config& config, Index block, Random& random) {
    std::optional<std::variant<Mixers...>> mixer;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((config.layer_type(block) == I
            ? static_cast<void>(
                  mixer.emplace(std::in_place_index<I>, std::get<I>(config.mixers), random))
            : void()),
       ...);
    }
    (std::index_sequence_for<Mixers...>{});
    return std::move(*mixer);
  }

  static std::vector<typename BlockType::State*> layer_states(States<State> states, std::size_t i) {
    std::vector<typename BlockType::State*> result;
    for (State* state : states) result.push_back(&state->layers[i]);
    return result;
  }

  Config config_;
  Parameters parameters_;
};

}  // namespace ttt
