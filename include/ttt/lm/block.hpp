/// @file
/// One block of a model, pre-norm residual:
///   h += conv(RMSNorm(h))                    causal, depthwise; if `pre_conv`
///   h += mixer(RMSNorm(h))                   one of `Mixers`: a TTT layer, attention, ...
///   h += SwiGLU(RMSNorm(h))                  if `intermediate` > 0
/// A block is itself a SequenceLayer; its parameters hold the mixer layer.
/// Source: Sun et al. 2024 (arXiv 2407.04620), figure 13; names of the official checkpoints.
#pragma once

#include <cmath>
#include <optional>
#include <variant>

#include "ttt/core/random.hpp"
#include "ttt/core/visit_index.hpp"
#include "ttt/layers/sequence_layer.hpp"
#include "ttt/nn/causal_conv.hpp"
#include "ttt/nn/rms_norm.hpp"
#include "ttt/nn/swiglu.hpp"

namespace ttt {

struct BlockConfig {
  Index width = 0;
  Index intermediate = 0;  ///< hidden width of the feed-forward part, 0: none
  bool pre_conv = false;   ///< a convolution before the mixer
  Index conv_kernel = 4;
  double rms_norm_epsilon = 1e-6;
  double initializer_range = 0.02;

  void validate() const {
    require(width > 0, "BlockConfig: width is ", width, ", expected a positive number");
    require(intermediate >= 0, "BlockConfig: intermediate is ", intermediate,
            ", expected 0 or a positive number");
    require(conv_kernel > 0, "BlockConfig: conv_kernel is ", conv_kernel,
            ", expected a positive number");
  }
};

template <SequenceLayer... Mixers>
class Block
    : public StreamCalls<Block<Mixers...>,
                         typename std::variant_alternative_t<0, std::variant<Mixers...>>::Scalar> {
 public:
  using Mixer = std::variant<Mixers...>;
  using Scalar = typename std::variant_alternative_t<0, Mixer>::Scalar;
  using S = Scalar;
  using Config = BlockConfig;
  using Calls = StreamCalls<Block, S>;
  using Calls::step;

  struct Parameters {
    Vector<S> conv_norm = {};    // [D]
    Matrix<S> conv_weight = {};  // [K, D]
    Vector<S> conv_bias = {};    // [D]
    Vector<S> seq_norm = {};     // [D]
    Mixer mixer;
    Vector<S> ffn_norm = {};  // [D]
    typename SwiGLU<S>::Parameters mlp = {};

    static auto fields(auto& self) {
      return std::tuple(field("conv.norm.weight", self.conv_norm),
                        field("conv.conv.weight", self.conv_weight, self.conv_weight.cols()),
                        field("conv.conv.bias", self.conv_bias),
                        field("seq_norm.weight", self.seq_norm),
                        field("seq_modeling_block", self.mixer),
                        field("ffn_norm.weight", self.ffn_norm), field("mlp", self.mlp));
    }
  };

  /// A point of a stream (see `mark`).
  struct Mark {
    Matrix<S> conv_tail;
    std::variant<decltype(mark(std::declval<const typename Mixers::State&>()))...> mixer;
  };

  struct State {
    Matrix<S> conv_tail;  // [D, K-1], empty without pre_conv
    std::variant<typename Mixers::State...> mixer;
    static auto fields(auto& self) {
      return std::tuple(field("conv_tail", self.conv_tail), field("mixer", self.mixer));
    }

    friend Mark mark(const State& state) {
      Mark point{state.conv_tail, {}};
      visit_index(state.mixer, [&](auto index, const auto& part) {
        point.mixer.template emplace<index>(mark(part));
      });
      return point;
    }
    friend void rewind(State& state, const Mark& point) {
      require(state.mixer.index() == point.mixer.index(), "rewind: the mark is of another mixer");
      state.conv_tail = point.conv_tail;
      visit_index(state.mixer,
                  [&](auto index, auto& part) { rewind(part, std::get<index>(point.mixer)); });
    }
  };

  struct Workspace {
    Matrix<S> n, m;           // [D, T]: a norm's output, a part's output
    Vector<S> h_t, n_t, m_t;  // [D]: one token
    typename SwiGLU<S>::Workspace mlp;
    std::tuple<std::optional<typename Mixers::Workspace>...> mixers;
  };

  struct Cache {
    std::vector<Index> lengths;
    Matrix<S> h_conv, conv_input;  // [D, T] with pre_conv
    std::vector<Matrix<S>> tails;  // before each sequence, with pre_conv
    Matrix<S> h_mixer, h_mlp;      // [D, T]: the residual stream before each part
    std::variant<typename Mixers::Cache...> mixer;
    typename SwiGLU<S>::Cache mlp;
  };

  Block(const Config& config, Mixer mixer, Random& random)
      : config_(config), parameters_{.mixer = std::move(mixer)} {
    config.validate();
    const Index D = config.width, K = config.conv_kernel, I = config.intermediate;
    const Index mixer_width =
        std::visit([](const auto& layer) { return layer.width(); }, parameters_.mixer);
    require(mixer_width == D, "Block: the mixer has width ", mixer_width, ", expected ", D);
    Parameters& p = parameters_;
    p.seq_norm.setOnes(D);
    if (config.pre_conv) {
      const double bound = 1 / std::sqrt(static_cast<double>(K));
      p.conv_norm.setOnes(D);
      p.conv_weight.resize(K, D);
      p.conv_bias.resize(D);
      random.fill_uniform(p.conv_weight, -bound, bound);
      random.fill_uniform(p.conv_bias, -bound, bound);
    }
    if (I > 0) {
      p.ffn_norm.setOnes(D);
      p.mlp = {Matrix<S>(D, I), Matrix<S>(D, I), Matrix<S>(I, D)};
      for (auto* weight : {&p.mlp.gate_proj, &p.mlp.up_proj, &p.mlp.down_proj})
        random.fill_normal(*weight, config.initializer_range);
    }
  }

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  const Mixer& mixer() const { return parameters_.mixer; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// With room for `capacity` tokens where a mixer's memory grows.
  State initial_state(Index capacity = 0) const {
    State state;
    if (config_.pre_conv) state.conv_tail.setZero(width(), config_.conv_kernel - 1);
    visit_index(mixer(), [&](auto index, const auto& layer) {
      state.mixer.template emplace<index>(ttt::initial_state(layer, capacity));
    });
    return state;
  }

  Workspace workspace(Index max_tokens) const {
    Workspace w;
    prepare(w, max_tokens);
    return w;
  }

  /// Adds what this block needs to a workspace that several blocks use one after another.
  void prepare(Workspace& w, Index max_tokens) const {
    for (auto* matrix : {&w.n, &w.m}) ensure_shape(*matrix, width(), max_tokens);
    for (auto* vector : {&w.h_t, &w.n_t, &w.m_t}) vector->resize(width());
    if (config_.intermediate > 0)
      w.mlp = SwiGLU<S>::workspace(width(), config_.intermediate, max_tokens);
    visit_index(mixer(), [&](auto index, const auto& layer) {
      auto& slot = std::get<index>(w.mixers);
      if (!slot) slot = layer.workspace(max_tokens);
    });
  }

  void check(const State& state) const {
    const Index tail = config_.pre_conv ? config_.conv_kernel - 1 : 0;
    require_shape("Block: the state's conv_tail", state.conv_tail, tail > 0 ? width() : 0, tail);
    require(state.mixer.index() == mixer().index(), "Block: the state belongs to another mixer");
    visit_index(mixer(),
                [&](auto index, const auto& layer) { layer.check(std::get<index>(state.mixer)); });
  }

  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& w, Cache* cache, const RunOptions& options = {}) const {
    this->require_batch("Block.forward", x, lengths, states, y);
    for (auto* matrix : {&w.n, &w.m}) ensure_shape(*matrix, width(), x.cols());
    if (cache) cache->lengths.assign(lengths.begin(), lengths.end());
    y = x;
    if (config_.pre_conv) forward_conv(lengths, states, y, w, cache);
    forward_mixer(lengths, states, y, w, cache, options);
    if (config_.intermediate > 0) forward_mlp(y, w, cache);
  }

  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& w) const {
    this->require_backward("Block.backward", cache.h_mixer, cache.lengths.size(), dy, d_states, dx);
    const Parameters& p = parameters_;
    ensure_shape(w.n, width(), dy.cols());
    dx = dy;
    if (config_.intermediate > 0) {
      SwiGLU<S>::backward(dx, cache.mlp, p.mlp, w.n, grad.mlp, w.mlp);
      RMSNorm<S>::add_backward(w.n, cache.h_mlp, p.ffn_norm, config_.rms_norm_epsilon, dx,
                               grad.ffn_norm);
    }
    backward_mixer(cache, d_states, dx, grad, w);
    if (config_.pre_conv) backward_conv(cache, d_states, dx, grad, w);
  }

