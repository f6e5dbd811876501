/// @file
/// Causal linear attention: attention whose scores are products of features instead of
/// exponentials, so that what a head remembers is a matrix and does not grow.
///   q_t, k_t, v_t = W_q'x_t, W_k'x_t, W_v'x_t
///   M_t = M_{t-1} + v_t phi(k_t)'      n_t = n_{t-1} + phi(k_t)                each head alone
///   z_t = M_t phi(q_t) / (n_t'phi(q_t) + epsilon)      or M_t phi(q_t), where not normalized
///   y_t = W_o'z_t
/// phi = elu + 1 as published, or another map of inner/feature_maps.hpp. Without phi and without
/// the normalizer it is a TTT layer (Sun et al. 2024, arXiv 2407.04620, theorem 1).
/// Source: Katharopoulos et al. 2020 (arXiv 2006.16236), section 3.
#pragma once

#include <string>
#include <utility>

#include "ttt/inner/feature_maps.hpp"
#include "ttt/layers/linear_attention_heads.hpp"
#include "ttt/nn/linear.hpp"

namespace ttt {

template <ttt::Scalar S, class Features = EluPlusOne>
class LinearAttention : public StreamCalls<LinearAttention<S, Features>, S> {
  static_assert(FeatureMap<Features, S>, "LinearAttention: see inner/feature_maps.hpp for a map");

 public:
  using Scalar = S;
  using Config = LinearAttentionConfig;
  using Parameters = LinearAttentionParameters<S>;
  using State = LinearAttentionState<S>;
  using Workspace = LinearAttentionWorkspace<S>;
  using Cache = LinearAttentionCache<S>;
  using Calls = StreamCalls<LinearAttention<S, Features>, S>;
  using Calls::step;

  /// Normal initialization. Throws `std::invalid_argument` where the configuration is invalid.
  explicit LinearAttention(const Config& config, Random&& random = Random(0))
      : LinearAttention(config, random) {}
  LinearAttention(const Config& config, Random& random)
      : config_((config.validate(), config)), parameters_(Parameters::initial(config, random)) {}

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// A new stream: M = 0, n = 0.
  State initial_state() const {
    return {Matrix<S>::Zero(config_.head_width(), width()),
            Matrix<S>::Zero(config_.head_width(), normalizers())};
  }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it.
  Workspace workspace(Index max_tokens) const {
    Workspace w;
    reserve(w.activations, max_tokens);
    for (auto* vector : {&w.q_t, &w.k_t, &w.v_t, &w.z_t}) vector->resize(width());
    for (auto* features : {&w.Q_t, &w.K_t}) features->resize(config_.head_width(), config_.heads);
    return w;
  }

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require_shape("LinearAttention: the state's memory", state.memory, config_.head_width(),
                  width());
    require_shape("LinearAttention: the state's normalizer", state.normalizer, config_.head_width(),
                  normalizers());
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
    const auto& a = cache.activations;
    const std::pair<const char*, const Matrix<S>*> stages[] = {
        {"query", &a.q}, {"key", &a.k}, {"value", &a.v}, {"output", &a.z}};
    const Index f = config_.head_width();
    for (Index t = 0; t < cache.x.cols(); ++t)
      for (const auto& [name, matrix] : stages)
        for (Index h = 0; h < config_.heads; ++h)
          if (!matrix->col(t).segment(h * f, f).allFinite())
            return concat("head ", h, ", token ", t, " (", name, ")");
    return {};
  }

  /// One token: x_t, y_t [D]. Allocates nothing, starts no thread (but those that
  /// `options.decode_weights` has); `check(state)` is the caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
            const RunOptions& options = {}) const;

 private:
  using Heads = LinearAttentionHeads<S, Features>;

  Index normalizers() const { return config_.normalized ? config_.heads : 0; }

  void reserve(LinearAttentionActivations<S>& a, Index tokens) const {
    for (auto* matrix : {&a.q, &a.k, &a.v, &a.z}) ensure_shape(*matrix, width(), tokens);
    ensure_shape(a.scale, tokens, normalizers());
  }

  Config config_;
  Parameters parameters_;
};

template <ttt::Scalar S, class Features>
void LinearAttention<S, Features>::forward_batch(MatrixIn<S> x, Lengths lengths,
                                                 States<State> states, MatrixOut<S> y, Workspace& w,
                                                 Cache* cache, const RunOptions&) const {
  this->require_batch("LinearAttention.forward", x, lengths, states, y);
  const Parameters& p = parameters_;
  auto& a = cache ? cache->activations : w.activations;
  const LinearAttentionChunks plan(lengths);
  if (cache) cache->x = x;  // first: y may be the same memory
  if (cache) cache->plan = plan;
  reserve(a, x.cols());
  Linear<S>::forward(x, {{p.q_proj, a.q}, {p.k_proj, a.k}, {p.v_proj, a.v}});
  Heads(config_).forward(plan, a, states, w, cache);
  Linear<S>::forward(a.z, p.o_proj, y);
}

template <ttt::Scalar S, class Features>
void LinearAttention<S, Features>::backward_batch(MatrixIn<S> dy, const Cache& cache,
                                                  States<State> d_states, MatrixOut<S> dx,
                                                  Parameters& grad, Workspace& w) const {
  const auto sequences = static_cast<std::size_t>(cache.plan.sequences());
  this->require_backward("LinearAttention.backward", cache.x, sequences, dy, d_states, dx);
  this->require_gradient("LinearAttention.backward", grad);
  const Parameters& p = parameters_;
  for (auto* matrix : {&w.dz, &w.dq, &w.dk, &w.dv}) ensure_shape(*matrix, width(), dy.cols());
  Linear<S>::backward_input(dy, p.o_proj, w.dz);
  Linear<S>::backward_weight(dy, cache.activations.z, grad.o_proj);
  Heads(config_).backward(cache, d_states, w);
  Linear<S>::backward_input(w.dq, p.q_proj, dx);
  Linear<S>::add_backward_input(w.dk, p.k_proj, dx);
  Linear<S>::add_backward_input(w.dv, p.v_proj, dx);
  Linear<S>::backward_weight(w.dq, cache.x, grad.q_proj);
  Linear<S>::backward_weight(w.dk, cache.x, grad.k_proj);
  Linear<S>::backward_weight(w.dv, cache.x, grad.v_proj);
}

template <ttt::Scalar S, class Features>
void LinearAttention<S, Features>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t,
                                        Workspace& w, const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  const Parameters& p = parameters_;
  Linear<S>::step(x_t, {{p.q_proj, w.q_t}, {p.k_proj, w.k_t}, {p.v_proj, w.v_t}},
                  options.decode_weights);
  Heads(config_).step(state, w);
  Linear<S>::step(w.z_t, p.o_proj, y_t, options.decode_weights);
}

}  // namespace ttt
