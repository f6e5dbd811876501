/// @file
/// The Mamba layer (Mamba-1), a selective state space behind a causal convolution. For a token x,
///   [c; z]       = W_in' x (+ b_in)
///   u            = silu(conv(c))
///   [r; B; C]    = W_x' u,     dt = softplus(W_dt' r + b_dt)
///   h, s         = the selective scan of u with dt, B, C          (selective_scan.hpp)
///   y            = W_out' (s o silu(z)) (+ b_out)
/// Source: Gu and Dao 2023 (arXiv 2312.00752), section 3.4; equal to Hugging Face's MambaMixer.
#pragma once

#include "ttt/layers/mamba_scan.hpp"
#include "ttt/nn/causal_conv.hpp"
#include "ttt/nn/linear.hpp"

namespace ttt {

template <ttt::Scalar S>
class Mamba : public StreamCalls<Mamba<S>, S> {
 public:
  using Scalar = S;
  using Config = MambaConfig;
  using Parameters = MambaParameters<S>;
  using State = MambaState<S>;
  using Workspace = MambaWorkspace<S>;
  using Cache = MambaCache<S>;
  using Calls = StreamCalls<Mamba<S>, S>;
  using Calls::step;

  /// Published initialization. Throws `std::invalid_argument` where the configuration is invalid.
  explicit Mamba(const Config& config, Random&& random = Random(0)) : Mamba(config, random) {}
  Mamba(const Config& config, Random& random)
      : config_((config.validate(), config)), parameters_(Parameters::initial(config, random)) {}

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  State initial_state() const {
    return {Matrix<S>::Zero(inner(), config_.conv_kernel - 1),
            Matrix<S>::Zero(inner(), config_.state_size)};
  }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it.
  Workspace workspace(Index max_tokens) const {
    Workspace w;
    reserve(w.activations, max_tokens);
    w.blocks.resize(1);
    w.blocks[0].reserve_forward(config_.state_size);
    w.projected.resize(2 * inner());
    w.selected.resize(selected_size());
    for (Vector<S>* vector : {&w.convolved, &w.u, &w.dt, &w.y}) vector->resize(inner());
    return w;
  }

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require_shape("Mamba: the state's conv_tail", state.conv_tail, inner(),
                  config_.conv_kernel - 1);
    require_shape("Mamba: the state's ssm", state.ssm, inner(), config_.state_size);
  }

  /// Advances several streams: x, y [D, sum of lengths]. `cache` may be null (inference).
  /// Throws `std::invalid_argument` where a shape is wrong.
  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& workspace, Cache* cache, const RunOptions& = {}) const;

  /// Given dy: writes dx, replaces each d_state (adjoint of the state after) by the adjoint of the
  /// state before, and adds into `grad`.
  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& workspace) const;

  /// Every stream begins with zeros: nothing is learned there.
  void backward_initial_state(const State&, Parameters&) const {}

  /// Where a forward first left the finite numbers: "channel 2, token 17 (scan output)", tokens
  /// counted over the batch. Empty where every number is finite.
  std::string first_non_finite(const Cache& cache) const {
    const auto& a = cache.activations;
    const std::pair<const char*, const Matrix<S>*> stages[] = {{"in_proj", &a.projected},
                                                               {"convolution", &a.convolved},
                                                               {"x_proj", &a.selected},
                                                               {"step size", &a.dt},
                                                               {"scan output", &a.y}};
    for (Index t = 0; t < cache.x.cols(); ++t)
      for (const auto& [name, matrix] : stages)
        for (Index channel = 0; channel < matrix->rows(); ++channel)
          if (!std::isfinite((*matrix)(channel, t)))
            return concat("channel ", channel, ", token ", t, " (", name, ")");
    return {};
  }

  /// One token: x_t, y_t [D]. Allocates nothing, starts no thread (but those that
  /// `options.decode_weights` has); `check(state)` is the caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
            const RunOptions& options = {}) const;

 private:
  Index inner() const { return config_.inner(); }
  Index selected_size() const { return config_.rank() + 2 * config_.state_size; }

  void reserve(MambaActivations<S>& a, Index tokens) const {
    ensure_shape(a.projected, 2 * inner(), tokens);
    ensure_shape(a.selected, selected_size(), tokens);
    for (auto* matrix : {&a.convolved, &a.u, &a.dt, &a.y}) ensure_shape(*matrix, inner(), tokens);
  }

  static void keep(MatrixIn<S> x, Lengths lengths, States<State> states, Cache& cache) {
    cache.x = x;
    cache.lengths.assign(lengths.begin(), lengths.end());
    cache.tails.clear();
    for (const State* state : states) cache.tails.push_back(state->conv_tail);
  }

  /// y += bias, for every token; an empty bias is none.
  static void add_bias(const Vector<S>& bias, MatrixOut<S> y) {
    if (bias.size() == 0) return;
    parallel_blocks(y.cols(), token_block,
                    [&](Index begin, Index size) { y.middleCols(begin, size).colwise() += bias; });
  }
  static void add_bias_gradient(MatrixIn<S> dy, Vector<S>& d_bias) {
    if (d_bias.size() > 0) d_bias += sum_of_tokens<S>(dy);
  }

  /// u = silu(conv(c)), c the upper half of `projected`
  void convolve(Lengths lengths, States<State> states, MambaActivations<S>& a) const {
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); begin += lengths[s++])
      CausalConv<S>::forward(a.projected.block(0, begin, inner(), lengths[s]),
                             parameters_.conv_weight, parameters_.conv_bias, states[s]->conv_tail,
                             a.convolved.middleCols(begin, lengths[s]));
    parallel_blocks(a.u.cols(), token_block, [&](Index first, Index size) {
      SiLU::value<S>(a.convolved.middleCols(first, size), a.u.middleCols(first, size));
    });
  }

  /// From d.u to the upper half of d.projected.
  void convolve_backward(const Cache& cache, States<State> d_states, MambaActivations<S>& d,
                         Parameters& grad) const {
    const MambaActivations<S>& a = cache.activations;
    parallel_blocks(d.u.cols(), token_block, [&](Index first, Index size) {
      auto d_convolved = d.convolved.middleCols(first, size);
      SiLU::derivative<S>(a.convolved.middleCols(first, size), d_convolved);
      d_convolved.array() *= d.u.middleCols(first, size).array();
    });
    Index begin = 0;
    for (std::size_t s = 0; s < d_states.size(); begin += cache.lengths[s++]) {
      const Index size = cache.lengths[s];
      CausalConv<S>::backward(
          d.convolved.middleCols(begin, size), a.projected.block(0, begin, inner(), size),
          cache.tails[s], parameters_.conv_weight, d_states[s]->conv_tail,
          d.projected.block(0, begin, inner(), size), grad.conv_weight, grad.conv_bias);
    }
  }

  Config config_;
  Parameters parameters_;
};

