/// @file
/// Causal softmax attention with rotary positions, full or over a sliding window: the baseline
/// whose memory grows with the stream.
///   q_t, k_t = R_t W_q'x_t, R_t W_k'x_t    v_t = W_v'x_t      (R_t: rotary, absolute position)
///   z_t      = sum_s softmax_s(k_s'q_t / sqrt(f)) v_s          s in (t - w, t], each head alone
///   y_t      = W_o'z_t
/// Heads of queries may share keys and values (grouped queries, Ainslie et al. 2023).
/// Source: Vaswani et al. 2017 (arXiv 1706.03762), as LlamaAttention of Hugging Face computes it.
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include "ttt/layers/attention_heads.hpp"
#include "ttt/layers/attention_memory.hpp"
#include "ttt/layers/attention_step.hpp"
#include "ttt/layers/sequence_layer.hpp"
#include "ttt/nn/linear.hpp"
#include "ttt/nn/rotary.hpp"

namespace ttt {

template <ttt::Scalar S>
class Attention : public StreamCalls<Attention<S>, S> {
 public:
  using Scalar = S;
  using Config = AttentionConfig;
  using Parameters = AttentionParameters<S>;
  using State = AttentionState<S>;
  using Workspace = AttentionWorkspace<S>;
  using Cache = AttentionCache<S>;
  using Calls = StreamCalls<Attention<S>, S>;
  using Calls::step;

  /// Positions whose rotations are tabulated; later ones are computed when they are needed.
  static constexpr Index tabulated_positions = 4096;

  /// Normal initialization. Throws `std::invalid_argument` where the configuration is invalid.
  explicit Attention(const Config& config, Random&& random = Random(0))
      : Attention(config, random) {}
  Attention(const Config& config, Random& random)
      : config_((config.validate(), config)),
        rotary_(config.channels(), config.rope_theta),
        parameters_(Parameters::initial(config, random)) {
    rotary_.reserve(tabulated_positions);
  }

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// A new stream. `capacity`: tokens that it will have room for without allocating; a window
  /// always has its room.
  State initial_state(Index capacity = 0) const {
    require(capacity >= 0, "Attention.initial_state: capacity is ", capacity,
            ", expected at least 0");
    const Index columns = config_.window > 0 ? config_.window : capacity;
    const GrowingColumns<S> memory(config_.key_rows(), columns);
    return {0, config_.window, memory, memory};
  }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it.
  Workspace workspace(Index max_tokens) const {
    Workspace w;
    reserve(w.activations, max_tokens);
    for (auto* matrix : {&w.k, &w.v}) ensure_shape(*matrix, config_.key_rows(), max_tokens);
    for (auto* vector : {&w.q_t, &w.out_t}) vector->resize(config_.query_rows());
    for (auto* vector : {&w.k_t, &w.v_t}) vector->resize(config_.key_rows());
    for (auto* vector : {&w.highest, &w.sum}) vector->resize(config_.heads);
    w.scores.resize(AttentionStep<S>::keys_at_once, config_.heads);
    return w;
  }

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require(state.window == config_.window, "Attention: the state's window is ", state.window,
            ", expected ", config_.window);
    require(state.length >= 0, "Attention: the state's length is ", state.length,
            ", expected at least 0");
    const Index columns = config_.window > 0 ? config_.window : state.keys.capacity();
    require_shape("Attention: the state's keys", state.keys.matrix(), config_.key_rows(), columns);
    require_shape("Attention: the state's values", state.values.matrix(), config_.key_rows(),
                  columns);
    require(config_.window > 0 || state.length <= columns, "Attention: the state has ", columns,
            " columns, expected at least its length ", state.length);
  }

