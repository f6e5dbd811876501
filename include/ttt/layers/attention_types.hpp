/// @file
/// The five types of an attention layer. D width, H heads, G heads of keys and values, f width of a
/// head, w window. Tensors carry the names and bytes of Hugging Face's LlamaAttention.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/random.hpp"
#include "ttt/layers/growing_columns.hpp"

namespace ttt {

/// Sizes and switches.
struct AttentionConfig {
  Index width = 0;
  Index heads = 1;
  Index key_value_heads = 0;  ///< heads / key_value_heads queries share keys; 0: as many as heads
  Index head_width = 0;       ///< 0: width / heads
  Index window = 0;           ///< tokens that a token sees, itself one of them; 0: all
  double rope_theta = 10000.0;

  Index groups() const { return key_value_heads > 0 ? key_value_heads : heads; }  // G
  Index channels() const { return head_width > 0 ? head_width : width / heads; }  // f
  Index query_rows() const { return heads * channels(); }                         // H f
  Index key_rows() const { return groups() * channels(); }                        // G f

  template <Scalar S>
  S score_scale() const {  // 1 / sqrt(f)
    return static_cast<S>(1 / std::sqrt(static_cast<double>(channels())));
  }

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(width > 0, "AttentionConfig: width is ", width, ", expected a positive number");
    require(heads > 0, "AttentionConfig: heads is ", heads, ", expected a positive number");
    require(key_value_heads >= 0, "AttentionConfig: key_value_heads is ", key_value_heads,
            ", expected at least 0");
    require(heads % groups() == 0, "AttentionConfig: heads ", heads,
            " is not a multiple of key_value_heads ", key_value_heads);
    require(head_width >= 0, "AttentionConfig: head_width is ", head_width,
            ", expected at least 0");
    require(head_width > 0 || width % heads == 0, "AttentionConfig: width ", width,
            " is not a multiple of heads ", heads, ", and head_width is not given");
    require(channels() % 2 == 0, "AttentionConfig: a head is ", channels(),
            " wide, expected an even number (rotary positions turn pairs of channels)");
    require(window >= 0, "AttentionConfig: window is ", window, ", expected at least 0");
    require(std::isfinite(rope_theta) && rope_theta > 0, "AttentionConfig: rope_theta is ",
            rope_theta, ", expected a positive number");
  }
};

/// What the outer loop learns: weights [in, out].
template <Scalar S>
struct AttentionParameters {
  Matrix<S> q_proj;          // [D, H f]
  Matrix<S> k_proj, v_proj;  // [D, G f]
  Matrix<S> o_proj;          // [H f, D]

  static auto fields(auto& self) {
    return std::tuple(streamed(field("q_proj.weight", self.q_proj)),
                      streamed(field("k_proj.weight", self.k_proj)),
                      streamed(field("v_proj.weight", self.v_proj)),
                      streamed(field("o_proj.weight", self.o_proj)));
  }

  /// Normal with `standard_deviation`.
  static AttentionParameters initial(const AttentionConfig& config, Random& random,
                                     double standard_deviation = 0.02) {
    const Index D = config.width, rows = config.query_rows(), key_rows = config.key_rows();
    AttentionParameters p{Matrix<S>(D, rows), Matrix<S>(D, key_rows), Matrix<S>(D, key_rows),
                          Matrix<S>(rows, D)};
    for (auto* weight : {&p.q_proj, &p.k_proj, &p.v_proj, &p.o_proj})
      random.fill_normal(*weight, standard_deviation);
    return p;
  }
};

/// What a stream carries: the keys (rotated) and values of the tokens that later ones may see.
/// Without a window column t belongs to token t, there is room for the smallest power of two of
/// tokens (or what was reserved), and columns from `length` on are zero. With one, keys and values
/// are rings of w columns: token t is in column t mod w.
template <Scalar S>
struct AttentionState {
  std::int64_t length = 0;         // tokens read
  std::int64_t window = 0;         // w; 0: the columns grow
  GrowingColumns<S> keys, values;  // [G f, capacity]

  static auto fields(auto& self) {
    return std::tuple(field("length", self.length), field("window", self.window),
                      field("keys", self.keys), field("values", self.values));
  }
};

