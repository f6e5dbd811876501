/// @file
/// The views of a token that a TTT layer's inner loop reads, q, k and v [D, T], head h in rows
/// [h f, (h + 1) f):
///   q, k, v = projections of x (share_qk: q, k = two causal convolutions of one projection),
///   q, k    rotated by the place in the mini-batch, then mapped by the rule's features.
/// A rule with a corruption reads v = q = x and k = corrupted x: no projection, no rotation.
/// Source: Sun et al. 2024 (arXiv 2407.04620), sections 2.1 and 2.3, and the official code.
#pragma once

#include "ttt/layers/sequence_layer.hpp"
#include "ttt/layers/ttt_types.hpp"
#include "ttt/nn/causal_conv.hpp"
#include "ttt/nn/linear.hpp"
#include "ttt/nn/rotary.hpp"

namespace ttt {

template <Scalar S, InnerModel M, UpdateRule Rule>
class TTTViews {
 public:
  using Traits = RuleTraits<Rule>;
  using Features = typename Traits::Features;
  using Parameters = TTTParameters<S, M>;
  using State = TTTState<S, M, Rule>;
  using Cache = TTTCache<S, M, Rule>;
  using Workspace = TTTWorkspace<S, M, Rule>;

  TTTViews(const TTTConfig& config, const Parameters& parameters,
           const RotaryInterleaved<S>& rotary)
      : config_(config), p_(parameters), rotary_(rotary) {}

  /// The matrices that `forward` fills: [D, tokens].
  static void reserve(TTTActivations<S>& a, const TTTConfig& config, Index tokens) {
    for (auto* matrix : {&a.q, &a.k, &a.v}) ensure_shape(*matrix, config.width, tokens);
    if (config.share_qk) ensure_shape(a.p, config.width, tokens);
    if constexpr (Traits::maps_features)
      for (auto* matrix : {&a.q_before, &a.k_before}) ensure_shape(*matrix, config.width, tokens);
  }

  /// Advances the states' convolution inputs, not their positions.
  void forward(MatrixIn<S> x, Lengths lengths, States<State> states, TTTActivations<S>& a,
               Workspace& workspace) const {
    if constexpr (Traits::reconstructs) {
      a.q = a.v = x;
    } else {
      project(x, a);
    }
    Index begin = 0;
    for (std::size_t s = 0; s < states.size(); begin += lengths[s++]) {
      const Index size = lengths[s];
      if constexpr (Traits::reconstructs) {
        corrupt(x.middleCols(begin, size), states[s]->position, a.k.middleCols(begin, size),
                workspace);
      } else {
        if (config_.share_qk) convolve(begin, size, *states[s], a);
        rotate(a.q.middleCols(begin, size), states[s]->position);
        if (own_keys()) rotate(a.k.middleCols(begin, size), states[s]->position);
      }
    }
    if constexpr (Traits::maps_features) {
      map_features(a.q, a.q_before);
      if (own_keys()) map_features(a.k, a.k_before);
    }
    if (!own_keys()) a.k = a.q;
  }

  /// Given w.dq, dk and dv, which it uses up with w.d_normed and w.dz: adds into dx and `grad`, and
  /// takes the adjoints of the states' convolution inputs back.
  void backward(const Cache& cache, States<State> d_states, MatrixOut<S> dx, Parameters& grad,
                Workspace& w) const {
    if (!own_keys()) w.dq += w.dk;
    if constexpr (Traits::maps_features) {
      map_features_backward(cache.activations.q_before, w.dq, w.dz);
      if (own_keys()) map_features_backward(cache.activations.k_before, w.dk, w.dz);
    }
    Index begin = 0;
    for (std::size_t s = 0; s < d_states.size(); begin += cache.lengths[s++]) {
      const Index size = cache.lengths[s];
      if constexpr (Traits::reconstructs) {
        corrupt_backward(w.dk.middleCols(begin, size), cache.positions[s],
                         dx.middleCols(begin, size), w);
      } else {
        rotate_back(w.dq.middleCols(begin, size), cache.positions[s]);
        if (own_keys()) rotate_back(w.dk.middleCols(begin, size), cache.positions[s]);
        if (config_.share_qk) convolve_backward(cache, s, begin, *d_states[s], grad, w);
      }
    }
    if constexpr (Traits::reconstructs) {
      dx += w.dq + w.dv;
    } else {
      project_backward(cache, dx, grad, w);
    }
  }

