/// @file
/// The TTT layer: a sequence layer whose hidden state is a model that learns while it reads.
///   q, k, v = projections of x (share_qk: q, k = two causal convolutions of one projection)
///   q, k    rotated by the place in the mini-batch
///   z_t     = f(q_t; W_t),  W_t = W - tau_t sum_s lr_s grad l(W; k_s, v_s)   (per head; ttt_heads)
///   y       = W_o' (gelu(W_g' x) . LN(z))                                    (gate if switched on)
/// `TTTLinear` and `TTTMLP` are its published instances; any `InnerModel` will do, and any rule by
/// which its weights move (inner/update_rule.hpp); z_t above is the published rule's.
/// Source: Sun et al. 2024 (arXiv 2407.04620); equal to the official PyTorch code, test by test.
#pragma once

#include "ttt/layers/ttt_heads.hpp"
#include "ttt/layers/ttt_rates.hpp"
#include "ttt/layers/ttt_views.hpp"
#include "ttt/nn/layer_norm.hpp"

namespace ttt {

/// `S` is float or double, `M` an inner model, `Rule` an update rule. M and Rule are not
/// constrained but checked, with a sentence for every mistake, since users write them.
template <class S, class M, class Rule = PublishedRule>
class TTTLayer : public StreamCalls<TTTLayer<S, M, Rule>, S> {
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
  static_assert(UpdateRule<Rule>,
                "TTTLayer<S, M, Rule>: the update rule lacks one of its choices, or one is of "
                "another kind; derive it from ttt::PublishedRule (inner/update_rule.hpp)");
  static_assert(check_rule<Rule, M>());

 public:
  using Scalar = S;
  using Inner = M;
  using Config = TTTConfig;
  using Parameters = TTTParameters<S, M>;
  using State = TTTState<S, M, Rule>;
  using Workspace = TTTWorkspace<S, M, Rule>;
  using Cache = TTTCache<S, M, Rule>;
  using Calls = StreamCalls<TTTLayer<S, M, Rule>, S>;
  using Calls::step;

  /// The variance floor of `post_norm`.
  static constexpr double epsilon = 1e-6;

  /// Official initialization. Throws `std::invalid_argument` where the configuration is invalid.
  explicit TTTLayer(const Config& config, Random&& random = Random(0)) : TTTLayer(config, random) {}
  TTTLayer(const Config& config, Random& random)
      : config_((validate(config), config)),
        rotary_(config.head_width(), Traits::counts_tokens ? 1 : mini_batch(), config.rope_theta),
        parameters_(Parameters::template initial<Rule>(config, random)) {}

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// W_0, where every stream begins: learned, or zero.
  InnerWeights<S, M> initial_weights() const {
    if (config_.learned_initial_weights) return parameters_.W_0;
    return InnerWeights<S, M>::zero(config_.heads, config_.head_width());
  }

  /// A new stream: the inner weights are W_0.
  State initial_state() const {
    const auto W_0 = initial_weights();
    return {0, W_0, Update<S, M, Rule>::initial(W_0), Matrix<S>::Zero(width(), tail_size())};
  }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it. With
  /// other rules than the published it takes a step, so that later ones allocate nothing.
  Workspace workspace(Index max_tokens) const;

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require(state.position >= 0, "TTTLayer: the state's position is ", state.position,
            ", expected at least 0");
    require(Traits::counts_tokens || state.position < mini_batch(),
            "TTTLayer: the state's position is ", state.position, ", expected 0 to ",
            mini_batch() - 1);
    require_shape("TTTLayer: the state's conv_tail", state.conv_tail, width(), tail_size());
    require_weights(state.weights);
    Update<S, M, Rule>::check(state.carried, config_.heads,
                              [&](const auto& weights) { require_weights(weights); });
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
    if (!config_.learned_initial_weights) return;
    for (Index h = 0; h < config_.heads; ++h)
      add_scaled(grad.W_0.head(h), S(1), d_state.weights.head(h));
    Update<S, M, Rule>::add_initial(d_state.carried, grad.W_0);
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

  /// One token: x_t, y_t [D]. Allocates nothing (but for products of matrices at a border, where a
  /// rule's direction has them and heads are wider than 128), starts no thread (but those that
  /// `options.decode_weights` has); `check(state)` is the caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
            const RunOptions& options = {}) const;

 private:
  using Traits = RuleTraits<Rule>;
  using Heads = TTTHeads<S, M, Rule>;
  using Rates = TTTRates<S, M, Rule>;
  using Views = TTTViews<S, M, Rule>;

