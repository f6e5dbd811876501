/// @file
/// One stream through a layer, forward and backward, in one go, in pieces or in a batch: what the
/// laws (laws.hpp) compare. The loss of a stream reads its outputs and its final state,
///   L = <dy, y> + <probe, state after>
/// so that its gradients show what an adjoint state carries, too.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support/tolerances.hpp"
#include "ttt/core/random.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt::test {

/// The state that the stream starts from, its inputs, and the loss.
template <SequenceLayer L>
struct Stream {
  using S = typename L::Scalar;
  std::optional<typename L::State> start;  // none: the layer's initial state
  Matrix<S> x, dy;                         // [width, T]
  std::uint64_t probe_seed = 0;
  RunOptions options;

  typename L::State start_of(const L& layer) const {
    return start ? *start : layer.initial_state();
  }
};

template <SequenceLayer L>
struct Outputs {
  Matrix<typename L::Scalar> y;  // [width, T]
  typename L::State state;       // after the last token

  static auto fields(auto& self) {
    return std::tuple(field("y", self.y), field("state", self.state));
  }
};

template <SequenceLayer L>
struct Outcome {
  Outputs<L> outputs;
  Matrix<typename L::Scalar> dx;  // [width, T]
  typename L::State d_state;      // dL/d(state before the first token)
  typename L::Parameters grad;    // with that of a learned initial state, if the stream began there

  static auto fields(auto& self) {
    return std::tuple(field("", self.outputs), field("dx", self.dx), field("d_state", self.d_state),
                      field("grad", self.grad));
  }
};

template <class S>
Matrix<S> random_matrix(Index rows, Index cols, Random& random) {
  Matrix<S> matrix(rows, cols);
  random.fill_normal(matrix, 1.0);
  return matrix;
}

/// Outputs hold NaN until they are written, so that what is added to or left out is seen.
template <class S>
Matrix<S> unwritten(Index rows, Index cols) {
  return Matrix<S>::Constant(rows, cols, std::numeric_limits<S>::quiet_NaN());
}

template <class T>
T random_like(const T& value, std::uint64_t seed) {
  T result = value;
  Random random(seed);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 1.0); },
                  result);
  return result;
}

template <class T>
void add_to(T& sum, const T& term) {
  for_each_tensor([](const TensorInfo&, auto& a, const auto& b) { a += b; }, sum, term);
}

template <class T>
double inner_product(const T& a, const T& b) {
  double sum = 0;
  for_each_tensor(
      [&](const TensorInfo&, const auto& x, const auto& y) { sum += x.cwiseProduct(y).sum(); }, a,
      b);
  return sum;
}

/// A stream of `tokens` tokens that starts after `lead` others; 0: at the initial state.
template <SequenceLayer L>
Stream<L> random_stream(const L& layer, Index lead, Index tokens, std::uint64_t seed) {
  using S = typename L::Scalar;
  Random random(seed);
  Stream<L> stream;
  stream.x = random_matrix<S>(layer.width(), tokens, random);
  stream.dy = random_matrix<S>(layer.width(), tokens, random);
  stream.probe_seed = random.next();
  if (lead == 0) return stream;
  const auto x = random_matrix<S>(layer.width(), lead, random);
  Matrix<S> y(layer.width(), lead);
  stream.start = layer.initial_state();
  layer.forward(x, *stream.start, y);
  return stream;
}

/// Cuts `tokens` into pieces of 0 to 6 tokens, many of which are single ones.
inline std::vector<Index> random_pieces(Index tokens, Random& random) {
  std::vector<Index> pieces;
  while (tokens > 0) {
    pieces.push_back(std::min(tokens, random.below(2) ? Index{1} : random.below(7)));
    tokens -= pieces.back();
  }
  return pieces;
}

/// Without a cache; with `by_step`, pieces of one token go through `step`.
template <SequenceLayer L>
Outputs<L> infer(const L& layer, const Stream<L>& stream, const std::vector<Index>& pieces,
                 bool by_step) {
  using S = typename L::Scalar;
  auto workspace = layer.workspace(1);
  Outputs<L> out{unwritten<S>(stream.x.rows(), stream.x.cols()), stream.start_of(layer)};
  Index begin = 0;
  for (const Index size : pieces) {
    if (by_step && size == 1) {
      layer.step(stream.x.col(begin), out.state, out.y.col(begin), workspace, stream.options);
    } else {
      layer.forward(stream.x.middleCols(begin, size), out.state, out.y.middleCols(begin, size),
                    workspace, stream.options);
    }
    begin += size;
  }
  return out;
}

template <SequenceLayer L>
Outputs<L> infer(const L& layer, const Stream<L>& stream) {
  return infer(layer, stream, {stream.x.cols()}, false);
}

/// Forward over the pieces, then backward over them in reverse, carrying the adjoint state.
template <SequenceLayer L>
Outcome<L> run(const L& layer, const Stream<L>& stream, const std::vector<Index>& pieces,
               typename L::Workspace& workspace, std::vector<typename L::Cache>& caches) {
  const auto unwritten_x = unwritten<typename L::Scalar>(stream.x.rows(), stream.x.cols());
  Outcome<L> out{{unwritten_x, stream.start_of(layer)},
                 unwritten_x,
                 layer.initial_state(),
                 zeros_like(layer.parameters())};
  caches.resize(pieces.size());
  Index token = 0;
  for (std::size_t i = 0; i < pieces.size(); token += pieces[i++])
    layer.forward(stream.x.middleCols(token, pieces[i]), out.outputs.state,
                  out.outputs.y.middleCols(token, pieces[i]), workspace, caches[i], stream.options);
  out.d_state = random_like(out.outputs.state, stream.probe_seed);
  for (std::size_t i = pieces.size(); i-- > 0;) {
    token -= pieces[i];
    layer.backward(stream.dy.middleCols(token, pieces[i]), caches[i], out.d_state,
                   out.dx.middleCols(token, pieces[i]), out.grad, workspace);
  }
  if (!stream.start) layer.backward_initial_state(out.d_state, out.grad);
  return out;
}