  /// One token: writes w.q, w.k and w.v [D].
  void step(VectorIn<S> x_t, State& state, const RunOptions& options, Workspace& w) const {
    if constexpr (Traits::reconstructs) {
      w.q = w.v = x_t;
      corrupt(x_t, state.position, w.k, w);
    } else {
      step_project(x_t, state, options, w);
      rotate(w.q, state.position);
      if (own_keys()) rotate(w.k, state.position);
    }
    if constexpr (Traits::maps_features) {
      map_step(w.q, w.n);
      if (own_keys()) map_step(w.k, w.n);
    }
    if (!own_keys()) w.k = w.q;
  }

 private:
  bool own_keys() const { return !config_.queries_as_keys; }
  bool rotates() const { return config_.rotary && !Traits::counts_tokens; }
  void rotate(MatrixOut<S> x, Index position) const {
    if (rotates()) rotary_.rotate(x, position);
  }
  void rotate_back(MatrixOut<S> x, Index position) const {
    if (rotates()) rotary_.rotate_back(x, position);
  }

  void project(MatrixIn<S> x, TTTActivations<S>& a) const {
    if (config_.share_qk) {
      Linear<S>::forward(x, {{p_.q_proj, a.p}, {p_.v_proj, a.v}});
    } else if (own_keys()) {
      Linear<S>::forward(x, {{p_.q_proj, a.q}, {p_.k_proj, a.k}, {p_.v_proj, a.v}});
    } else {
      Linear<S>::forward(x, {{p_.q_proj, a.q}, {p_.v_proj, a.v}});
    }
  }

  void project_backward(const Cache& cache, MatrixOut<S> dx, Parameters& grad, Workspace& w) const {
    if (config_.share_qk) {  // the convolutions' share of dp
      w.dq = w.d_normed;
      if (own_keys()) w.dq += w.dz;
    }
    Linear<S>::add_backward_input(w.dq, p_.q_proj, dx);
    Linear<S>::backward_weight(w.dq, cache.x, grad.q_proj);
    if (!config_.share_qk && own_keys()) {
      Linear<S>::add_backward_input(w.dk, p_.k_proj, dx);
      Linear<S>::backward_weight(w.dk, cache.x, grad.k_proj);
    }
    Linear<S>::add_backward_input(w.dv, p_.v_proj, dx);
    Linear<S>::backward_weight(w.dv, cache.x, grad.v_proj);
  }

  void convolve(Index begin, Index size, State& state, TTTActivations<S>& a) const {
    const auto p = a.p.middleCols(begin, size);
    if (own_keys()) {
      Matrix<S> tail = state.conv_tail;
      CausalConv<S>::forward(p, p_.conv_k_weight, p_.conv_k_bias, tail,
                             a.k.middleCols(begin, size));
    }
    CausalConv<S>::forward(p, p_.conv_q_weight, p_.conv_q_bias, state.conv_tail,
                           a.q.middleCols(begin, size));
  }

  /// Both convolutions read the same inputs, so the adjoints of their tails add up.
  void convolve_backward(const Cache& cache, std::size_t s, Index begin, State& d_state,
                         Parameters& grad, Workspace& w) const {
    const Index size = cache.lengths[s];
    const auto p = cache.activations.p.middleCols(begin, size);
    Matrix<S> d_tail_k = Matrix<S>::Zero(d_state.conv_tail.rows(), d_state.conv_tail.cols());
    CausalConv<S>::backward(w.dq.middleCols(begin, size), p, cache.tails[s], p_.conv_q_weight,
                            d_state.conv_tail, w.d_normed.middleCols(begin, size),
                            grad.conv_q_weight, grad.conv_q_bias);
    if (!own_keys()) return;
    CausalConv<S>::backward(w.dk.middleCols(begin, size), p, cache.tails[s], p_.conv_k_weight,
                            d_tail_k, w.dz.middleCols(begin, size), grad.conv_k_weight,
                            grad.conv_k_bias);
    d_state.conv_tail += d_tail_k;
  }

