/// @file
/// The inner loops of a TTT layer: every head of every sequence runs its mini-batches in order,
/// heads and sequences in parallel. Within a mini-batch that starts with the weights W,
///   W_t = W - tau_t sum_{s<=t} lr_s G_s,
/// and a stream may stop and go on at any token: a piece in the middle of a mini-batch reads and
/// extends the running sum R; the piece that completes it moves W (dual_form.hpp).
#pragma once

#include "ttt/inner/online_step.hpp"
#include "ttt/layers/sequence_layer.hpp"
#include "ttt/layers/ttt_types.hpp"

namespace ttt {

/// Cuts `length` tokens whose first has the place `position` of its mini-batch into pieces.
inline void append_pieces(Index sequence, Index begin, Index length, Index position,
                          Index mini_batch, std::vector<TTTPiece>& pieces) {
  for (Index done = 0; done < length;) {
    const Index size = std::min(mini_batch - position, length - done);
    pieces.push_back({sequence, begin + done, size, position, position + size == mini_batch});
    done += size;
    position = (position + size) % mini_batch;
  }
}

template <Scalar S, InnerModel M>
class TTTHeads {
 public:
  using Parameters = TTTParameters<S, M>;
  using State = TTTState<S, M>;
  using Cache = TTTCache<S, M>;
  using Workspace = TTTWorkspace<S, M>;
  using Scratch = TTTHeadScratch<S, M>;
  using Form = ChunkForm<S, M>;

  TTTHeads(const TTTConfig& config, const Parameters& parameters)
      : config_(config), parameters_(parameters) {}

  /// Reads q, k, v and rate of `a`, writes its z, and advances the states' weights.
  /// `pieces[first_piece[s]] ...` belong to sequence s. With `cache`, keeps the weights that each
  /// piece starts from.
  void forward(TTTActivations<S>& a, const std::vector<TTTPiece>& pieces,
               const std::vector<Index>& first_piece, VectorIn<S> tau, States<State> states,
               Workspace& workspace, Cache* cache) const {
    each_head(states.size(), workspace, [&](Index s, Index h, Scratch& scratch) {
      for (Index i = first_piece[s]; i < first_piece[s + 1]; ++i) {
        if (cache) keep(i, h, pieces[i], *states[s], *cache);
        forward_piece(pieces[i], h, tau, a, *states[s], scratch);
      }
    });
  }

  /// Reads workspace.dz, writes workspace.dq, dk, dv and d_gate (here d_rate), and adds what tau
  /// and the heads' norms receive. d_states: adjoints after in, before out.
  void backward(const Cache& cache, States<State> d_states, Parameters& grad,
                Workspace& workspace) const {
    const Index f = config_.head_width(), tasks = config_.heads * std::ssize(cache.lengths);
    workspace.d_tau.setZero(config_.mini_batch, tasks);
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
    if (piece.offset > 0) copy_weights(state.sums.head(h), cache.sums[i].head(h));
  }

  /// E(s, t) = lr_s tau_t; how the outputs read R, and the weights e with which the piece's
  /// gradients are carried on: into W where it ends the mini-batch, else into R.
  void prepare(const TTTPiece& piece, Index h, VectorIn<S> tau, const TTTActivations<S>& a,
               Scratch& scratch) const {
    scratch.rate = a.rate.row(h).segment(piece.begin, piece.size).transpose();
    ensure_shape(scratch.E, piece.size, piece.size);
    scratch.E.noalias() = scratch.rate * tau.segment(piece.offset, piece.size).transpose();
    scratch.read = -tau.segment(piece.offset, piece.size);
    scratch.e = piece.ends_mini_batch ? S(-tau[tau.size() - 1]) * scratch.rate : scratch.rate;
  }

  auto block(const Matrix<S>& tokens, const TTTPiece& piece, Index h) const {
    const Index f = config_.head_width();
    return tokens.block(h * f, piece.begin, f, piece.size);
  }
  auto block(Matrix<S>& tokens, const TTTPiece& piece, Index h) const {
    const Index f = config_.head_width();
    return tokens.block(h * f, piece.begin, f, piece.size);
  }

  using ConstHead = HeadWeights<const S, M::weight_count>;
  using Head = HeadWeights<S, M::weight_count>;

  /// Tokens at the start of a mini-batch read nothing but W: no earlier one left a gradient.
  Chunk<S, M> chunk(const TTTPiece& piece, Index h, const TTTActivations<S>& a, const ConstHead& W,
                    const CarriedWeights<S, M>& R, const Scratch& scratch) const {
    const std::span<const CarriedWeights<S, M>> carried(&R, piece.offset > 0 ? 1 : 0);
    return {W,
            true,
            carried,
            parameters_.norm(h),
            block(a.k, piece, h),
            block(a.q, piece, h),
            block(a.v, piece, h),
            scratch.E};
  }

