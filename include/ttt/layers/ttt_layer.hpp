/// @file
/// The TTT layer: a sequence layer whose hidden state is a model that learns while it reads.
///   q, k, v = projections of x (share_qk: q, k = two causal convolutions of one projection)
///   q, k    rotated by the place in the mini-batch
///   z_t     = f(q_t; W_t),  W_t = W - tau_t sum_s lr_s grad l(W; k_s, v_s)   (per head; ttt_heads)
///   y       = W_o' (gelu(W_g' x) . LN(z))                                    (gate if switched on)
/// `TTTLinear` and `TTTMLP` are its published instances; any `InnerModel` will do.
/// Source: Sun et al. 2024 (arXiv 2407.04620); equal to the official PyTorch code, test by test.
#pragma once

#include "ttt/inner/learning_rate.hpp"
#include "ttt/layers/ttt_heads.hpp"
#include "ttt/nn/causal_conv.hpp"
#include "ttt/nn/layer_norm.hpp"
#include "ttt/nn/linear.hpp"
#include "ttt/nn/rotary.hpp"

namespace ttt {

/// `S` is float or double, `M` an inner model. M is not constrained but checked, with a sentence
/// for every mistake, since users write models.
template <class S, class M>
class TTTLayer : public StreamCalls<TTTLayer<S, M>, S> {
  static_assert(ttt::Scalar<S>, "TTTLayer<S, M>: the scalar type S is not float or double");
  static_assert(HasOutputRule<M>,
                "TTTLayer<S, M>: the inner model M has no output rule; say for instance "
                "`using Output = ttt::LayerNormResidual;` (inner/output_rule.hpp)");
  static_assert(HasWeightShapes<M>,
                "TTTLayer<S, M>: the inner model M does not say what its weights are; it needs "
                "weight_count and weight_shape(l, head_width), which returns a ttt::WeightShape");
  static_assert(FittingStages<M>,
                "TTTLayer<S, M>: the stages of M do not fit one another; a Residual keeps its "
                "width, the parts of a Gated have equal widths, the last stage has the head's, and "
                "one of them has weights");
  static_assert(HasChunkForm<S, M>,
                "TTTLayer<S, M>: the inner model M is no Stack, and its code is incomplete; "
                "predict, gradient or Saved is missing (inner/first_order.hpp)");

 public:
  using Scalar = S;
  using Inner = M;
  using Config = TTTConfig;
  using Parameters = TTTParameters<S, M>;
  using State = TTTState<S, M>;
  using Workspace = TTTWorkspace<S, M>;
  using Cache = TTTCache<S, M>;
  using Calls = StreamCalls<TTTLayer<S, M>, S>;
  using Calls::step;

  /// The variance floor of `post_norm`.
  static constexpr double epsilon = 1e-6;

