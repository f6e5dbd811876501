/// @file
/// The LSTM layer, the classical recurrent network that TTT layers are compared with. Per token:
///   a          = W_ih' x + b_ih + W_hh' h + b_hh        (four gates of D rows)
///   i, f, g, o = sigma(a_i), sigma(a_f), tanh(a_g), sigma(a_o)
///   c'         = f . c + i . g
///   y = h'     = o . tanh(c')
/// Products with x are one product over all tokens; those with h follow time, groups of sequences
/// in lockstep. Threads share the groups and not the products of one time: each of these is too
/// short to wait for a thread that another program keeps from its core.
/// Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000. Equal
/// to torch.nn.LSTM with one layer and one direction.
#pragma once

#include <string>
#include <utility>

#include "ttt/layers/lstm_types.hpp"
#include "ttt/nn/activation.hpp"
#include "ttt/nn/linear.hpp"
#include "ttt/nn/token_sums.hpp"

namespace ttt {

/// What happens to one token after the products. Shapes: gates, d_gates [4D]; all others [D].
template <Scalar S>
struct LSTMCell {
  /// gates: W_ih' x + W_hh' h in, i, f, g, o out. c in, c' out. Writes h'.
  static void forward(VectorIn<S> bias, VectorOut<S> gates, VectorOut<S> c, VectorOut<S> h) {
    const Index D = c.size();
    gates += bias;
    SiLU::sigmoid<S>(gates.head(2 * D), gates.head(2 * D));
    gates.segment(2 * D, D).array() = gates.segment(2 * D, D).array().tanh();
    SiLU::sigmoid<S>(gates.tail(D), gates.tail(D));
    const auto i = gates.head(D).array(), f = gates.segment(D, D).array();
    const auto g = gates.segment(2 * D, D).array(), o = gates.tail(D).array();
    c.array() = f * c.array() + i * g;
    h.array() = o * c.array().tanh();
  }

  /// dh: dLoss/dh'. dc: dLoss/dc' in, dLoss/dc out. Writes d_gates = dLoss/da.
  static void backward(VectorIn<S> gates, VectorIn<S> c, VectorIn<S> dh, VectorOut<S> dc,
                       VectorOut<S> d_gates) {
    const Index D = c.size();
    const auto i = gates.head(D).array(), f = gates.segment(D, D).array();
    const auto g = gates.segment(2 * D, D).array(), o = gates.tail(D).array();
    // h' = o . tanh(c')
    auto tanh_c = d_gates.head(D).array();
    tanh_c = (f * c.array() + i * g).tanh();
    d_gates.tail(D).array() = dh.array() * tanh_c * o * (S(1) - o);
    dc.array() += dh.array() * o * (S(1) - tanh_c.square());
    // c' = f . c + i . g
    d_gates.head(D).array() = dc.array() * g * i * (S(1) - i);
    d_gates.segment(D, D).array() = dc.array() * c.array() * f * (S(1) - f);
    d_gates.segment(2 * D, D).array() = dc.array() * i * (S(1) - g.square());
    dc.array() *= f;
  }
};

template <ttt::Scalar S>
class LSTM : public StreamCalls<LSTM<S>, S> {
 public:
  using Scalar = S;
  using Config = LSTMConfig;
  using Parameters = LSTMParameters<S>;
  using State = LSTMState<S>;
  using Workspace = LSTMWorkspace<S>;
  using Cache = LSTMCache<S>;
  using Calls = StreamCalls<LSTM<S>, S>;
  using Calls::step;

  /// Throws `std::invalid_argument` where the configuration is invalid.
  explicit LSTM(const Config& config, Random&& random = Random(0)) : LSTM(config, random) {}
  LSTM(const Config& config, Random& random)
      : config_((config.validate(), config)), parameters_(Parameters::initial(config, random)) {}

  Index width() const { return config_.width; }
  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  static auto fields(auto& self) { return std::tuple(field("", self.parameters_)); }

  /// A new stream: h = c = 0.
  State initial_state() const { return {Vector<S>::Zero(width()), Vector<S>::Zero(width())}; }

  /// Scratch for one thread of callers; `max_tokens` reserves, a longer forward grows it.
  Workspace workspace(Index max_tokens) const {
    Workspace workspace;
    reserve(workspace.cache, max_tokens);
    workspace.gates_t.resize(4 * width());
    workspace.bias.resize(4 * width());
    return workspace;
  }

