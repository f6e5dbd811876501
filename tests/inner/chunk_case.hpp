/// @file
/// One chunk with random numbers (inner/chunk.hpp) for tests of any inner model: weights E of every
/// pair of tokens, two carried sets of weights and two carries; its forward and its adjoint.
#pragma once

#include "ttt/core/random.hpp"
#include "ttt/inner/inner_loop.hpp"

namespace ttt::test {

/// Everything that one chunk reads, as one struct with fields, so that it can be moved along a
/// random direction and hold its own gradient.
template <class M>
struct ChunkCase {
  InnerWeights<double, M> W, X_1, X_2;
  Vector<double> gamma, beta;             // [f]
  Matrix<double> K, Q, V;                 // [f, n]
  Matrix<double> E;                       // [n, n]
  Vector<double> read_1, read_2, e, e_2;  // [n]

  static auto fields(auto& self) {
    return std::tuple(field("W", self.W), field("X_1", self.X_1), field("X_2", self.X_2),
                      field("gamma", self.gamma), field("beta", self.beta), field("K", self.K),
                      field("Q", self.Q), field("V", self.V), field("E", self.E),
                      field("read_1", self.read_1), field("read_2", self.read_2),
                      field("e", self.e), field("e_2", self.e_2));
  }

  HeadNorm<double> norm() const {
    return {{gamma.data(), gamma.size()}, {beta.data(), beta.size()}};
  }
  std::vector<CarriedWeights<double, M>> carried() const {
    return {{X_1.head(0), read_1}, {X_2.head(0), read_2}};
  }
  Chunk<double, M> chunk(const std::vector<CarriedWeights<double, M>>& carried,
                         bool reads_anchor) const {
    return {W.head(0), reads_anchor, carried, norm(), K, Q, V, E};
  }
};

template <class M>
ChunkCase<M> random_chunk(Index f, Index n, std::uint64_t seed) {
  const auto weights = InnerWeights<double, M>::zero(1, f);
  const Matrix<double> tokens(f, n);
  const Vector<double> channel(f), token(n);
  ChunkCase<M> chunk{
      weights, weights, weights, channel, channel, tokens, tokens, tokens, Matrix<double>(n, n),
      token,   token,   token,   token};
  Random random(seed);
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor) {
        const bool large = info.name == "K" || info.name == "Q" || info.name == "V";
        random.fill_normal(tensor, large ? 1.0 : 0.3 * std::sqrt(6.0 / static_cast<double>(f)));
      },
      chunk);
  // Below the diagonal stands what must not be read.
  chunk.E.template triangularView<Eigen::StrictlyLower>().setConstant(
      std::numeric_limits<double>::quiet_NaN());
  return chunk;
}

/// Outputs [f, n] and what the chunk leaves behind: W and X_1, both with a carry.
template <class M>
struct ChunkResult {
  Matrix<double> O;
  InnerWeights<double, M> W, X;
  static auto fields(auto& self) {
    return std::tuple(field("O", self.O), field("W", self.W), field("X", self.X));
  }
};

template <class M>
ChunkResult<M> run(const ChunkCase<M>& chunk, bool reads_anchor,
                   typename ChunkForm<double, M>::Trace& trace) {
  using Form = ChunkForm<double, M>;
  ChunkResult<M> result{Matrix<double>(chunk.K.rows(), chunk.K.cols()), chunk.W, chunk.X_1};
  const auto carried = chunk.carried();
  Form::forward(chunk.chunk(carried, reads_anchor), result.O, trace);
  Form::carry(trace, chunk.K, chunk.e, result.W.head(0));
  Form::carry(trace, chunk.K, chunk.e_2, result.X.head(0));
  return result;
}

/// The adjoint of `run`, given that of its result.
template <class M>
ChunkCase<M> gradient(const ChunkCase<M>& chunk, bool reads_anchor, const ChunkResult<M>& d_result,
                      typename ChunkForm<double, M>::Trace& trace) {
  using Form = ChunkForm<double, M>;
  const Index f = chunk.K.rows();
  auto grad = zeros_like(chunk);
  grad.W = d_result.W;  // the carry went into W, so a dX is dW, in place
  grad.X_1 = d_result.X;
  auto d_X = d_result.X;
  const auto carried = chunk.carried();
  const std::vector<WrittenWeights<double, M>> written{
      {std::as_const(grad).W.head(0), chunk.e, grad.e},
      {std::as_const(d_X).head(0), chunk.e_2, grad.e_2}};
  std::vector<CarriedGradient<double, M>> d_carried{{grad.X_1.head(0), grad.read_1},
                                                    {grad.X_2.head(0), grad.read_2}};
  ChunkGradient<double, M> out{
      grad.W.head(0), d_carried, {{grad.gamma.data(), f}, {grad.beta.data(), f}}, grad.K, grad.Q,
      grad.V,         grad.E};
  typename Form::Scratch scratch;
  Form::backward(chunk.chunk(carried, reads_anchor), written, trace, d_result.O, out, scratch);
  return grad;
}

}  // namespace ttt::test