template <SequenceLayer L>
Outcome<L> run(const L& layer, const Stream<L>& stream, const std::vector<Index>& pieces) {
  auto workspace = layer.workspace(1);
  std::vector<typename L::Cache> caches;
  return run(layer, stream, pieces, workspace, caches);
}

template <SequenceLayer L>
Outcome<L> run(const L& layer, const Stream<L>& stream) {
  return run(layer, stream, {stream.x.cols()});
}

/// L, as defined above.
template <SequenceLayer L>
double loss(const L& layer, const Stream<L>& stream) {
  const Outputs<L> out = infer(layer, stream);
  return stream.dy.cwiseProduct(out.y).sum() +
         inner_product(random_like(out.state, stream.probe_seed), out.state);
}

/// The same for several streams at once; their gradients add up.
template <SequenceLayer L>
struct BatchOutcome {
  Matrix<typename L::Scalar> y, dx;  // [width, all tokens]
  std::vector<typename L::State> states, d_states;
  typename L::Parameters grad;

  static auto fields(auto& self) {
    return std::tuple(field("y", self.y), field("dx", self.dx), field("states", self.states),
                      field("d_states", self.d_states), field("grad", self.grad));
  }
};

template <SequenceLayer L>
std::vector<Index> lengths_of(const std::vector<Stream<L>>& streams) {
  std::vector<Index> lengths;
  for (const auto& stream : streams) lengths.push_back(stream.x.cols());
  return lengths;
}

template <SequenceLayer L>
BatchOutcome<L> run_batch(const L& layer, const std::vector<Stream<L>>& streams) {
  const std::vector<Index> lengths = lengths_of(streams);
  const Index tokens = std::accumulate(lengths.begin(), lengths.end(), Index{0});
  const auto nothing = unwritten<typename L::Scalar>(layer.width(), tokens);
  BatchOutcome<L> out{nothing, nothing, {}, {}, zeros_like(layer.parameters())};
  auto x = nothing, dy = nothing;
  Index begin = 0;
  for (const auto& stream : streams) {
    x.middleCols(begin, stream.x.cols()) = stream.x;
    dy.middleCols(begin, stream.x.cols()) = stream.dy;
    out.states.push_back(stream.start_of(layer));
    begin += stream.x.cols();
  }
  std::vector<typename L::State*> states, d_states;
  for (auto& state : out.states) states.push_back(&state);

  auto workspace = layer.workspace(1);
  typename L::Cache cache;
  layer.forward_batch(x, lengths, states, out.y, workspace, &cache, streams[0].options);
  for (std::size_t s = 0; s < streams.size(); ++s)
    out.d_states.push_back(random_like(out.states[s], streams[s].probe_seed));
  for (auto& d_state : out.d_states) d_states.push_back(&d_state);
  layer.backward_batch(dy, cache, d_states, out.dx, out.grad, workspace);
  return out;
}

template <SequenceLayer L>
BatchOutcome<L> run_separately(const L& layer, const std::vector<Stream<L>>& streams) {
  const std::vector<Index> lengths = lengths_of(streams);
  const Index tokens = std::accumulate(lengths.begin(), lengths.end(), Index{0});
  const auto nothing = unwritten<typename L::Scalar>(layer.width(), tokens);
  BatchOutcome<L> out{nothing, nothing, {}, {}, zeros_like(layer.parameters())};
  Index begin = 0;
  for (auto stream : streams) {
    stream.start = stream.start_of(layer);
    const Outcome<L> one = run(layer, stream);
    out.y.middleCols(begin, stream.x.cols()) = one.outputs.y;
    out.dx.middleCols(begin, stream.x.cols()) = one.dx;
    out.states.push_back(one.outputs.state);
    out.d_states.push_back(one.d_state);
    add_to(out.grad, one.grad);
    begin += stream.x.cols();
  }
  return out;
}

/// Every tensor within `tolerance` (relative_error), every plain number equal.
template <class A, class B>
void expect_close(const A& actual, const B& expected, double tolerance) {
  for_each_tensor([&](const TensorInfo& info, const auto& a,
                      const auto& b) { EXPECT_LE(relative_error(a, b), tolerance) << info.name; },
                  actual, expected);
  for_each_number(
      [](const std::string& name, const auto& a, const auto& b) { EXPECT_EQ(a, b) << name; },
      actual, expected);
}

/// Column-major tensors or blocks of whole columns.
template <class A, class B>
bool same_bits(const A& a, const B& b) {
  const auto bytes = static_cast<std::size_t>(a.size()) * sizeof(typename A::Scalar);
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (bytes == 0 || std::memcmp(a.data(), b.data(), bytes) == 0);
}

template <class T>
void expect_same_bits(const T& actual, const T& expected) {
  for_each_tensor([](const TensorInfo& info, const auto& a,
                     const auto& b) { EXPECT_TRUE(same_bits(a, b)) << info.name; },
                  actual, expected);
  for_each_number(
      [](const std::string& name, const auto& a, const auto& b) { EXPECT_EQ(a, b) << name; },
      actual, expected);
}

}  // namespace ttt::test
