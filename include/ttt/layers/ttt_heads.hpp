/// @file
/// The inner loops of a TTT layer: every head of every sequence runs its mini-batches in order,
/// heads and sequences in parallel. A mini-batch is walked in pieces (ttt_piece.hpp), each a chunk
/// (inner/chunk.hpp) at the weights of the mini-batch's start; how the chunk reads what earlier
/// pieces left, and what it leaves, is the rule's update (updates/update.hpp).
#pragma once

#include "ttt/layers/sequence_layer.hpp"
#include "ttt/layers/ttt_types.hpp"

namespace ttt {

template <Scalar S, InnerModel M, UpdateRule Rule = PublishedRule>
class TTTHeads {
 public:
  using Parameters = TTTParameters<S, M>;
  using State = TTTState<S, M, Rule>;
  using Cache = TTTCache<S, M, Rule>;
  using Workspace = TTTWorkspace<S, M, Rule>;
  using Scratch = TTTHeadScratch<S, M, Rule>;
  using Form = ChunkForm<S, M>;
  using U = Update<S, M, Rule>;
  using Carried = typename U::Carried;
  static constexpr bool decays_first = RuleTraits<Rule>::decays_first;
  using ReadWeights = std::array<CarriedWeights<S, M>, U::carried_count>;

  TTTHeads(const TTTConfig& config, const Parameters& parameters)
      : config_(config), parameters_(parameters) {}

  /// Reads q, k, v and the rates of `a`, writes its z, and advances the states' weights.
  /// `pieces[first_piece[s]] ...` belong to sequence s. With `cache`, keeps the weights that each
  /// piece starts from. tau [b] is empty without token factors.
  void forward(TTTActivations<S>& a, const std::vector<TTTPiece>& pieces,
               const std::vector<Index>& first_piece, VectorIn<S> tau, States<State> states,
               Workspace& workspace, Cache* cache) const {
    each_head(states.size(), workspace, [&](Index s, Index h, Scratch& scratch) {
      for (Index i = first_piece[s]; i < first_piece[s + 1]; ++i) {
        const TTTPiece& piece = pieces[i];
        if (cache) keep(i, h, piece, *states[s], *cache);
        const S decay = read_rates(piece, h, tau, a, scratch.rates);
        forward_piece(piece, h, decay, block(a.k, piece, h), block(a.q, piece, h),
                      block(a.v, piece, h), block(a.z, piece, h), *states[s], scratch);
      }
    });
  }

  /// What the tokens of a piece say of their update. Returns the decay of W before the gradient, 0
  /// where the rule has none.
  static S read_rates(const TTTPiece& piece, Index h, VectorIn<S> tau, const TTTActivations<S>& a,
                      PieceRates<S>& rates) {
    const auto read = [&](Vector<S>& numbers, const Matrix<S>& of_heads) {
      numbers.resize(piece.size);
      for (Index t = 0; t < piece.size; ++t) numbers[t] = of_heads(h, piece.begin + t);
    };
    read(rates.theta, a.rate);
    if constexpr (RuleTraits<Rule>::Momentum::present) read(rates.mu, a.momentum);
    if constexpr (RuleTraits<Rule>::Forgetting::present && !decays_first)
      read(rates.alpha, a.forgetting);
    if constexpr (Rule::token_factors) {
      rates.tau.resize(piece.size);
      std::copy_n(tau.data() + piece.offset, piece.size, rates.tau.data());
      rates.last_tau = tau[tau.size() - 1];
    } else {
      rates.tau.setOnes(piece.size);
    }
    if constexpr (decays_first) return a.forgetting(h, piece.begin);
    return S(0);
  }

  /// One piece of one head: K, Q, V, z [f, n], its rates in `scratch.rates`, with `decay` as
  /// `read_rates` returned it. Allocates nothing where n is that of the last piece.
  void forward_piece(const TTTPiece& piece, Index h, S decay, MatrixIn<S> K, MatrixIn<S> Q,
                     MatrixIn<S> V, MatrixOut<S> z, State& state, Scratch& scratch) const {
    if constexpr (decays_first)
      for (auto current : U::current(state.weights, state.carried, h)) scale(current, S(1) - decay);
    const State& before = state;
    U::prepare(piece, scratch.rates, scratch.update);
    const ReadWeights read = U::read(before.weights, before.carried, h, piece, scratch.update);
    Form::forward(chunk(piece, h, K, Q, V, before.weights, h, read, scratch), z, scratch.trace);
    U::carry(scratch.trace, K, piece, scratch.rates, h, state.weights, state.carried,
             scratch.update);
  }