  /// Throws `std::invalid_argument` unless `state` has this layer's shapes.
  void check(const State& state) const {
    require_shape("LSTM: the state's h", state.h, width(), 1);
    require_shape("LSTM: the state's c", state.c, width(), 1);
  }

  /// Advances several streams: x, y [D, sum of lengths]. `cache` may be null (inference).
  /// Throws `std::invalid_argument` where a shape is wrong.
  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& workspace, Cache* cache, const RunOptions& = {}) const;

  /// Given dy: writes dx, replaces each d_state (adjoint of the state after) by the adjoint of the
  /// state before, and adds into `grad`.
  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& workspace) const;

  /// Every stream begins at zero, which is not learned.
  void backward_initial_state(const State&, Parameters&) const {}

  /// Where the numbers first ceased to be finite: "token 17 (gates)", tokens counted over the
  /// batch. Empty where every number of the forward is finite.
  std::string first_non_finite(const Cache& cache) const {
    const std::pair<const char*, const Matrix<S>*> stages[] = {{"input", &cache.x},
                                                               {"hidden state", &cache.h_before},
                                                               {"cell", &cache.c_before},
                                                               {"gates", &cache.gates}};
    Index first = cache.x.cols();
    std::string place;
    cache.order.for_each_token([&](Index packed, Index t) {
      if (t >= first) return;
      for (const auto& [name, matrix] : stages) {
        if (matrix->col(packed).allFinite()) continue;
        first = t;
        place = concat("token ", t, " (", name, ")");
        return;
      }
    });
    return place;
  }

  /// One token: x_t, y_t [D]. Allocates nothing, starts no thread (but those that
  /// `options.decode_weights` has); `check(state)` is the caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
            const RunOptions& options = {}) const;

 private:
  /// Sequences in lockstep: their columns fill the registers (PanelMatrix).
  static constexpr Index group = 8;
  /// Times that two sequences have in common, from which on a copy of W_hh saves more than it
  /// costs.
  static constexpr Index packing_pays = 8;

  static bool packs(const LockstepOrder& order) {
    return order.steps() >= packing_pays && order.live(packing_pays - 1) > 1;
  }

  void reserve(Cache& cache, Index tokens) const {
    for (auto* matrix : {&cache.x, &cache.h_before, &cache.c_before})
      ensure_shape(*matrix, width(), tokens);
    ensure_shape(cache.gates, 4 * width(), tokens);
  }

  /// w.h, w.c: a column for each state, longest sequence first.
  void load(const LockstepOrder& order, States<State> states, Workspace& w) const {
    ensure_shape(w.h, width(), order.sequences());
    ensure_shape(w.c, width(), order.sequences());
    for (std::size_t j = 0; j < states.size(); ++j) {
      const State& state = *states[static_cast<std::size_t>(order.sequence[j])];
      w.h.col(static_cast<Index>(j)) = state.h;
      w.c.col(static_cast<Index>(j)) = state.c;
    }
  }

  static void store(const LockstepOrder& order, const Workspace& w, States<State> states) {
    for (std::size_t j = 0; j < states.size(); ++j) {
      State& state = *states[static_cast<std::size_t>(order.sequence[j])];
      state.h = w.h.col(static_cast<Index>(j));
      state.c = w.c.col(static_cast<Index>(j));
    }
  }

  /// kept.gates: W_ih' x in, i, f, g, o out.
  void recur(States<State> states, MatrixOut<S> y, Cache& kept, Workspace& w) const {
    const LockstepOrder& order = kept.order;
    load(order, states, w);
    w.bias = parameters_.bias_ih + parameters_.bias_hh;
    if (packs(order)) w.recurrent.pack_transposed(parameters_.weight_hh);
    parallel_blocks(order.sequences(), group, [&](Index begin, Index size) {
      for (Index t = 0; t < order.steps(); ++t) {
        const Index live = std::min(size, order.live(t) - begin);
        if (live <= 0) return;
        recur_once(t, begin, live, y, kept, w);
      }
    });
    store(order, w, states);
  }

  /// Time t of the `live` sequences from `begin` on.
  void recur_once(Index t, Index begin, Index live, MatrixOut<S>& y, Cache& kept,
                  Workspace& w) const {
    const LockstepOrder& order = kept.order;
    const Index first = order.packed(t) + begin;
    auto h = w.h.middleCols(begin, live), c = w.c.middleCols(begin, live);
    auto gates = kept.gates.middleCols(first, live);
    kept.h_before.middleCols(first, live) = h;
    kept.c_before.middleCols(first, live) = c;
    if (live > 1 && packs(order)) {
      w.recurrent.add_product(h, gates);
    } else {
      Product<S>::add_atb(parameters_.weight_hh, h, gates);
    }
    for (Index j = 0; j < live; ++j) {
      LSTMCell<S>::forward(w.bias, gates.col(j), c.col(j), h.col(j));
      y.col(order.column(t, begin + j)) = h.col(j);
    }
  }

  /// Writes w.d_gates = dLoss/da. w.h and w.c hold the adjoints of the states.
  void recur_backward(MatrixIn<S> dy, const Cache& cache, States<State> d_states,
                      Workspace& w) const {
    const LockstepOrder& order = cache.order;
    load(order, d_states, w);
    if (packs(order)) w.recurrent.pack(parameters_.weight_hh);
    parallel_blocks(order.sequences(), group, [&](Index begin, Index size) {
      for (Index t = order.steps() - 1; t >= 0; --t) {
        const Index live = std::min(size, order.live(t) - begin);
        if (live > 0) recur_once_backward(t, begin, live, dy, cache, w);
      }
    });
    store(order, w, d_states);
  }

  void recur_once_backward(Index t, Index begin, Index live, MatrixIn<S> dy, const Cache& cache,
                           Workspace& w) const {
    const LockstepOrder& order = cache.order;
    const Index first = order.packed(t) + begin;
    auto dh = w.h.middleCols(begin, live), dc = w.c.middleCols(begin, live);
    auto d_gates = w.d_gates.middleCols(first, live);
    for (Index j = 0; j < live; ++j) {
      dh.col(j) += dy.col(order.column(t, begin + j));
      LSTMCell<S>::backward(cache.gates.col(first + j), cache.c_before.col(first + j), dh.col(j),
                            dc.col(j), d_gates.col(j));
    }
    if (live > 1 && packs(order)) {
      dh.setZero();
      w.recurrent.add_product(d_gates, dh);
    } else {
      Product<S>::ab(parameters_.weight_hh, d_gates, dh);
    }
  }

  Config config_;
  Parameters parameters_;
};