  static void validate(const Config& config) {
    config.validate();
    Rule::direction.validate();
    Rule::corruption.validate(config.head_width());
    require(config.learned_initial_weights || M::weight_count == 1,
            "TTTConfig: learned_initial_weights is false, but the inner model has ",
            M::weight_count, " weight matrices, which never leave zero together");
    require(!Traits::reconstructs || (!config.share_qk && !config.queries_as_keys),
            "TTTConfig: share_qk or queries_as_keys is true, but the layer's update rule reads a "
            "corrupted input in the place of projections");
  }

  Index mini_batch() const { return Rule::schedule.mini_batch(config_.mini_batch); }
  Index tail_size() const { return config_.share_qk ? config_.conv_kernel - 1 : 0; }
  Rates rates() const { return Rates(config_, parameters_); }
  Views views() const { return Views(config_, parameters_, rotary_); }

  void require_weights(const InnerWeights<S, M>& weights) const {
    require(weights.heads == config_.heads, "TTTLayer: the state has ", weights.heads,
            " heads, expected ", config_.heads);
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      const WeightShape shape = M::weight_shape(l, config_.head_width());
      require_shape("TTTLayer: the state's W", weights.W[l], shape.rows,
                    config_.heads * shape.cols);
      require_shape("TTTLayer: the state's b", weights.b[l], shape.bias ? shape.rows : 0,
                    shape.bias ? config_.heads : 0);
    }
  }

  void reserve(TTTActivations<S>& a, Index tokens) const {
    Views::reserve(a, config_, tokens);
    Rates::reserve(a, config_.heads, tokens);
    ensure_shape(a.z, width(), tokens);
    if (config_.gate) ensure_shape(a.g, width(), tokens);
  }

  /// Cuts the sequences into pieces, and keeps what backward needs of the inputs.
  void begin(MatrixIn<S> x, Lengths lengths, States<State> states, const RunOptions& options,
             Cache& cache, bool keep) const {
    cache.tau.resize(parameters_.token_idx.size());
    InnerRate<S>::token_factors(parameters_.token_idx, cache.tau);
    cache.pieces.clear();
    cache.first_piece.assign(1, 0);
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); ++s) {
      append_pieces(static_cast<Index>(s), begin, lengths[s], states[s]->position % mini_batch(),
                    mini_batch(), cache.pieces, Rule::inner_steps);
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
    cache.make_room(config_.heads, config_.head_width());
  }

  void advance(State& state, Index tokens) const {
    state.position += tokens;
    if constexpr (!Traits::counts_tokens) state.position %= mini_batch();
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
        const auto normed = workspace.normed.middleCols(begin, size);
        each_entry<S>(gated, [&](auto at) { at.store(gated, at(gated) * at(normed)); });
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

  /// One token of the published rule, whose step is a kernel of its own. (Like `step_piece` a
  /// template, since each is compiled for its own rules alone.)
  void step_head(Index h, auto& state, auto& w, auto& scratch) const {
    const Index f = config_.head_width(), last = w.tau.size() - 1;
    const auto head = [&](Vector<S>& v) { return v.segment(h * f, f); };
    auto R = state.carried.sums.head(h);
    scratch.step(std::as_const(state).weights.head(h), R, parameters_.norm(h), head(w.k), head(w.q),
                 head(w.v), w.token.rate(h, 0), w.tau[state.position], head(w.z));
    if (state.position == last) finish_mini_batch(state.weights.head(h), R, w.tau[last]);
  }

  /// One token of any rule: a piece of one token.
  void step_piece(Index h, auto& state, auto& w, auto& scratch) const {
    const Index f = config_.head_width(), place = state.position % mini_batch();
    const auto head = [&](Vector<S>& v) { return v.segment(h * f, f); };
    const TTTPiece piece{0, 0, 1, place, place + 1 == mini_batch()};
    const S decay = Heads::read_rates(piece, h, w.tau, w.token, scratch.rates);
    const SerialScope alone;  // directions may have large products
    for (int i = 0; i < Rule::inner_steps; ++i)
      Heads(config_, parameters_)
          .forward_piece(piece, h, decay, head(w.k), head(w.q), head(w.v), head(w.z), state,
                         scratch);
  }

  /// Parts of the heads for the threads of a step: W and the sums that it reads.
  Index step_parts(const State& state, const RunOptions& options) const {
    Index numbers = 0;
    for (const auto& W : state.weights.W) numbers += 2 * W.size();
    return std::min(options.step_parts<S>(numbers), config_.heads);
  }

  /// Scratch for one thread more, in which everything has its size.
  void add_step_head(Workspace& w) const {
    if constexpr (std::same_as<Rule, PublishedRule>) {
      w.step_heads.emplace_back(config_.head_width());
    } else {
      w.step_heads.emplace_back(w.step_heads.front());
    }
  }

  /// Gives everything that `step` works on its size: a token that ends a mini-batch.
  void warm_up(Workspace& w) const {
    State state = initial_state();
    state.position = mini_batch() - 1;
    Vector<S> y_t(width());
    step(Vector<S>::Ones(width()), state, y_t, w);
  }

  Config config_;
  RotaryInterleaved<S> rotary_;
  Parameters parameters_;
};