  /// Reads workspace.dz, writes workspace.dq, dk, dv and the adjoints of the rates, and adds what
  /// tau and the heads' norms receive. d_states: adjoints after in, before out.
  void backward(const Cache& cache, States<State> d_states, Parameters& grad,
                Workspace& workspace) const {
    const Index f = config_.head_width(), tasks = config_.heads * std::ssize(cache.lengths);
    workspace.d_tau.setZero(cache.tau.size(), tasks);
    workspace.d_norm_weight.setZero(f, tasks);
    workspace.d_norm_bias.setZero(f, tasks);
    each_head(cache.lengths.size(), workspace, [&](Index s, Index h, Scratch& scratch) {
      for (Index i = cache.first_piece[s + 1]; i-- > cache.first_piece[s];)
        backward_piece(i, h, cache, *d_states[s], workspace, scratch);
    });
    for (Index task = 0; task < tasks && M::Output::has_norm; ++task) {
      grad.norm_weight.col(task % config_.heads) += workspace.d_norm_weight.col(task);
      grad.norm_bias.col(task % config_.heads) += workspace.d_norm_bias.col(task);
    }
  }

 private:
  template <class Body>
  void each_head(std::size_t sequences, Workspace& workspace, Body&& body) const {
    const Index tasks = config_.heads * static_cast<Index>(sequences);
    if (std::ssize(workspace.heads) < available_threads())
      workspace.heads.resize(static_cast<std::size_t>(available_threads()));
    parallel_for(tasks, std::ssize(workspace.heads), [&](Index task, Index slot) {
      body(task / config_.heads, task % config_.heads, workspace.heads[slot]);
    });
  }

  static void keep(Index i, Index h, const TTTPiece& piece, const State& state, Cache& cache) {
    copy_weights(state.weights.head(h), cache.weights[i].head(h));
    if (U::keeps(piece)) copy_carried(state.carried, h, cache.carried[i], h);
  }

  /// One head of all that is carried.
  static void copy_carried(const Carried& from, Index from_head, Carried& to, Index to_head) {
    const auto copy = [&](const auto& a, auto& b) {
      if constexpr (requires { a.heads; }) {
        if (a.heads > 0) copy_weights(a.head(from_head), b.head(to_head));
      } else if (a.cols() > 0) {
        b.col(to_head) = a.col(from_head);
      }
    };
    const auto from_fields = Carried::fields(from);
    const auto to_fields = Carried::fields(to);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (copy(std::get<I>(from_fields).member, std::get<I>(to_fields).member), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(from_fields)>>{});
  }

  static auto tokens(Matrix<S>& of_heads, const TTTPiece& piece, Index h) {
    return of_heads.row(h).segment(piece.begin, piece.size).transpose();
  }

  auto block(const Matrix<S>& tokens, const TTTPiece& piece, Index h) const {
    const Index f = config_.head_width();
    return tokens.block(h * f, piece.begin, f, piece.size);
  }
  auto block(Matrix<S>& tokens, const TTTPiece& piece, Index h) const {
    const Index f = config_.head_width();
    return tokens.block(h * f, piece.begin, f, piece.size);
  }

  /// Of the weights in the place `slot` of `weights` and `carried`; the head itself is h.
  Chunk<S, M> chunk(const TTTPiece& piece, Index h, MatrixIn<S> K, MatrixIn<S> Q, MatrixIn<S> V,
                    const InnerWeights<S, M>& weights, Index slot, const ReadWeights& read,
                    const Scratch& scratch) const {
    const std::size_t count = U::reads_carried(piece) ? read.size() : 0;
    return {weights.head(slot),
            U::reads_anchor(),
            {read.data(), count},
            parameters_.norm(h),
            K,
            Q,
            V,
            U::kernel(scratch.update)};
  }

  /// What a piece started from: the cache's, or where weights decay first a decayed copy.
  struct Start {
    const InnerWeights<S, M>& weights;
    const Carried& carried;
    Index slot;
  };
  Start start(Index i, Index h, S decay, const Cache& cache, Scratch& scratch) const {
    if constexpr (!decays_first) {
      return {cache.weights[i], cache.carried[i], h};
    } else {
      if (scratch.weights.heads == 0) {
        scratch.weights = InnerWeights<S, M>::zero(1, config_.head_width());
        scratch.carried = U::initial(scratch.weights);
      }
      copy_weights(cache.weights[i].head(h), scratch.weights.head(0));
      if (U::keeps(cache.pieces[i])) copy_carried(cache.carried[i], h, scratch.carried, 0);
      for (auto current : U::current(scratch.weights, scratch.carried, 0))
        scale(current, S(1) - decay);
      return {scratch.weights, scratch.carried, 0};
    }
  }

