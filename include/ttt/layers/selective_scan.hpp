/// @file
/// The selective scan: E channels of N states each, whose step sizes, inputs and outputs the tokens
/// choose (Gu and Dao 2023, arXiv 2312.00752, equations 2 and 4 and algorithm 2). For a channel,
///   dt_t = softplus(r_t + bias)     A = -exp(A_log)
///   h_t  = exp(dt_t A) o h_(t-1) + dt_t u_t B_t
///   s_t  = <h_t, C_t> + D u_t       y_t = s_t silu(z_t)
/// Channels meet in dB and dC alone, so a block of them is the unit of work, and its channels are
/// the lanes of all vectors here. Forward keeps h every `chunk` tokens; backward recomputes the
/// rest, chunk by chunk.
#pragma once

#include <algorithm>

#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"
#include "ttt/nn/activation.hpp"

namespace ttt {

/// What is learned.
template <Scalar S>
struct ScanCoefficients {
  MatrixView<S> A_log;    // [N, E]
  VectorView<S> D, bias;  // [E]
};

/// What a scan reads, one column a token.
template <Scalar S>
struct ScanInputs {
  using In = MatrixView<S>;
  In u, r, z;  // [E, T]
  In B, C;     // [N, T]
};

/// What its backward writes. dB and dC are one block's shares; a block writes the columns of its
/// channels in d_coefficients: dA_log, dD, d(bias).
template <Scalar S>
struct ScanGradients {
  using Out = MatrixOut<S>;
  Out du, dr, dz;      // [E, T]
  Out dB, dC;          // [N, T]
  Out d_coefficients;  // [N + 2, E]
};

/// Scratch of one block of channels, which runs through a sequence from end to end.
template <Scalar S>
class ScanBlock {
 public:
  static constexpr Index lanes = 64;  ///< channels of a block
  static constexpr Index chunk = 32;  ///< tokens between two states that forward keeps

  static Index blocks(Index channels) { return (channels + lanes - 1) / lanes; }
  static Index chunks(Index tokens) { return (tokens + chunk - 1) / chunk; }

  /// Memory for `states` states a channel.
  void reserve_forward(Index states) {
    for (Tile* tile : {&A_, &h_}) resize(*tile, states);
    for (Tile* tile : {&u_, &r_, &dt_, &z_, &s_, &gate_}) resize(*tile, chunk);
    ensure_shape(exp_A_, states, lanes);
  }
  void reserve_backward(Index states) {
    reserve_forward(states);
    for (Tile* tile : {&g_, &dA_}) resize(*tile, states);
    for (Tile* tile : {&dy_, &du_, &ddt_}) resize(*tile, chunk);
    resize(decays_, states * chunk);
    resize(trace_, states * (chunk + 1));
  }

  /// Channels [first, first + lanes), as far as they exist: writes their rows of y [E, T], advances
  /// those of `state` [E, N], and keeps the state before each chunk in `borders` [E, N * chunks],
  /// which may be empty.
  void forward(const ScanCoefficients<S>& coefficients, const ScanInputs<S>& in, Index first,
               MatrixOut<S> state, MatrixOut<S> y, MatrixOut<S> borders) {
    const Index states = in.B.rows();
    start(coefficients, first);
    get(state, h_);
    for (Index begin = 0; begin < in.u.cols(); begin += chunk) {
      const Index size = std::min(chunk, in.u.cols() - begin);
      if (borders.cols() > 0) put(h_, borders.middleCols(begin / chunk * states, states));
      read(in, begin, size);
      for (Index t = 0; t < size; ++t)
        advance(in.B.col(begin + t), in.C.col(begin + t), t, h_.data(), h_.data(), nullptr);
      add_skip(size);
      SiLU::value<S>(z_.leftCols(size), gate_.leftCols(size));
      s_.leftCols(size).array() *= gate_.leftCols(size).array();
      put(s_.leftCols(size), y.middleCols(begin, size));
    }
    put(h_, state);
  }

