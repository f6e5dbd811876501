/// @file
/// The selective scans of a batch: blocks of channels (selective_scan.hpp) of all sequences in
/// parallel. What blocks share, dB and dC, and what sequences share, the gradients of coefficients,
/// they write side by side; the sums then run in the order of blocks and of sequences.
#pragma once

#include "ttt/core/parallel.hpp"
#include "ttt/layers/mamba_types.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt {

template <Scalar S>
class MambaScan {
 public:
  using Block = ScanBlock<S>;
  using Parameters = MambaParameters<S>;
  using State = MambaState<S>;
  using Cache = MambaCache<S>;
  using Workspace = MambaWorkspace<S>;
  using Activations = MambaActivations<S>;

  MambaScan(const MambaConfig& config, const Parameters& parameters)
      : config_(config), parameters_(parameters) {}

  /// Reads projected (z), u, selected and dt of `a`, writes its y [E, T], and advances the states.
  /// With `cache`, keeps what backward starts its chunks from.
  void forward(Activations& a, Lengths lengths, States<State> states, Workspace& workspace,
               Cache* cache) const {
    std::vector<Matrix<S>> none(cache ? 0 : states.size());
    std::vector<Matrix<S>>& borders = cache ? cache->borders : none;
    borders.resize(states.size());
    if (cache) {
      for (std::size_t s = 0; s < states.size(); ++s)
        ensure_shape(borders[s], inner(), config_.state_size * Block::chunks(lengths[s]));
    }
    each_block(lengths, workspace, [&](std::size_t s, Index b, Index begin, Block& block) {
      block.reserve_forward(config_.state_size);
      block.forward(parameters_.scan(), inputs(a, begin, lengths[s]), b * Block::lanes,
                    states[s]->ssm, a.y.middleCols(begin, lengths[s]), borders[s]);
    });
  }

  /// Reads dy [E, T], the adjoint of y. Writes that of z into d.projected, of u and dt, and of B
  /// and C into d.selected; adds the coefficients' gradients; d_states: after in, before out.
  void backward(MatrixIn<S> dy, const Cache& cache, States<State> d_states, Activations& d,
                Parameters& grad, Workspace& workspace) const {
    const Index N = config_.state_size, E = inner(), blocks = Block::blocks(E);
    ensure_shape(workspace.shares, 2 * N * blocks, dy.cols());
    ensure_shape(workspace.d_coefficients, N + 2, E * std::ssize(cache.lengths));
    each_block(cache.lengths, workspace, [&](std::size_t s, Index b, Index begin, Block& block) {
      const Index size = cache.lengths[s];
      block.reserve_backward(N);
      block.backward(
          parameters_.scan(), inputs(cache.activations, begin, size), dy.middleCols(begin, size),
          cache.borders[s], b * Block::lanes, d_states[s]->ssm,
          {d.u.middleCols(begin, size), d.dt.middleCols(begin, size),
           d.projected.block(E, begin, E, size), workspace.shares.block(2 * N * b, begin, N, size),
           workspace.shares.block(2 * N * b + N, begin, N, size),
           workspace.d_coefficients.middleCols(static_cast<Index>(s) * E, E)});
    });
    add_shares(workspace.shares, d.selected.bottomRows(2 * N));
    for (std::size_t s = cache.lengths.size(); s-- > 0;)
      add_coefficients(workspace.d_coefficients.middleCols(static_cast<Index>(s) * E, E), grad);
  }

  /// One token in workspace.projected, u, selected, dt: writes workspace.y.
  void step(State& state, Workspace& w) const {
    const Index N = config_.state_size;
    const ScanInputs<S> in{w.u, w.dt, w.projected.tail(inner()),
                           w.selected.segment(config_.rank(), N), w.selected.tail(N)};
    Matrix<S> none;
    for (Index first = 0; first < inner(); first += Block::lanes)
      w.blocks[0].forward(parameters_.scan(), in, first, state.ssm, w.y, none);
  }

 private:
  Index inner() const { return config_.inner(); }

  ScanInputs<S> inputs(const Activations& a, Index begin, Index size) const {
    const Index E = inner(), N = config_.state_size, R = config_.rank();
    return {a.u.middleCols(begin, size), a.dt.middleCols(begin, size),
            a.projected.block(E, begin, E, size), a.selected.block(R, begin, N, size),
            a.selected.block(R + N, begin, N, size)};
  }

  /// Calls `body(sequence, block, its first token, scratch)`.
  template <class Body>
  void each_block(Lengths lengths, Workspace& workspace, Body&& body) const {
    std::vector<Index> begins(1, 0);
    for (const Index length : lengths) begins.push_back(begins.back() + length);
    if (std::ssize(workspace.blocks) < available_threads())
      workspace.blocks.resize(static_cast<std::size_t>(available_threads()));
    const Index blocks = Block::blocks(inner());
    parallel_for(
        blocks * std::ssize(lengths), std::ssize(workspace.blocks), [&](Index task, Index slot) {
          const auto s = static_cast<std::size_t>(task / blocks);
          body(s, task % blocks, begins[s], workspace.blocks[static_cast<std::size_t>(slot)]);
        });
  }

  /// sum = the blocks' shares [2N * blocks, T], added up
  static void add_shares(const Matrix<S>& shares, MatrixOut<S> sum) {
    const Index rows = sum.rows();
    parallel_blocks(sum.cols(), token_block, [&](Index begin, Index size) {
      auto total = sum.middleCols(begin, size);
      total = shares.block(0, begin, rows, size);
      for (Index first = rows; first < shares.rows(); first += rows)
        total += shares.block(first, begin, rows, size);
    });
  }

  void add_coefficients(MatrixIn<S> sums, Parameters& grad) const {
    const Index N = config_.state_size;
    grad.A_log += sums.topRows(N);
    grad.D += sums.row(N).transpose();
    grad.dt_proj_bias += sums.row(N + 1).transpose();
  }

  const MambaConfig& config_;
  const Parameters& parameters_;
};

}  // namespace ttt