  /// Official initialization. Throws `std::invalid_argument` where the configuration is invalid.
  explicit TTTLayer(const Config& config, Random&& random = Random(0)) : TTTLayer(config, random) {}
  TTTLayer(const Config& config, Random& random)
      : config_((config.validate(), config)),
        rotary_(config.head_width(), config.mini_batch, config.rope_theta),
        parameters_(Parameters::initial(config, random)) {}

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// A new stream: the inner weights are W_0.
  State initial_state() const {
    return {0, parameters_.W_0, zeros_like(parameters_.W_0), Matrix<S>::Zero(width(), tail_size())};
  }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it.
  Workspace workspace(Index max_tokens) const;

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require(state.position >= 0 && state.position < config_.mini_batch,
            "TTTLayer: the state's position is ", state.position, ", expected 0 to ",
            config_.mini_batch - 1);
    require_shape("TTTLayer: the state's conv_tail", state.conv_tail, width(), tail_size());
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      for (const InnerWeights<S, M>* part : {&state.weights, &state.sums}) {
        const auto& W_0 = parameters_.W_0;
        require(part->heads == config_.heads, "TTTLayer: the state has ", part->heads,
                " heads, expected ", config_.heads);
        require_shape("TTTLayer: the state's W", part->W[l], W_0.W[l].rows(), W_0.W[l].cols());
        require_shape("TTTLayer: the state's b", part->b[l], W_0.b[l].rows(), W_0.b[l].cols());
      }
    }
  }

  /// Advances several streams: x, y [D, sum of lengths]. `cache` may be null (inference).
  /// Throws `std::invalid_argument` where a shape is wrong.
  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& workspace, Cache* cache, const RunOptions& options = {}) const;

  /// Given dy: writes dx, replaces each d_state (adjoint of the state after) by the adjoint of the
  /// state before, and adds into `grad`.
  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& workspace) const;

  /// W_0 is where every stream begins: its gradient is the adjoint of the initial state.
  void backward_initial_state(const State& d_state, Parameters& grad) const {
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      grad.W_0.W[l] += d_state.weights.W[l];
      grad.W_0.b[l] += d_state.weights.b[l];
    }
  }

  /// Where the inner loop first left the finite numbers: "head 2, token 17 (inner output)", tokens
  /// counted over the batch. Empty where every number of the forward is finite.
  std::string first_non_finite(const Cache& cache) const {
    const auto& a = cache.activations;
    const std::pair<const char*, const Matrix<S>*> stages[] = {
        {"query", &a.q}, {"key", &a.k}, {"value", &a.v}, {"inner output", &a.z}};
    for (Index t = 0; t < cache.x.cols(); ++t)
      for (const auto& [name, matrix] : stages)
        for (Index h = 0; h < config_.heads; ++h)
          if (!matrix->col(t).segment(h * config_.head_width(), config_.head_width()).allFinite())
            return concat("head ", h, ", token ", t, " (", name, ")");
    return {};
  }

  /// One token: x_t, y_t [D]. Allocates nothing, starts no thread (but those that
  /// `options.decode_weights` has); `check(state)` is the caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
            const RunOptions& options = {}) const;

 private:
  Index tail_size() const { return config_.share_qk ? config_.conv_kernel - 1 : 0; }
  S rate_scale(const RunOptions& options) const {
    return static_cast<S>(options.inner_rate_scale * config_.base_learning_rate /
                          static_cast<double>(config_.head_width()));
  }

  void reserve(TTTActivations<S>& a, Index tokens) const {
    for (auto* matrix : {&a.q, &a.k, &a.v, &a.z}) ensure_shape(*matrix, width(), tokens);
    if (config_.share_qk) ensure_shape(a.p, width(), tokens);
    if (config_.gate) ensure_shape(a.g, width(), tokens);
    for (auto* matrix : {&a.gate, &a.rate}) ensure_shape(*matrix, config_.heads, tokens);
  }

  /// Cuts the sequences into pieces, and keeps what backward needs of the inputs.
  void begin(MatrixIn<S> x, Lengths lengths, States<State> states, const RunOptions& options,
             Cache& cache, bool keep) const {
    cache.tau.resize(config_.mini_batch);
    InnerRate<S>::token_factors(parameters_.token_idx, cache.tau);
    cache.pieces.clear();
    cache.first_piece.assign(1, 0);
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); ++s) {
      append_pieces(static_cast<Index>(s), begin, lengths[s], states[s]->position,
                    config_.mini_batch, cache.pieces);
      cache.first_piece.push_back(std::ssize(cache.pieces));
      begin += lengths[s];
    }
    if (!keep) return;
    cache.x = x;
    cache.inner_rate_scale = options.inner_rate_scale;
    cache.lengths.assign(lengths.begin(), lengths.end());
    cache.positions.clear();
    cache.tails.clear();
    for (const State* state : states) {
      cache.positions.push_back(state->position);
      cache.tails.push_back(state->conv_tail);
    }
    const auto shape = InnerWeights<S, M>::zero(config_.heads, config_.head_width());
    if (cache.weights.empty() || !same_shape(cache.weights[0], shape)) cache.weights.clear();
    cache.weights.resize(cache.pieces.size(), shape);  // keeps the memory of an earlier forward
    cache.sums.resize(cache.pieces.size());
    for (std::size_t i = 0; i < cache.pieces.size(); ++i)
      if (cache.pieces[i].offset > 0) cache.sums[i] = shape;
  }

  static bool same_shape(const InnerWeights<S, M>& a, const InnerWeights<S, M>& b) {
    if (a.heads != b.heads) return false;
    for (std::size_t l = 0; l < M::weight_count; ++l)
      if (a.W[l].rows() != b.W[l].rows() || a.W[l].cols() != b.W[l].cols()) return false;
    return true;
  }

  /// q, k, v after convolution and rotation; the inner rate; the gate before its activation.
  void project(MatrixIn<S> x, Lengths lengths, States<State> states, const RunOptions& options,
               TTTActivations<S>& a) const {
    const Parameters& p = parameters_;
    Linear<S>::forward(x, p.q_proj, config_.share_qk ? a.p : a.q);
    if (!config_.share_qk) Linear<S>::forward(x, p.k_proj, a.k);
    Linear<S>::forward(x, p.v_proj, a.v);
    if (config_.gate) Linear<S>::forward(x, p.g_proj, a.g);
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); begin += lengths[s++]) {
      const Index size = lengths[s];
      if (config_.share_qk) {
        Matrix<S> tail = states[s]->conv_tail;
        CausalConv<S>::forward(a.p.middleCols(begin, size), p.conv_q_weight, p.conv_q_bias, tail,
                               a.q.middleCols(begin, size));
        CausalConv<S>::forward(a.p.middleCols(begin, size), p.conv_k_weight, p.conv_k_bias,
                               states[s]->conv_tail, a.k.middleCols(begin, size));
      }
      rotary_.rotate(a.q.middleCols(begin, size), states[s]->position);
      rotary_.rotate(a.k.middleCols(begin, size), states[s]->position);
    }
    InnerRate<S>::gate(x, p.rate_weight, p.rate_bias, a.gate);
    a.rate = rate_scale(options) * a.gate;
  }

  /// y = W_o' (gelu(g) . LN(z))
  void finish(const TTTActivations<S>& a, MatrixOut<S> y, Workspace& workspace) const {
    const Index tokens = y.cols();
    ensure_shape(workspace.normed, width(), tokens);
    LayerNorm<S>::forward(a.z, parameters_.post_norm_weight, parameters_.post_norm_bias, epsilon,
                          workspace.normed);
    if (config_.gate) {
      ensure_shape(workspace.gated, width(), tokens);
      parallel_blocks(tokens, token_block, [&](Index begin, Index size) {
        auto gated = workspace.gated.middleCols(begin, size);
        GeluTanh::value<S>(a.g.middleCols(begin, size), gated);
        gated.array() *= workspace.normed.middleCols(begin, size).array();
      });
    }
    Linear<S>::forward(config_.gate ? workspace.gated : workspace.normed, parameters_.o_proj, y);
  }

  /// Writes workspace.dz and what the gate owes to dx (dx is zero without a gate).
  void finish_backward(MatrixIn<S> dy, const Cache& cache, MatrixOut<S> dx, Parameters& grad,
                       Workspace& w) const {
    const TTTActivations<S>& a = cache.activations;
    const Parameters& p = parameters_;
    LayerNorm<S>::forward(a.z, p.post_norm_weight, p.post_norm_bias, epsilon, w.normed);
    Linear<S>::backward_input(dy, p.o_proj, w.d_normed);
    if (config_.gate) {
      // w.dq becomes dg; w.gated the input of o_proj
      parallel_blocks(dy.cols(), token_block, [&](Index begin, Index size) {
        const auto g = a.g.middleCols(begin, size);
        auto normed = w.normed.middleCols(begin, size), gated = w.gated.middleCols(begin, size);
        auto d_normed = w.d_normed.middleCols(begin, size), dg = w.dq.middleCols(begin, size);
        GeluTanh::derivative<S>(g, dg);
        dg.array() *= normed.array() * d_normed.array();
        GeluTanh::value<S>(g, gated);
        d_normed.array() *= gated.array();
        gated.array() *= normed.array();
      });
      Linear<S>::backward_input(w.dq, p.g_proj, dx);
      Linear<S>::backward_weight(w.dq, cache.x, grad.g_proj);
    } else {
      dx.setZero();
    }
    Linear<S>::backward_weight(dy, config_.gate ? w.gated : w.normed, grad.o_proj);
    LayerNorm<S>::backward(w.d_normed, a.z, p.post_norm_weight, epsilon, w.dz,
                           grad.post_norm_weight, grad.post_norm_bias);
  }

  /// w.d_gate holds d_rate; w.d_tau a column for each sequence and head.
  void rates_backward(const Cache& cache, MatrixOut<S> dx, Parameters& grad, Workspace& w) const {
    const Vector<S> d_tau = w.d_tau.rowwise().sum();
    InnerRate<S>::token_factors_backward(cache.tau, d_tau, grad.token_idx);
    w.d_gate *= rate_scale({cache.inner_rate_scale});
    InnerRate<S>::gate_backward(cache.x, parameters_.rate_weight, cache.activations.gate, w.d_gate,
                                dx, grad.rate_weight, grad.rate_bias);
  }

  void project_backward(const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                        Parameters& grad, Workspace& w) const {
    const Parameters& p = parameters_;
    Index begin = 0;
    for (std::size_t s = 0; s < d_states.size(); begin += cache.lengths[s++]) {
      const Index size = cache.lengths[s];
      rotary_.rotate_back(w.dq.middleCols(begin, size), cache.positions[s]);
      rotary_.rotate_back(w.dk.middleCols(begin, size), cache.positions[s]);
      if (config_.share_qk) convolutions_backward(cache, s, begin, *d_states[s], grad, w);
    }
    if (config_.share_qk) w.dq = w.d_normed + w.dz;  // the two convolutions' share of dp
    Linear<S>::add_backward_input(w.dq, p.q_proj, dx);
    Linear<S>::backward_weight(w.dq, cache.x, grad.q_proj);
    if (!config_.share_qk) {
      Linear<S>::add_backward_input(w.dk, p.k_proj, dx);
      Linear<S>::backward_weight(w.dk, cache.x, grad.k_proj);
    }
    Linear<S>::add_backward_input(w.dv, p.v_proj, dx);
    Linear<S>::backward_weight(w.dv, cache.x, grad.v_proj);
  }

  /// Both convolutions read the same inputs, so the adjoints of their tails add up.
  void convolutions_backward(const Cache& cache, std::size_t s, Index begin, State& d_state,
                             Parameters& grad, Workspace& w) const {
    const Index size = cache.lengths[s];
    const auto p = cache.activations.p.middleCols(begin, size);
    Matrix<S> d_tail_k = Matrix<S>::Zero(width(), tail_size());
    CausalConv<S>::backward(w.dq.middleCols(begin, size), p, cache.tails[s],
                            parameters_.conv_q_weight, d_state.conv_tail,
                            w.d_normed.middleCols(begin, size), grad.conv_q_weight,
                            grad.conv_q_bias);
    CausalConv<S>::backward(w.dk.middleCols(begin, size), p, cache.tails[s],
                            parameters_.conv_k_weight, d_tail_k, w.dz.middleCols(begin, size),
                            grad.conv_k_weight, grad.conv_k_bias);
    d_state.conv_tail += d_tail_k;
  }

  /// w.q, w.k, w.v [D] and w.gate [H], here the inner rate.
  void step_project(VectorIn<S> x_t, State& state, const RunOptions& options, Workspace& w) const {
    const Parameters& p = parameters_;
    if (config_.share_qk) {
      Linear<S>::step(x_t, {{p.q_proj, w.x}, {p.v_proj, w.v}}, options.decode_weights);
      w.tail = state.conv_tail;
      CausalConv<S>::step(w.x, p.conv_q_weight, p.conv_q_bias, w.tail, w.q);
      CausalConv<S>::step(w.x, p.conv_k_weight, p.conv_k_bias, state.conv_tail, w.k);
    } else {
      Linear<S>::step(x_t, {{p.q_proj, w.q}, {p.k_proj, w.k}, {p.v_proj, w.v}},
                      options.decode_weights);
    }
    rotary_.rotate(w.q, state.position);
    rotary_.rotate(w.k, state.position);
    w.gate.noalias() = p.rate_weight.transpose() * x_t;
    w.gate += p.rate_bias.transpose();
    SiLU::sigmoid<S>(w.gate, w.gate);
    w.gate *= rate_scale(options);
  }

  Config config_;
  RotaryInterleaved<S> rotary_;
  Parameters parameters_;
};