  /// Given dy [E, T] and, in d_state, the adjoint of the state after: replaces d_state by that of
  /// the state before, and overwrites its block of what `out` holds.
  void backward(const ScanCoefficients<S>& coefficients, const ScanInputs<S>& in, MatrixIn<S> dy,
                MatrixIn<S> borders, Index first, MatrixOut<S> d_state, ScanGradients<S> out) {
    const Index states = in.B.rows();
    start(coefficients, first);
    get(d_state, g_);
    dA_.setZero();
    d_D_.setZero();
    d_bias_.setZero();
    for (Index begin = (chunks(in.u.cols()) - 1) * chunk; begin >= 0; begin -= chunk) {
      const Index size = std::min(chunk, in.u.cols() - begin);
      read(in, begin, size);
      get(borders.middleCols(begin / chunk * states, states), trace_.leftCols(states));
      for (Index t = 0; t < size; ++t)
        advance(in.B.col(begin + t), in.C.col(begin + t), t, state_before(t), state_before(t + 1),
                decays_.data() + t * states * lanes);
      add_skip(size);
      get(dy.middleCols(begin, size), dy_.leftCols(size));
      gate_backward(size);
      put(gate_.leftCols(size), out.dz.middleCols(begin, size));
      for (Index t = size; t-- > 0;)
        retreat(in.B.col(begin + t), in.C.col(begin + t), t, out.dB.col(begin + t),
                out.dC.col(begin + t));
      step_backward(size);
      put(du_.leftCols(size), out.du.middleCols(begin, size));
      put(ddt_.leftCols(size), out.dr.middleCols(begin, size));
    }
    put(g_, d_state);
    dA_.array() *= A_.array();  // dA/dA_log = A
    auto sums = out.d_coefficients.middleCols(first, count_);
    sums.topRows(states) = dA_.topRows(count_).transpose();
    sums.row(states) = d_D_.head(count_).transpose();
    sums.row(states + 1) = d_bias_.head(count_).transpose();
  }

 private:
  using Tile = Eigen::Matrix<S, lanes, Eigen::Dynamic>;
  using Lanes = Eigen::Array<S, lanes, 1>;
  using State = Eigen::Map<Eigen::Array<S, lanes, Eigen::Dynamic>, Eigen::AlignedMax>;

  static void resize(Tile& tile, Index cols) {
    if (tile.cols() != cols) tile.resize(lanes, cols);
  }

  /// Lanes without a channel are zero, so that they add nothing to sums over channels.
  void get(MatrixIn<S> source, Eigen::Ref<Tile> tile) const {
    tile.topRows(count_) = source.middleRows(first_, count_);
    if (count_ < lanes) tile.bottomRows(lanes - count_).setZero();
  }
  void put(const Eigen::Ref<const Tile>& tile, MatrixOut<S> target) const {
    target.middleRows(first_, count_) = tile.topRows(count_);
  }

  void start(const ScanCoefficients<S>& coefficients, Index first) {
    first_ = first;
    count_ = std::min(lanes, coefficients.D.size() - first);
    // exp before the transposition, where it runs on packets
    auto exp_A = exp_A_.leftCols(count_);
    exp_A = coefficients.A_log.middleCols(first, count_).array().exp();
    A_.setZero();
    A_.topRows(count_) = -exp_A.transpose();
    for (Lanes* values : {&D_, &bias_}) values->setZero();
    D_.head(count_) = coefficients.D.segment(first, count_);
    bias_.head(count_) = coefficients.bias.segment(first, count_);
  }

  /// u, z, and dt = softplus(r + bias) of a chunk; exact in both directions: PyTorch's softplus
  /// is the identity above 20, 1e-10 of it away.
  void read(const ScanInputs<S>& in, Index begin, Index size) {
    get(in.u.middleCols(begin, size), u_.leftCols(size));
    get(in.z.middleCols(begin, size), z_.leftCols(size));
    get(in.r.middleCols(begin, size), r_.leftCols(size));
    for (Index t = 0; t < size; ++t) {
      auto r = r_.col(t).array();
      r += bias_;
      dt_.col(t) = (-r.abs()).exp().log1p() + r.max(S(0));
    }
  }