// Defined out of the class, so that a precompiled layer's code is not compiled again where it is
// used (precompiled.hpp).

template <class S, class M, class Rule>
typename TTTLayer<S, M, Rule>::Workspace TTTLayer<S, M, Rule>::workspace(Index max_tokens) const {
  Workspace workspace(config_.width, config_.heads);
  reserve(workspace.activations, max_tokens);
  Rates::reserve(workspace.token, config_.heads, 1);
  workspace.tail.resize(width(), tail_size());
  workspace.tau.resize(parameters_.token_idx.size());
  if constexpr (!std::same_as<Rule, PublishedRule>) warm_up(workspace);
  return workspace;
}

template <class S, class M, class Rule>
void TTTLayer<S, M, Rule>::forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states,
                                         MatrixOut<S> y, Workspace& workspace, Cache* cache,
                                         const RunOptions& options) const {
  this->require_batch("TTTLayer.forward", x, lengths, states, y);
  Cache local;
  Cache& plan = cache ? *cache : local;
  begin(x, lengths, states, options, plan, cache != nullptr);
  TTTActivations<S>& a = cache ? cache->activations : workspace.activations;
  reserve(a, x.cols());
  views().forward(x, lengths, states, a, workspace);
  rates().forward(x, options.inner_rate_scale, a);
  if (config_.gate) Linear<S>::forward(x, parameters_.g_proj, a.g);
  Heads(config_, parameters_)
      .forward(a, plan.pieces, plan.first_piece, plan.tau, states, workspace, cache);
  finish(a, y, workspace);
  for (std::size_t s = 0; s < states.size(); ++s) advance(*states[s], lengths[s]);
}

template <class S, class M, class Rule>
void TTTLayer<S, M, Rule>::backward_batch(MatrixIn<S> dy, const Cache& cache,
                                          States<State> d_states, MatrixOut<S> dx, Parameters& grad,
                                          Workspace& workspace) const {
  this->require_backward("TTTLayer.backward", cache.x, cache.lengths.size(), dy, d_states, dx);
  this->require_gradient("TTTLayer.backward", grad);
  for (auto* matrix : {&workspace.normed, &workspace.gated, &workspace.d_normed, &workspace.dz,
                       &workspace.dq, &workspace.dk, &workspace.dv})
    ensure_shape(*matrix, width(), dy.cols());
  for (auto* matrix : {&workspace.d_rate, &workspace.d_momentum, &workspace.d_forgetting})
    ensure_shape(*matrix, config_.heads, dy.cols());
  finish_backward(dy, cache, dx, grad, workspace);
  Heads(config_, parameters_).backward(cache, d_states, grad, workspace);
  if constexpr (Rule::token_factors)
    InnerRate<S>::token_factors_backward(cache.tau, workspace.d_tau.rowwise().sum(),
                                         grad.token_idx);
  rates().backward(cache.x, cache.inner_rate_scale, cache.activations, dx, grad, workspace);
  views().backward(cache, d_states, dx, grad, workspace);
}

template <class S, class M, class Rule>
void TTTLayer<S, M, Rule>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t,
                                Workspace& workspace, const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  Workspace& w = workspace;
  views().step(x_t, state, options, w);
  rates().step(x_t, w.k, options.inner_rate_scale, w.token);
  InnerRate<S>::token_factors(parameters_.token_idx, w.tau);
  const Index parts = step_parts(state, options);
  while (std::ssize(w.step_heads) < parts) add_step_head(w);
  parallel_parts(config_.heads, parts, [&](Index begin, Index size, Index part) {
    auto& scratch = w.step_heads[static_cast<std::size_t>(part)];
    for (Index h = begin; h < begin + size; ++h) {
      if constexpr (std::same_as<Rule, PublishedRule>) {
        step_head(h, state, w, scratch);
      } else {
        step_piece(h, state, w, scratch);
      }
    }
  });
  advance(state, 1);
  LayerNorm<S>::step(w.z, parameters_.post_norm_weight, parameters_.post_norm_bias, epsilon, w.n);
  if (config_.gate) {
    Linear<S>::step(x_t, parameters_.g_proj, w.x, options.decode_weights);
    GeluTanh::value<S>(w.x, w.q);
    each_lane<S>(width(), [&](auto at) { at.store(w.n.data(), at(w.n.data()) * at(w.q.data())); });
  }
  Linear<S>::step(w.n, parameters_.o_proj, y_t, options.decode_weights);
}

}  // namespace ttt