template <ttt::Scalar S>
void Mamba<S>::forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                             Workspace& workspace, Cache* cache, const RunOptions&) const {
  this->require_batch("Mamba.forward", x, lengths, states, y);
  MambaActivations<S>& a = cache ? cache->activations : workspace.activations;
  if (cache) keep(x, lengths, states, *cache);
  reserve(a, x.cols());
  Linear<S>::forward(x, parameters_.in_proj_weight, a.projected);
  add_bias(parameters_.in_proj_bias, a.projected);
  convolve(lengths, states, a);
  Linear<S>::forward(a.u, parameters_.x_proj_weight, a.selected);
  Linear<S>::forward(a.selected.topRows(config_.rank()), parameters_.dt_proj_weight, a.dt);
  MambaScan<S>(config_, parameters_).forward(a, lengths, states, workspace, cache);
  Linear<S>::forward(a.y, parameters_.out_proj_weight, y);
  add_bias(parameters_.out_proj_bias, y);
}

template <ttt::Scalar S>
void Mamba<S>::backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states,
                              MatrixOut<S> dx, Parameters& grad, Workspace& workspace) const {
  this->require_backward("Mamba.backward", cache.x, cache.lengths.size(), dy, d_states, dx);
  this->require_gradient("Mamba.backward", grad);
  const Parameters& p = parameters_;
  const MambaActivations<S>& a = cache.activations;
  MambaActivations<S>& d = workspace.adjoints;
  reserve(d, dy.cols());
  Linear<S>::backward_input(dy, p.out_proj_weight, d.y);
  Linear<S>::backward_weight(dy, a.y, grad.out_proj_weight);
  add_bias_gradient(dy, grad.out_proj_bias);
  MambaScan<S>(config_, p).backward(d.y, cache, d_states, d, grad, workspace);
  const auto r = a.selected.topRows(config_.rank());
  Linear<S>::backward_input(d.dt, p.dt_proj_weight, d.selected.topRows(config_.rank()));
  Linear<S>::backward_weight(d.dt, r, grad.dt_proj_weight);
  Linear<S>::add_backward_input(d.selected, p.x_proj_weight, d.u);
  Linear<S>::backward_weight(d.selected, a.u, grad.x_proj_weight);
  convolve_backward(cache, d_states, d, grad);
  Linear<S>::backward_input(d.projected, p.in_proj_weight, dx);
  Linear<S>::backward_weight(d.projected, cache.x, grad.in_proj_weight);
  add_bias_gradient(d.projected, grad.in_proj_bias);
}

template <ttt::Scalar S>
void Mamba<S>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
                    const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  const Parameters& p = parameters_;
  Workspace& w = workspace;
  const DecodeWeights* const packed = options.decode_weights;
  Linear<S>::step(x_t, p.in_proj_weight, w.projected, packed);
  if (config_.bias) w.projected += p.in_proj_bias;
  CausalConv<S>::step(w.projected.head(inner()), p.conv_weight, p.conv_bias, state.conv_tail,
                      w.convolved);
  SiLU::value<S>(w.convolved, w.u);
  Linear<S>::step(w.u, p.x_proj_weight, w.selected, packed);
  Linear<S>::step(w.selected.head(config_.rank()), p.dt_proj_weight, w.dt, packed);
  MambaScan<S>(config_, p).step(state, w);
  Linear<S>::step(w.y, p.out_proj_weight, y_t, packed);
  if (config_.bias) y_t += p.out_proj_bias;
}

}  // namespace ttt