template <ttt::Scalar S>
void LSTM<S>::forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                            Workspace& workspace, Cache* cache, const RunOptions&) const {
  this->require_batch("LSTM.forward", x, lengths, states, y);
  Cache& kept = cache ? *cache : workspace.cache;
  kept.order = LockstepOrder(lengths);
  reserve(kept, x.cols());
  kept.order.for_each_token([&](Index packed, Index t) { kept.x.col(packed) = x.col(t); });
  Linear<S>::forward(kept.x, parameters_.weight_ih, kept.gates);
  recur(states, y, kept, workspace);
}

template <ttt::Scalar S>
void LSTM<S>::backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states,
                             MatrixOut<S> dx, Parameters& grad, Workspace& workspace) const {
  this->require_backward("LSTM.backward", cache.x, cache.order.sequence.size(), dy, d_states, dx);
  this->require_gradient("LSTM.backward", grad);
  Workspace& w = workspace;
  ensure_shape(w.d_gates, 4 * width(), dy.cols());
  ensure_shape(w.dx, width(), dy.cols());
  recur_backward(dy, cache, d_states, w);
  // a = W_ih' x + b_ih + W_hh' h + b_hh
  Linear<S>::backward_input(w.d_gates, parameters_.weight_ih, w.dx);
  cache.order.for_each_token([&](Index packed, Index t) { dx.col(t) = w.dx.col(packed); });
  Linear<S>::backward_weight(w.d_gates, cache.x, grad.weight_ih);
  Linear<S>::backward_weight(w.d_gates, cache.h_before, grad.weight_hh);
  const Vector<S> d_bias = sum_of_tokens<S>(w.d_gates);
  grad.bias_ih += d_bias;
  grad.bias_hh += d_bias;
}

template <ttt::Scalar S>
void LSTM<S>::step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& workspace,
                   const RunOptions& options) const {
  eigen_assert(x_t.size() == width() && y_t.size() == width());
  const Parameters& p = parameters_;
  Workspace& w = workspace;
  Linear<S>::step(x_t, p.weight_ih, w.gates_t, options.decode_weights);
  Linear<S>::step(state.h, p.weight_hh, w.bias, options.decode_weights);
  w.gates_t += w.bias;
  w.bias = p.bias_ih + p.bias_hh;
  LSTMCell<S>::forward(w.bias, w.gates_t, state.c, state.h);
  y_t = state.h;
}

}  // namespace ttt
