/// @file
/// The LSTM layer of a width that its type says, one token at a time: for audio, robots and
/// microcontrollers. Layer and state are plain blocks of memory, and nothing is ever allocated.
///   i, f, o = sigma(a), g = tanh(a),  a = W_ih' x + b_ih + W_hh' h + b_hh
///   c' = f . c + i . g,   y = h' = o . tanh(c')
/// Both products are one, with [x; h], and its panels hold the four gates of the same channels:
/// what follows the product happens in registers. sigma(a) = (1 + tanh(a / 2)) / 2, and the halves
/// are in the weights. Training, and reading many tokens at once, are the dynamic layer's. Source:
/// Hochreiter and Schmidhuber 1997; the layer of lstm.hpp, number by number.
#pragma once

#include <type_traits>

#include "ttt/core/fixed_matrix.hpp"
#include "ttt/layers/lstm.hpp"

namespace ttt {

/// A large one (its weights are 8 width^2 numbers) belongs in static memory or on the heap.
template <ttt::Scalar S, int width>
class FixedLSTM {
  static_assert(width > 0, "FixedLSTM<S, width>: the width is not positive");

 public:
  using Scalar = S;
  using Dynamic = LSTM<S>;

  struct State {
    FixedVector<S, width> h, c;  // output and cell after the last token
  };

  /// Copies the weights. Throws `std::invalid_argument` where the layer has another width.
  explicit FixedLSTM(const Dynamic& layer) {
    require(layer.width() == width, "FixedLSTM: the layer's width is ", layer.width(),
            ", expected ", width);
    const auto& p = layer.parameters();
    for (int gate = 0; gate < gates; ++gate) {
      const S factor = gate == 2 ? S(1) : S(0.5);  // g has no sigma
      for (int channel = 0; channel < width; ++channel) {
        const int from = gate * width + channel, to = row(gate, channel);
        bias_[place(to)] = factor * (p.bias_ih[from] + p.bias_hh[from]);
        for (int j = 0; j < width; ++j) {
          weights_(to, j) = factor * p.weight_ih(j, from);
          weights_(to, width + j) = factor * p.weight_hh(j, from);
        }
      }
    }
  }

  /// A new stream: h = c = 0.
  State initial_state() const { return {}; }

  /// Where a stream is that the dynamic layer has read. Throws `std::invalid_argument` where the
  /// state has another width.
  static State from(const LSTMState<S>& dynamic) {
    require_shape("FixedLSTM: the state's h", dynamic.h, width, 1);
    require_shape("FixedLSTM: the state's c", dynamic.c, width, 1);
    State state;
    std::copy_n(dynamic.h.data(), width, state.h.data());
    std::copy_n(dynamic.c.data(), width, state.c.data());
    return state;
  }

  /// The same for the dynamic layer: to read many tokens at once, to be saved.
  static LSTMState<S> to_dynamic(const State& state) {
    return {Eigen::Map<const Vector<S>>(state.h.data(), width),
            Eigen::Map<const Vector<S>>(state.c.data(), width)};
  }

  /// One token: x_t, y_t [width], which may be the same memory.
  void step(const S* x_t, State& state, S* y_t) const {
    FixedVector<S, 2 * width> xh;  // a copy: h changes while later panels still read it
    std::copy_n(x_t, width, xh.data());
    std::copy_n(state.h.data(), width, xh.data() + width);
    for (int channel = 0; channel < width; channel += lanes) {
      const LaneAt<S, lanes> at{channel};
      const auto a = weights_.template product<gates>(gates * channel, xh.data());  // one panel
      const auto gate = [&](int k) TTT_INLINE_LAMBDA {
        return tanh(a.lanes[k] + Lane<S, lanes>(bias_.data() + gates * channel + k * lanes));
      };
      const Lane<S, lanes> i = sigma(gate(0)), f = sigma(gate(1)), g = gate(2), o = sigma(gate(3));
      const Lane<S, lanes> c = multiply_add(f, at(state.c.data()), i * g), h = o * tanh(c);
      at.store(state.c.data(), c);
      at.store(state.h.data(), h);
      at.store(y_t, h);
    }
  }

 private:
  static constexpr int gates = 4, lanes = lanes_dividing<S, width>;
  using Weights = FixedMatrix<S, gates * width, 2 * width, lanes>;

  static constexpr std::size_t place(int i) { return static_cast<std::size_t>(i); }
  /// Of a gate in the order of the panels.
  static constexpr int row(int gate, int channel) {
    return channel / lanes * lanes * gates + gate * lanes + channel % lanes;
  }
  /// sigma(2 a) of tanh(a)
  static Lane<S, lanes> sigma(const Lane<S, lanes>& tanh_a) {
    return multiply_add(Lane<S, lanes>(S(0.5)), tanh_a, Lane<S, lanes>(S(0.5)));
  }

  Weights weights_;
  FixedVector<S, gates * width> bias_;

  static_assert(std::is_trivially_copyable_v<State> && std::is_trivially_copyable_v<Weights>);
};

}  // namespace ttt