  /// Advances several streams: x, y [D, sum of lengths]. `cache` may be null (inference).
  /// Throws `std::invalid_argument` where a shape is wrong.
  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& w, Cache* cache, const RunOptions& = {}) const;

  /// Given dy: writes dx, replaces each d_state (adjoint of the state after) by the adjoint of the
  /// state before, and adds into `grad`.
  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& w) const;

  /// Every stream begins with nothing, which is not learned.
  void backward_initial_state(const State&, Parameters&) const {}

  /// Where the layer first left the finite numbers: "head 2, token 17 (query)", tokens counted over
  /// the batch. Empty where every number of the forward is finite.
  std::string first_non_finite(const Cache& cache) const {
    const Index f = config_.channels();
    const auto finite = [f](const Matrix<S>& matrix, Index h, Index t) {
      return matrix.col(t).segment(h * f, f).allFinite();
    };
    for (const auto& sequence : cache.sequences) {
      for (Index t = 0; t < sequence.tokens; ++t) {
        const Index column = sequence.begin + t, key = sequence.first + t;
        const auto found = [&](Index h, const char* name) {
          return concat("head ", h, ", token ", column, " (", name, ")");
        };
        for (Index h = 0; h < config_.heads; ++h)
          if (!finite(cache.activations.q, h, column)) return found(h, "query");
        for (Index g = 0; g < config_.groups(); ++g) {
          if (!finite(*sequence.keys, g, key)) return found(g, "key");
          if (!finite(*sequence.values, g, key)) return found(g, "value");
        }
        for (Index h = 0; h < config_.heads; ++h)
          if (!finite(cache.activations.out, h, column)) return found(h, "output");
      }
    }
    return {};
  }

  /// One token: x_t, y_t [D]. Starts no thread (but those that `options.decode_weights`
  /// has), and allocates only where the state is full (see `reserve`); `check(state)` is the
  /// caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
            const RunOptions& options = {}) const;

 private:
  void reserve(AttentionActivations<S>& a, Index tokens) const {
    for (auto* matrix : {&a.q, &a.out}) ensure_shape(*matrix, config_.query_rows(), tokens);
    ensure_shape(a.log_sum_exp, tokens, config_.heads);
  }

  /// Writes q, and keys and values into w.k and w.v.
  void project(MatrixIn<S> x, Lengths lengths, States<State> states, Matrix<S>& q,
               Workspace& w) const {
    for (auto* matrix : {&w.k, &w.v}) ensure_shape(*matrix, config_.key_rows(), x.cols());
    const Parameters& p = parameters_;
    Linear<S>::forward(x, {{p.q_proj, q}, {p.k_proj, w.k}, {p.v_proj, w.v}});
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); begin += lengths[s++]) {
      rotary_.rotate(q.middleCols(begin, lengths[s]), states[s]->length);
      rotary_.rotate(w.k.middleCols(begin, lengths[s]), states[s]->length);
    }
  }

  /// An adjoint state is that of the state after: it has its length.
  static void require_lengths(const Cache& cache, States<State> d_states) {
    for (std::size_t s = 0; s < d_states.size(); ++s) {
      const std::int64_t after = cache.sequences[s].length + cache.sequences[s].tokens;
      require(d_states[s]->length == after, "Attention.backward: the adjoint state's length is ",
              d_states[s]->length, ", expected ", after);
    }
  }

  Config config_;
  RotaryHalfSplit<S> rotary_;
  Parameters parameters_;
};

template <ttt::Scalar S>
void Attention<S>::forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states,
                                 MatrixOut<S> y, Workspace& w, Cache* cache,
                                 const RunOptions&) const {
  this->require_batch("Attention.forward", x, lengths, states, y);
  AttentionActivations<S>& a = cache ? cache->activations : w.activations;
  if (cache) cache->x = x;  // first: y may be the same memory
  reserve(a, x.cols());
  project(x, lengths, states, a.q, w);
  std::vector<AttentionSequence<S>> local;
  auto& sequences = cache ? cache->sequences : local;
  sequences.clear();
  Index begin = 0;
  for (std::size_t s = 0; s < states.size(); begin += lengths[s++])
    sequences.push_back(
        AttentionMemory<S>::append(*states[s], begin, lengths[s], w.k, w.v, cache != nullptr));
  AttentionHeads<S>(config_).forward(sequences, a, w.scratch);
  Linear<S>::forward(a.out, parameters_.o_proj, y);
}

template <ttt::Scalar S>
void Attention<S>::backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states,
                                  MatrixOut<S> dx, Parameters& grad, Workspace& w) const {
  this->require_backward("Attention.backward", cache.x, cache.sequences.size(), dy, d_states, dx);
  this->require_gradient("Attention.backward", grad);
  require_lengths(cache, d_states);
  const Parameters& p = parameters_;
  ensure_shape(w.d_out, config_.query_rows(), dy.cols());
  Linear<S>::backward_input(dy, p.o_proj, w.d_out);
  Linear<S>::backward_weight(dy, cache.activations.out, grad.o_proj);
  AttentionMemory<S>::begin_adjoint(cache.sequences, d_states, w);
  AttentionHeads<S>(config_).backward(cache.sequences, cache.activations, w);
  for (auto* matrix : {&w.dk, &w.dv}) ensure_shape(*matrix, config_.key_rows(), dy.cols());
  AttentionMemory<S>::end_adjoint(cache.sequences, d_states, w);
  auto dq = w.dq.leftCols(dy.cols());
  for (const auto& sequence : cache.sequences) {
    rotary_.rotate_back(dq.middleCols(sequence.begin, sequence.tokens), sequence.length);
    rotary_.rotate_back(w.dk.middleCols(sequence.begin, sequence.tokens), sequence.length);
  }
  Linear<S>::backward_input(dq, p.q_proj, dx);
  Linear<S>::add_backward_input(w.dk, p.k_proj, dx);
  Linear<S>::add_backward_input(w.dv, p.v_proj, dx);
  Linear<S>::backward_weight(dq, cache.x, grad.q_proj);
  Linear<S>::backward_weight(w.dk, cache.x, grad.k_proj);
  Linear<S>::backward_weight(w.dv, cache.x, grad.v_proj);
}

template <ttt::Scalar S>
void Attention<S>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
                        const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  const Parameters& p = parameters_;
  Linear<S>::step(x_t, {{p.q_proj, w.q_t}, {p.k_proj, w.k_t}, {p.v_proj, w.v_t}},
                  options.decode_weights);
  rotary_.rotate(w.q_t, state.length);
  rotary_.rotate(w.k_t, state.length);
  w.q_t *= config_.score_scale<S>();
  AttentionMemory<S>::append_one(state, w.k_t, w.v_t);
  AttentionStep<S>::attend(config_, state, w, options);
  Linear<S>::step(w.out_t, p.o_proj, y_t, options.decode_weights);
}

}  // namespace ttt