/// Makes room for `capacity` tokens in all, so that `step` does not allocate before. A window's
/// ring has its room from the start.
template <Scalar S>
void reserve(AttentionState<S>& state, Index capacity) {
  if (state.window > 0 || capacity <= state.keys.capacity()) return;
  state.keys.resize(state.length, capacity);
  state.values.resize(state.length, capacity);
}

/// Room for all tokens below `length`. The capacity depends on the length and on what was reserved,
/// and not on the pieces that a stream was cut into.
template <Scalar S>
void grow(AttentionState<S>& state, Index length) {
  if (state.window > 0 || length <= state.keys.capacity()) return;
  reserve(state, static_cast<Index>(std::bit_ceil(static_cast<std::uint64_t>(length))));
}

/// A point of a stream to come back to: a length, or a copy of a window's ring.
template <Scalar S>
struct AttentionMark {
  std::int64_t length = 0;
  std::optional<AttentionState<S>> ring;
};

template <Scalar S>
AttentionMark<S> mark(const AttentionState<S>& state) {
  AttentionMark<S> point{state.length, std::nullopt};
  if (state.window > 0) point.ring = state;
  return point;
}

/// Goes back to a mark of the same stream; marks made after that point are then void.
/// Throws `std::invalid_argument` where the stream has not come as far as the mark.
template <Scalar S>
void rewind(AttentionState<S>& state, const AttentionMark<S>& point) {
  require(point.ring.has_value() == (state.window > 0) && point.length <= state.length,
          "rewind: the mark at token ", point.length, " is not of this stream, which has read ",
          state.length);
  if (point.ring) {
    state = *point.ring;
    return;
  }
  const auto undone = static_cast<Index>(state.length - point.length);
  for (auto* columns : {&state.keys, &state.values})
    if (undone > 0) columns->write(point.length, undone).setZero();
  state.length = point.length;
}

/// The tokens of one sequence of a batch, and the columns of keys and values that they see.
template <Scalar S>
struct AttentionSequence {
  Index begin, tokens;                            // columns [begin, begin + tokens) of the batch
  std::int64_t length;                            // of the state before
  Index capacity;                                 // of the state before
  Index first;                                    // column of its first token
  std::shared_ptr<const Matrix<S>> keys, values;  // [G f, first + tokens, or more]
};

/// Intermediate values of a forward, one column a token of the batch.
template <Scalar S>
struct AttentionActivations {
  Matrix<S> q;            // [H f, T] rotated
  Matrix<S> out;          // [H f, T] before the output projection
  Matrix<S> log_sum_exp;  // [T, H] of the scores
};

/// What one forward leaves behind for one backward. Keys and values of earlier tokens are shared
/// with the state, not copied (a window's are).
template <Scalar S>
struct AttentionCache {
  Matrix<S> x;
  AttentionActivations<S> activations;
  std::vector<AttentionSequence<S>> sequences;
};

/// One thread's scratch: n queries, m keys.
template <Scalar S>
struct AttentionScratch {
  Matrix<S> q, out, d_out, dq;   // [f, n]
  Matrix<S> k, v, dk, dv;        // [f, m]
  Matrix<S> scores, d_scores;    // [m, n]
  Vector<S> highest, sum;        // [n] of the scores so far: maximum, sum of exp(score - maximum)
  Vector<S> log_sum_exp, delta;  // [n]
  Index first_query = 0, first_key = 0;
};

/// Scratch memory of a layer.
template <Scalar S>
struct AttentionWorkspace {
  AttentionActivations<S> activations;
  Matrix<S> k, v, dk, dv;                          // [G f, T]
  Matrix<S> d_out, dq;                             // [H f, T]; of dq one for each share of the keys
  Matrix<S> delta;                                 // [T, H]
  std::vector<Matrix<S>> d_keys, d_values;         // of each sequence, with a window
  std::vector<Matrix<S>*> d_keys_in, d_values_in;  // where those of each sequence are, in backward
  std::vector<AttentionScratch<S>> scratch;        // one for each thread
  Vector<S> q_t, k_t, v_t, out_t, highest, sum;    // one token: [H f], [G f], [H]
  Matrix<S> scores;                                // [step tile, H]
};

}  // namespace ttt