  /// One token: h = exp(dt A) o h_before + dt u B', s = h C. With `decays`, keeps exp(dt A).
  void advance(const auto& B, const auto& C, Index t, S* h_before, S* h_after, S* decays) {
    const Index states = B.size();
    const State before(h_before, lanes, states);
    State after(h_after, lanes, states);
    const Lanes dt = dt_.col(t), input = dt * u_.col(t).array();
    Lanes s = Lanes::Zero();
    for (Index n = 0; n < states; ++n) {
      const Lanes decay = (dt * A_.col(n).array()).exp();
      const Lanes h = decay * before.col(n) + input * B[n];
      if (decays) State(decays, lanes, states).col(n) = decay;
      after.col(n) = h;
      s += h * C[n];
    }
    s_.col(t) = s;
  }

  void add_skip(Index size) {
    for (Index t = 0; t < size; ++t) s_.col(t).array() += D_ * u_.col(t).array();
  }

  /// y = s o silu(z): dz in gate_, ds in dy_
  void gate_backward(Index size) {
    const auto z = z_.leftCols(size);
    auto dy = dy_.leftCols(size), gate = gate_.leftCols(size);
    SiLU::derivative<S>(z, gate);
    gate.array() *= dy.array() * s_.leftCols(size).array();
    SiLU::value<S>(z, s_.leftCols(size));
    dy.array() *= s_.leftCols(size).array();
  }

  /// One token backwards; g_ is the adjoint of the state after it, then of the state before.
  /// du_ and ddt_ receive the adjoints of dt u and, but for this product's, of dt.
  void retreat(const auto& B, const auto& C, Index t, auto&& dB, auto&& dC) {
    const Index states = B.size();
    const State before(state_before(t), lanes, states), after(state_before(t + 1), lanes, states);
    const State decays(decays_.data() + t * states * lanes, lanes, states);
    const Lanes dt = dt_.col(t), input = dt * u_.col(t).array(), ds = dy_.col(t);
    Lanes d_input = Lanes::Zero(), ddt = Lanes::Zero();
    for (Index n = 0; n < states; ++n) {
      const Lanes g = g_.col(n).array() + ds * C[n];
      dC[n] = (ds * after.col(n)).sum();
      dB[n] = (g * input).sum();
      d_input += g * B[n];
      const Lanes carried = g * decays.col(n);
      const Lanes d_exponent = carried * before.col(n);
      ddt += d_exponent * A_.col(n).array();
      dA_.col(n).array() += d_exponent * dt;
      g_.col(n) = carried;
    }
    du_.col(t) = d_input;
    ddt_.col(t) = ddt;
  }

  /// From the adjoints of dt u, dt and s to those of u and r: softplus'(r) = exp(r - softplus(r)).
  void step_backward(Index size) {
    for (Index t = 0; t < size; ++t) {
      const Lanes u = u_.col(t), dt = dt_.col(t), ds = dy_.col(t), d_input = du_.col(t);
      ddt_.col(t).array() += d_input * u;
      ddt_.col(t).array() *= (r_.col(t).array() - dt).exp();
      du_.col(t) = d_input * dt + D_ * ds;
    }
    for (Index t = size; t-- > 0;) {  // late tokens first, as everywhere in backward
      d_D_ += dy_.col(t).array() * u_.col(t).array();
      d_bias_ += ddt_.col(t).array();
    }
  }

  /// In trace_: the state before token t of the chunk.
  S* state_before(Index t) { return trace_.data() + t * A_.size(); }

  Index first_ = 0, count_ = 0;
  Lanes D_, bias_, d_D_, d_bias_;
  Matrix<S> exp_A_;                 // [N, lanes]
  Tile A_, h_, g_, dA_;             // a column for each state
  Tile u_, r_, dt_, z_, s_, gate_;  // a column for each token of the chunk
  Tile dy_, du_, ddt_;
  Tile decays_, trace_;  // states of token 0, of token 1, ...
};

}  // namespace ttt