  void backward_piece(Index i, Index h, const Cache& cache, State& d_state, Workspace& workspace,
                      Scratch& scratch) const {
    const TTTPiece& piece = cache.pieces[i];
    const TTTActivations<S>& a = cache.activations;
    const Index f = config_.head_width(), task = piece.sequence * config_.heads + h;
    const auto K = block(a.k, piece, h);
    const S decay = read_rates(piece, h, cache.tau, a, scratch.rates);
    scratch.d_rates.set_zero(scratch.rates);
    U::prepare(piece, scratch.rates, scratch.update);
    const Start before = start(i, h, decay, cache, scratch);
    const ReadWeights read =
        U::read(before.weights, before.carried, before.slot, piece, scratch.update);
    const auto in = chunk(piece, h, K, block(a.q, piece, h), block(a.v, piece, h), before.weights,
                          before.slot, read, scratch);
    ensure_shape(scratch.O, f, piece.size);
    Form::forward(in, scratch.O, scratch.trace);
    const auto written = U::carry_backward(before.weights, before.carried, before.slot, piece,
                                           scratch.rates, scratch.trace, K, h, d_state.weights,
                                           d_state.carried, scratch.d_rates, scratch.update);

    for (auto* matrix : {&scratch.dK, &scratch.dQ, &scratch.dV})
      ensure_shape(*matrix, f, piece.size);
    ensure_shape(scratch.dE, piece.size, piece.size);
    auto d_read = U::read_backward(d_state.carried, h, scratch.update);
    ChunkGradient<S, M> out{d_state.weights.head(h),
                            {d_read.data(), in.carried.size()},
                            norm_gradient(workspace, task),
                            scratch.dK,
                            scratch.dQ,
                            scratch.dV,
                            scratch.dE};
    if (piece.answers) {
      Form::backward(in, written, scratch.trace, block(workspace.dz, piece, h), out,
                     scratch.adjoint);
    } else {  // a later step of the same token wrote its output
      scratch.O.setZero();
      Form::backward(in, written, scratch.trace, scratch.O, out, scratch.adjoint);
    }
    U::rates_backward(piece, scratch.rates, scratch.dE, h, d_state.carried, scratch.d_rates,
                      scratch.update);
    write(block(workspace.dq, piece, h), scratch.dQ, piece);
    write(block(workspace.dk, piece, h), scratch.dK, piece);
    write(block(workspace.dv, piece, h), scratch.dV, piece);
    write_rates(piece, h, task, workspace, scratch);
    if constexpr (decays_first) decay_backward(i, h, decay, cache, d_state, workspace);
  }

  /// Inner steps of the same token add up; the last, which answers, comes first here.
  static void write(auto&& to, const auto& from, const TTTPiece& piece) {
    if (piece.answers) {
      to = from;
    } else {
      to += from;
    }
  }

  void write_rates(const TTTPiece& piece, Index h, Index task, Workspace& workspace,
                   const Scratch& scratch) const {
    const PieceRateGradients<S>& d = scratch.d_rates;
    write(tokens(workspace.d_rate, piece, h), d.d_theta, piece);
    if constexpr (RuleTraits<Rule>::Momentum::present)
      write(tokens(workspace.d_momentum, piece, h), d.d_mu, piece);
    if constexpr (RuleTraits<Rule>::Forgetting::present && !decays_first)
      write(tokens(workspace.d_forgetting, piece, h), d.d_alpha, piece);
    if constexpr (Rule::token_factors) {
      auto d_tau = workspace.d_tau.col(task);
      d_tau.segment(piece.offset, piece.size) += d.d_tau;
      d_tau[d_tau.size() - 1] += d.d_last_tau;
    }
  }

  /// Forward: W' = (1 - alpha) W, of all weights that are current.
  void decay_backward(Index i, Index h, S decay, const Cache& cache, State& d_state,
                      Workspace& workspace) const {
    const TTTPiece& piece = cache.pieces[i];
    S d_decay = 0;
    const auto before = U::current(cache.weights[i], cache.carried[i], h);
    const auto d_current = U::current(d_state.weights, d_state.carried, h);
    for (std::size_t j = 0; j < before.size(); ++j) {
      d_decay -= inner_product(d_current[j], before[j]);
      scale(d_current[j], S(1) - decay);
    }
    write(workspace.d_forgetting(h, piece.begin), d_decay, piece);
  }

  static HeadNormGradient<S> norm_gradient(Workspace& workspace, Index task) {
    const Index f = workspace.d_norm_weight.rows();
    return {{workspace.d_norm_weight.data() + task * f, f},
            {workspace.d_norm_bias.data() + task * f, f}};
  }

  const TTTConfig& config_;
  const Parameters& parameters_;
};

}  // namespace ttt