  void step_project(VectorIn<S> x_t, State& state, const RunOptions& options, Workspace& w) const {
    const DecodeWeights* packed = options.decode_weights;
    if (config_.share_qk) {
      Linear<S>::step(x_t, {{p_.q_proj, w.x}, {p_.v_proj, w.v}}, packed);
      if (own_keys()) {
        w.tail = state.conv_tail;
        CausalConv<S>::step(w.x, p_.conv_k_weight, p_.conv_k_bias, w.tail, w.k);
      }
      CausalConv<S>::step(w.x, p_.conv_q_weight, p_.conv_q_bias, state.conv_tail, w.q);
    } else if (own_keys()) {
      Linear<S>::step(x_t, {{p_.q_proj, w.q}, {p_.k_proj, w.k}, {p_.v_proj, w.v}}, packed);
    } else {
      Linear<S>::step(x_t, {{p_.q_proj, w.q}, {p_.v_proj, w.v}}, packed);
    }
  }

  /// Calls `body(rows of head h, h)`.
  void each_head(auto&& body) const {
    for (Index h = 0; h < config_.heads; ++h) body(h * config_.head_width(), h);
  }

  /// The features of x in its place; `before` keeps x.
  void map_features(Matrix<S>& x, Matrix<S>& before) const {
    const Index f = config_.head_width();
    before.swap(x);
    parallel_blocks(x.cols(), token_block, [&](Index begin, Index size) {
      each_head([&](Index row, Index) {
        Features::template forward<S>(before.block(row, begin, f, size),
                                      x.block(row, begin, f, size));
      });
    });
  }

  /// dy becomes dx; `memory` is overwritten.
  void map_features_backward(const Matrix<S>& before, Matrix<S>& dy, Matrix<S>& memory) const {
    const Index f = config_.head_width();
    memory.swap(dy);
    parallel_blocks(dy.cols(), token_block, [&](Index begin, Index size) {
      each_head([&](Index row, Index) {
        Features::template backward<S>(before.block(row, begin, f, size),
                                       memory.block(row, begin, f, size),
                                       dy.block(row, begin, f, size));
      });
    });
  }

  void map_step(Vector<S>& x_t, Vector<S>& before) const {
    const Index f = config_.head_width();
    before.swap(x_t);
    each_head([&](Index row, Index) {
      Features::template forward<S>(before.segment(row, f), x_t.segment(row, f));
    });
  }

  /// Every head has a corruption of its own.
  auto corruption(Index h) const {
    auto corruption = Rule::corruption;
    corruption.seed += static_cast<std::uint64_t>(h);
    return corruption;
  }
  void corrupt(MatrixIn<S> x, Index first_token, MatrixOut<S> k, Workspace& w) const {
    const Index f = config_.head_width();
    each_head([&](Index row, Index h) {
      corruption(h).template apply<S>(x.middleRows(row, f), first_token, k.middleRows(row, f),
                                      w.corruption[static_cast<std::size_t>(h)]);
    });
  }
  void corrupt_backward(MatrixIn<S> dk, Index first_token, MatrixOut<S> dx, Workspace& w) const {
    const Index f = config_.head_width();
    each_head([&](Index row, Index h) {
      corruption(h).template backward<S>(dk.middleRows(row, f), first_token, dx.middleRows(row, f),
                                         w.corruption[static_cast<std::size_t>(h)]);
    });
  }

  const TTTConfig& config_;
  const Parameters& p_;
  const RotaryInterleaved<S>& rotary_;
};

}  // namespace ttt
