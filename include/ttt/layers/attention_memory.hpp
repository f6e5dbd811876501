/// @file
/// How keys and values of a piece of T tokens enter an attention state, and how their adjoints
/// leave it. A piece is handed the columns that its tokens see, in the order of the stream:
///   without a window  the state's own columns 0, ..., length + T - 1
///   with one          a copy of the w - 1 tokens before the piece (or fewer), then the piece
/// The adjoint of a token that the ring has forgotten is what the piece's queries gave it.
#pragma once

#include <algorithm>
#include <span>
#include <utility>

#include "ttt/layers/attention_types.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt {

template <Scalar S>
struct AttentionMemory {
  using State = AttentionState<S>;
  using Sequence = AttentionSequence<S>;
  using Workspace = AttentionWorkspace<S>;

  /// Takes up the columns [begin, begin + tokens) of k and v. What the result sees stays as it is
  /// if `keep`, else until the state changes.
  static Sequence append(State& state, Index begin, Index tokens, const Matrix<S>& k,
                         const Matrix<S>& v, bool keep) {
    Sequence sequence{begin, tokens, state.length, state.keys.capacity(), 0, nullptr, nullptr};
    const auto own_k = k.middleCols(begin, tokens), own_v = v.middleCols(begin, tokens);
    if (state.window > 0) {
      sequence.first = std::min<Index>(state.length, state.window - 1);
      sequence.keys = append_to_ring(state, sequence.first, own_k, state.keys);
      sequence.values = append_to_ring(state, sequence.first, own_v, state.values);
    } else {
      grow(state, state.length + tokens);
      state.keys.write(state.length, tokens) = own_k;
      state.values.write(state.length, tokens) = own_v;
      sequence.first = state.length;
      sequence.keys = state.keys.share(keep ? state.length + tokens : 0);
      sequence.values = state.values.share(keep ? state.length + tokens : 0);
    }
    state.length += tokens;
    return sequence;
  }

  /// One token. Allocates only where the state is full.
  static void append_one(State& state, const Vector<S>& k_t, const Vector<S>& v_t) {
    grow(state, state.length + 1);
    const Index column = state.window > 0 ? state.length % state.window : state.length;
    state.keys.write(column, 1).col(0) = k_t;
    state.values.write(column, 1).col(0) = v_t;
    ++state.length;
  }

  /// Where backward adds up dk and dv, in the columns of the sequences: the adjoint states' own
  /// columns; for a window w.d_keys and w.d_values, which begin with what the ring was owed.
  static void begin_adjoint(std::span<const Sequence> sequences, States<State> d_states,
                            Workspace& w) {
    w.d_keys.resize(sequences.size());
    w.d_values.resize(sequences.size());
    w.d_keys_in.clear();
    w.d_values_in.clear();
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      State& d_state = *d_states[s];
      if (d_state.window > 0) {
        copy_from_ring(sequences[s], d_state, d_state.keys, w.d_keys[s]);
        copy_from_ring(sequences[s], d_state, d_state.values, w.d_values[s]);
      }
      w.d_keys_in.push_back(d_state.window > 0 ? &w.d_keys[s] : &d_state.keys.mutable_matrix());
      w.d_values_in.push_back(d_state.window > 0 ? &w.d_values[s]
                                                 : &d_state.values.mutable_matrix());
    }
  }

  /// Takes w.dk and w.dv of the sequences' tokens from there, and leaves the adjoint of the state
  /// before.
  static void end_adjoint(std::span<const Sequence> sequences, States<State> d_states,
                          Workspace& w) {
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const Sequence& sequence = sequences[s];
      State& d_state = *d_states[s];
      const auto own = [&](Matrix<S>& matrix) {
        return matrix.middleCols(sequence.first, sequence.tokens);
      };
      w.dk.middleCols(sequence.begin, sequence.tokens) = own(*w.d_keys_in[s]);
      w.dv.middleCols(sequence.begin, sequence.tokens) = own(*w.d_values_in[s]);
      d_state.length = sequence.length;
      if (d_state.window == 0) {
        d_state.keys.resize(sequence.length, sequence.capacity);
        d_state.values.resize(sequence.length, sequence.capacity);
      } else if (sequence.tokens > 0) {
        copy_to_ring(sequence, w.d_keys[s], d_state.keys);
        copy_to_ring(sequence, w.d_values[s], d_state.values);
      }
    }
  }

 private:
  /// The `before` tokens last read and then `own`; these replace the oldest in the ring.
  static std::shared_ptr<const Matrix<S>> append_to_ring(const State& state, Index before,
                                                         MatrixIn<S> own,
                                                         GrowingColumns<S>& columns) {
    const Index w = state.window;
    const std::int64_t length = state.length;
    auto seen = std::make_shared<Matrix<S>>(own.rows(), before + own.cols());
    Matrix<S>& ring = columns.mutable_matrix();
    for (Index c = 0; c < before; ++c) seen->col(c) = ring.col((length - before + c) % w);
    seen->rightCols(own.cols()) = own;
    for (Index t = std::max<Index>(0, own.cols() - w); t < own.cols(); ++t)
      ring.col((length + t) % w) = own.col(t);
    return seen;
  }

  static void copy_from_ring(const Sequence& sequence, const State& d_state,
                             const GrowingColumns<S>& ring, Matrix<S>& d_seen) {
    const Index w = d_state.window, count = sequence.first + sequence.tokens;
    d_seen.setZero(ring.rows(), count);
    for (Index c = std::max<Index>(0, count - w); c < count; ++c)
      d_seen.col(c) = ring.matrix().col((sequence.length - sequence.first + c) % w);
  }

  /// Columns that the piece wrote held tokens that it saw (taken from `d_seen`), or none, or one
  /// that no query saw: then their adjoint is zero.
  static void copy_to_ring(const Sequence& sequence, const Matrix<S>& d_seen,
                           GrowingColumns<S>& columns) {
    Matrix<S>& ring = columns.mutable_matrix();
    const Index w = ring.cols();
    for (Index t = std::max<Index>(0, sequence.tokens - w); t < sequence.tokens; ++t)
      ring.col((sequence.length + t) % w).setZero();
    for (Index c = 0; c < sequence.first; ++c)
      ring.col((sequence.length - sequence.first + c) % w) = d_seen.col(c);
  }
};

}  // namespace ttt