// Defined out of the class, so that a precompiled layer's code is not compiled again where it is
// used (precompiled.hpp).

template <class S, class M>
typename TTTLayer<S, M>::Workspace TTTLayer<S, M>::workspace(Index max_tokens) const {
  Workspace workspace(config_.width, config_.heads);
  reserve(workspace.activations, max_tokens);
  workspace.tail.resize(width(), tail_size());
  workspace.tau.resize(config_.mini_batch);
  return workspace;
}

template <class S, class M>
void TTTLayer<S, M>::forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states,
                                   MatrixOut<S> y, Workspace& workspace, Cache* cache,
                                   const RunOptions& options) const {
  this->require_batch("TTTLayer.forward", x, lengths, states, y);
  Cache local;
  Cache& plan = cache ? *cache : local;
  begin(x, lengths, states, options, plan, cache != nullptr);
  TTTActivations<S>& a = cache ? cache->activations : workspace.activations;
  reserve(a, x.cols());
  project(x, lengths, states, options, a);
  TTTHeads<S, M>(config_, parameters_)
      .forward(a, plan.pieces, plan.first_piece, plan.tau, states, workspace, cache);
  finish(a, y, workspace);
  for (std::size_t s = 0; s < states.size(); ++s)
    states[s]->position = (states[s]->position + lengths[s]) % config_.mini_batch;
}