  void forward_piece(const TTTPiece& piece, Index h, VectorIn<S> tau, TTTActivations<S>& a,
                     State& state, Scratch& scratch) const {
    prepare(piece, h, tau, a, scratch);
    auto W = state.weights.head(h), R = state.sums.head(h);
    const CarriedWeights<S, M> carried{std::as_const(state).sums.head(h), scratch.read};
    Form::forward(chunk(piece, h, a, std::as_const(state).weights.head(h), carried, scratch),
                  block(a.z, piece, h), scratch.trace);
    if (piece.ends_mini_batch && piece.offset > 0) finish_mini_batch(W, R, tau[tau.size() - 1]);
    Form::carry(scratch.trace, block(a.k, piece, h), scratch.e, piece.ends_mini_batch ? W : R);
  }

  void backward_piece(Index i, Index h, const Cache& cache, State& d_state, Workspace& workspace,
                      Scratch& scratch) const {
    const TTTPiece& piece = cache.pieces[i];
    const TTTActivations<S>& a = cache.activations;
    const Index f = config_.head_width(), task = piece.sequence * config_.heads + h;
    prepare(piece, h, cache.tau, a, scratch);
    const auto& sums = piece.offset > 0 ? cache.sums[i] : cache.weights[i];  // the latter is unread
    const CarriedWeights<S, M> carried{sums.head(h), scratch.read};
    const auto in = chunk(piece, h, a, cache.weights[i].head(h), carried, scratch);
    ensure_shape(scratch.O, f, piece.size);
    Form::forward(in, scratch.O, scratch.trace);

    auto dW = d_state.weights.head(h), dR = d_state.sums.head(h);
    auto d_tau = workspace.d_tau.col(task);
    if (piece.ends_mini_batch && piece.offset > 0)
      border_backward(carried.X, cache.tau, dW, dR, d_tau);
    for (auto* matrix : {&scratch.dK, &scratch.dQ, &scratch.dV})
      ensure_shape(*matrix, f, piece.size);
    ensure_shape(scratch.dE, piece.size, piece.size);
    scratch.d_read.resize(piece.size);
    scratch.d_e.resize(piece.size);
    const WrittenWeights<S, M> written{piece.ends_mini_batch
                                           ? std::as_const(d_state).weights.head(h)
                                           : std::as_const(d_state).sums.head(h),
                                       scratch.e, scratch.d_e};
    CarriedGradient<S, M> d_carried{dR, scratch.d_read};
    ChunkGradient<S, M> out{dW,
                            std::span(&d_carried, in.carried.size()),
                            norm_gradient(workspace, task),
                            scratch.dK,
                            scratch.dQ,
                            scratch.dV,
                            scratch.dE};
    Form::backward(in, std::span(&written, 1), scratch.trace, block(workspace.dz, piece, h), out,
                   scratch.adjoint);
    if (piece.offset == 0) set_zero(dR);
    block(workspace.dq, piece, h) = scratch.dQ;
    block(workspace.dk, piece, h) = scratch.dK;
    block(workspace.dv, piece, h) = scratch.dV;
    rates_backward(piece, h, cache.tau, scratch, d_tau, workspace);
  }

  /// Forward: W+ = W - tau_{b-1} R + (carry), R+ = 0.
  static void border_backward(const ConstHead& R, VectorIn<S> tau, const Head& dW, Head& dR,
                              VectorOut<S> d_tau) {
    const Index last = tau.size() - 1;
    for (std::size_t l = 0; l < M::weight_count; ++l) {
      d_tau[last] -= dW.W[l].cwiseProduct(R.W[l]).sum();
      d_tau[last] -= dW.b[l].cwiseProduct(R.b[l]).sum();
      dR.W[l] = -tau[last] * dW.W[l];
      dR.b[l] = -tau[last] * dW.b[l];
    }
  }

  /// Forward: E = lr tau', read = -tau, e = -tau_{b-1} lr at a border, else lr.
  void rates_backward(const TTTPiece& piece, Index h, VectorIn<S> tau, const Scratch& scratch,
                      VectorOut<S> d_tau, Workspace& workspace) const {
    const auto tau_piece = tau.segment(piece.offset, piece.size);
    auto d_rate = workspace.d_gate.row(h).segment(piece.begin, piece.size).transpose();
    d_rate = scratch.dE * tau_piece;
    d_tau.segment(piece.offset, piece.size) += scratch.dE.transpose() * scratch.rate;
    if (piece.offset > 0) d_tau.segment(piece.offset, piece.size) -= scratch.d_read;
    if (piece.ends_mini_batch) {
      d_rate -= tau[tau.size() - 1] * scratch.d_e;
      d_tau[tau.size() - 1] -= scratch.rate.dot(scratch.d_e);
    } else {
      d_rate += scratch.d_e;
    }
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