  void backward_initial_state(const State& d_state, Parameters& grad) const {
    visit_index(mixer(), [&](auto index, const auto& layer) {
      layer.backward_initial_state(std::get<index>(d_state.mixer),
                                   std::get<index>(grad.mixer).parameters());
    });
  }

  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
            const RunOptions& options = {}) const {
    const Parameters& p = parameters_;
    const double epsilon = config_.rms_norm_epsilon;
    w.h_t = x_t;
    if (config_.pre_conv) {
      RMSNorm<S>::step(w.h_t, p.conv_norm, epsilon, w.n_t);
      CausalConv<S>::step(w.n_t, p.conv_weight, p.conv_bias, state.conv_tail, w.m_t);
      w.h_t += w.m_t;
    }
    RMSNorm<S>::step(w.h_t, p.seq_norm, epsilon, w.n_t);
    visit_index(mixer(), [&](auto index, const auto& layer) {
      layer.step(w.n_t, std::get<index>(state.mixer), w.m_t, *std::get<index>(w.mixers), options);
    });
    w.h_t += w.m_t;
    if (config_.intermediate > 0) {
      RMSNorm<S>::step(w.h_t, p.ffn_norm, epsilon, w.n_t);
      SwiGLU<S>::step(w.n_t, p.mlp, w.m_t, w.mlp, options.decode_weights);
      w.h_t += w.m_t;
    }
    y_t = w.h_t;
  }

 private:
  template <std::size_t I>
  static auto mixer_states(States<State> states) {
    std::vector<std::variant_alternative_t<I, decltype(State::mixer)>*> result;
    for (State* state : states) result.push_back(&std::get<I>(state->mixer));
    return result;
  }

  void forward_conv(Lengths lengths, States<State> states, MatrixOut<S> h, Workspace& w,
                    Cache* cache) const {
    const Parameters& p = parameters_;
    RMSNorm<S>::forward(h, p.conv_norm, config_.rms_norm_epsilon, w.n);
    if (cache) {
      cache->h_conv = h;
      cache->conv_input = w.n;
      cache->tails.clear();
    }
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); begin += lengths[s++]) {
      if (cache) cache->tails.push_back(states[s]->conv_tail);
      CausalConv<S>::forward(w.n.middleCols(begin, lengths[s]), p.conv_weight, p.conv_bias,
                             states[s]->conv_tail, w.m.middleCols(begin, lengths[s]));
    }
    h += w.m;
  }

  void forward_mixer(Lengths lengths, States<State> states, MatrixOut<S> h, Workspace& w,
                     Cache* cache, const RunOptions& options) const {
    RMSNorm<S>::forward(h, parameters_.seq_norm, config_.rms_norm_epsilon, w.n);
    if (cache) cache->h_mixer = h;
    visit_index(mixer(), [&](auto index, const auto& layer) {
      auto& slot = std::get<index>(w.mixers);
      if (!slot) slot = layer.workspace(h.cols());
      if (cache && cache->mixer.index() != index) cache->mixer.template emplace<index>();
      layer.forward_batch(w.n, lengths, mixer_states<index>(states), w.m, *slot,
                          cache ? &std::get<index>(cache->mixer) : nullptr, options);
    });
    h += w.m;
  }

  void forward_mlp(MatrixOut<S> h, Workspace& w, Cache* cache) const {
    const Parameters& p = parameters_;
    RMSNorm<S>::forward(h, p.ffn_norm, config_.rms_norm_epsilon, w.n);
    if (cache) {
      cache->h_mlp = h;
      SwiGLU<S>::forward(w.n, p.mlp, w.m, w.mlp, cache->mlp);
    } else {
      SwiGLU<S>::forward(w.n, p.mlp, w.m, w.mlp);
    }
    h += w.m;
  }

  void backward_mixer(const Cache& cache, States<State> d_states, MatrixOut<S> dh, Parameters& grad,
                      Workspace& w) const {
    visit_index(mixer(), [&](auto index, const auto& layer) {
      layer.backward_batch(dh, std::get<index>(cache.mixer), mixer_states<index>(d_states), w.n,
                           std::get<index>(grad.mixer).parameters(), *std::get<index>(w.mixers));
    });
    RMSNorm<S>::add_backward(w.n, cache.h_mixer, parameters_.seq_norm, config_.rms_norm_epsilon, dh,
                             grad.seq_norm);
  }

  void backward_conv(const Cache& cache, States<State> d_states, MatrixOut<S> dh, Parameters& grad,
                     Workspace& w) const {
    const Parameters& p = parameters_;
    Index begin = 0;
    for (std::size_t s = 0; s < d_states.size(); begin += cache.lengths[s++]) {
      const Index size = cache.lengths[s];
      CausalConv<S>::backward(dh.middleCols(begin, size), cache.conv_input.middleCols(begin, size),
                              cache.tails[s], p.conv_weight, d_states[s]->conv_tail,
                              w.n.middleCols(begin, size), grad.conv_weight, grad.conv_bias);
    }
    RMSNorm<S>::add_backward(w.n, cache.h_conv, p.conv_norm, config_.rms_norm_epsilon, dh,
                             grad.conv_norm);
  }

  Config config_;
  Parameters parameters_;
};

}  // namespace ttt