template <class S, class M>
void TTTLayer<S, M>::backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states,
                                    MatrixOut<S> dx, Parameters& grad, Workspace& workspace) const {
  this->require_backward("TTTLayer.backward", cache.x, cache.lengths.size(), dy, d_states, dx);
  this->require_gradient("TTTLayer.backward", grad);
  for (auto* matrix : {&workspace.normed, &workspace.gated, &workspace.d_normed, &workspace.dz,
                       &workspace.dq, &workspace.dk, &workspace.dv})
    ensure_shape(*matrix, width(), dy.cols());
  ensure_shape(workspace.d_gate, config_.heads, dy.cols());
  finish_backward(dy, cache, dx, grad, workspace);
  TTTHeads<S, M>(config_, parameters_).backward(cache, d_states, grad, workspace);
  rates_backward(cache, dx, grad, workspace);
  project_backward(cache, d_states, dx, grad, workspace);
}

template <class S, class M>
void TTTLayer<S, M>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
                          const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  Workspace& w = workspace;
  step_project(x_t, state, options, w);
  const Index f = config_.head_width(), last = config_.mini_batch - 1;
  InnerRate<S>::token_factors(parameters_.token_idx, w.tau);
  for (Index h = 0; h < config_.heads; ++h) {
    const auto head = [&](Vector<S>& v) { return v.segment(h * f, f); };
    auto R = state.sums.head(h);
    w.step_head.step(std::as_const(state).weights.head(h), R, parameters_.norm(h), head(w.k),
                     head(w.q), head(w.v), w.gate[h], w.tau[state.position], head(w.z));
    if (state.position == last) finish_mini_batch(state.weights.head(h), R, w.tau[last]);
  }
  state.position = state.position == last ? 0 : state.position + 1;
  LayerNorm<S>::step(w.z, parameters_.post_norm_weight, parameters_.post_norm_bias, epsilon, w.n);
  if (config_.gate) {
    Linear<S>::step(x_t, parameters_.g_proj, w.x, options.decode_weights);
    GeluTanh::value<S>(w.x, w.q);
    w.n.array() *= w.q.array();
  }
  Linear<S>::step(w.n, parameters_.o_proj, y_t, options.decode_weights);
}

}  // namespace ttt
