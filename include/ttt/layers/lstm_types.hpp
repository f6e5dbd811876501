/// @file
/// The five types of an LSTM layer, and the order in which a batch runs. D width, B sequences, T
/// their tokens together. The four gates stand one below the other in the order i, f, g, o.
/// Tensors carry the names and bytes of torch.nn.LSTM.
/// Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ttt/core/random.hpp"
#include "ttt/layers/panel_matrix.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt {

struct LSTMConfig {
  Index width = 0;  ///< of the tokens and of the hidden state

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(width > 0, "LSTMConfig: width is ", width, ", expected a positive number");
  }
};

/// What the outer loop learns.
template <Scalar S>
struct LSTMParameters {
  Matrix<S> weight_ih, weight_hh;  // [D, 4D]
  Vector<S> bias_ih, bias_hh;      // [4D]

  static auto fields(auto& self) {
    return std::tuple(streamed(field("weight_ih_l0", self.weight_ih)),
                      streamed(field("weight_hh_l0", self.weight_hh)),
                      field("bias_ih_l0", self.bias_ih), field("bias_hh_l0", self.bias_hh));
  }

  /// Weights uniform in +-1/sqrt(D), as PyTorch has them; biases 0 but for the forget gate's, 1
  /// (Jozefowicz, Zaremba and Sutskever 2015).
  static LSTMParameters initial(const LSTMConfig& config, Random& random) {
    const Index D = config.width;
    const double bound = 1 / std::sqrt(static_cast<double>(D));
    LSTMParameters p;
    for (Matrix<S>* weight : {&p.weight_ih, &p.weight_hh}) {
      weight->resize(D, 4 * D);
      random.fill_uniform(*weight, -bound, bound);
    }
    p.bias_ih.setZero(4 * D);
    p.bias_ih.segment(D, D).setOnes();
    p.bias_hh.setZero(4 * D);
    return p;
  }
};

/// What a stream carries.
template <Scalar S>
struct LSTMState {
  Vector<S> h, c;  // [D] output and cell after the last token

  static auto fields(auto& self) { return std::tuple(field("h", self.h), field("c", self.c)); }
};

/// The order in which a batch runs: all sequences in lockstep, longest first, so that those which
/// have a token at time t are the first `live(t)`. "Packed" matrices hold the tokens in this order,
/// all of time 0, then all of time 1.
struct LockstepOrder {
  std::vector<Index> sequence;  // [B] by falling length: the places in the batch
  std::vector<Index> begin;     // [B] of these: the first column in the batch
  std::vector<Index> first;     // [longest + 1] first packed column of each time

  LockstepOrder() = default;
  explicit LockstepOrder(Lengths lengths) : sequence(lengths.size()), begin(lengths.size()) {
    const auto length = [&](Index s) { return lengths[static_cast<std::size_t>(s)]; };
    std::iota(sequence.begin(), sequence.end(), Index{0});
    std::vector<Index> starts(lengths.size());
    std::exclusive_scan(lengths.begin(), lengths.end(), starts.begin(), Index{0});
    std::stable_sort(sequence.begin(), sequence.end(),
                     [&](Index a, Index b) { return length(a) > length(b); });
    for (std::size_t j = 0; j < sequence.size(); ++j)
      begin[j] = starts[static_cast<std::size_t>(sequence[j])];
    const Index steps = sequence.empty() ? 0 : length(sequence[0]);
    auto live = std::ssize(sequence);
    first.assign(1, 0);
    for (Index t = 0; t < steps; ++t) {
      while (length(sequence[static_cast<std::size_t>(live - 1)]) <= t) --live;
      first.push_back(first.back() + live);
    }
  }

  Index sequences() const { return std::ssize(sequence); }
  Index steps() const { return std::ssize(first) - 1; }
  Index packed(Index t) const { return first[static_cast<std::size_t>(t)]; }
  Index live(Index t) const { return packed(t + 1) - packed(t); }
  /// The batch's column of time t of the j-th longest sequence.
  Index column(Index t, Index j) const { return begin[static_cast<std::size_t>(j)] + t; }

  /// Calls `body(packed column, batch column)` for every token.
  template <class Body>
  void for_each_token(Body&& body) const {
    for (Index t = 0; t < steps(); ++t)
      for (Index j = 0; j < live(t); ++j) body(packed(t) + j, column(t, j));
  }
};

/// What one forward leaves behind for one backward: packed matrices, a column a token.
template <Scalar S>
struct LSTMCache {
  LockstepOrder order;
  Matrix<S> x;                   // [D, T]
  Matrix<S> gates;               // [4D, T] i, f, g, o after their activations
  Matrix<S> h_before, c_before;  // [D, T] the state that each token met
};

/// Scratch memory of a layer.
template <Scalar S>
struct LSTMWorkspace {
  LSTMCache<S> cache;        // of a forward that keeps none
  PanelMatrix<S> recurrent;  // W_hh' forward, W_hh backward
  Matrix<S> h, c;            // [D, B] the states, or their adjoints, longest sequence first
  Matrix<S> d_gates, dx;     // [4D, T], [D, T], packed
  Vector<S> bias, gates_t;   // [4D]
};

}  // namespace ttt
