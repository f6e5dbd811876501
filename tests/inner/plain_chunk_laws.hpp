/// @file
/// The laws of a stack's chunk against its plain definition (inner/plain_chunk.hpp), differentiated
/// in reverse number by number: answers, carried weights, and the gradients of all that it reads.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "inner/chunk_case.hpp"
#include "inner/plain_chunk.hpp"
#include "support/tolerances.hpp"
#include "ttt/inner/mlp_model.hpp"

namespace ttt::test {

/// The same sums in another order, in double: measured errors are below 1e-13.
inline constexpr double plain_tolerance = 2e-12;

using Values = std::map<std::string, Matrix<double>>;  // by their names

Values values_of(const auto& tensors) {
  Values result;
  for_each_tensor([&](const TensorInfo& info, const auto& tensor) { result[info.name] = tensor; },
                  tensors);
  return result;
}
inline Matrix<double> value_of(const plain::Mat& numbers) {
  Matrix<double> result(numbers.rows(), numbers.cols());
  for (Index i = 0; i < result.size(); ++i) result.data()[i] = numbers.data()[i].value;
  return result;
}
inline plain::Tensors on_tape(const Values& values, Tape& tape) {
  plain::Tensors result;
  for (const auto& [name, value] : values) result[name] = tape.variables(value);
  return result;
}

/// L = <probe, results>; and its gradient in the inputs, of which those named in `unread` are zero.
inline void expect_equal_on_tape(Tape& tape, const plain::Tensors& inputs,
                                 const plain::Tensors& expected, const Values& results,
                                 const Values& probe, const Values& gradients,
                                 const std::vector<std::string>& unread) {
  TapeNumber L;
  for (const auto& [name, result] : results) {
    const auto& numbers = expected.at(name);
    EXPECT_LE(relative_error(result, value_of(numbers)), plain_tolerance) << name;
    for (Index i = 0; i < numbers.size(); ++i) L += probe.at(name).data()[i] * numbers.data()[i];
  }
  tape.differentiate(L);
  EXPECT_EQ(gradients.size(), inputs.size());
  for (const auto& [name, numbers] : inputs) {
    const auto gradient = tape.gradient(numbers);
    const bool is_read = std::ranges::find(unread, name) == unread.end();
    EXPECT_EQ(gradient.norm() > 0, is_read) << name;
    EXPECT_LE(relative_error(gradients.at(name), gradient), plain_tolerance) << name;
  }
}

template <class M>
void expect_equal_to_plain(Index f, Index n, bool reads_anchor, bool reads_own_tokens = true) {
  SCOPED_TRACE(concat("head width ", f, ", ", n, " tokens, reads_anchor ", reads_anchor,
                      ", reads_own_tokens ", reads_own_tokens));
  auto chunk = random_chunk<M>(f, n, 20 + static_cast<std::uint64_t>(f));
  if (!reads_own_tokens) chunk.E.resize(0, 0);
  typename ChunkForm<double, M>::Trace trace;
  const auto result = run(chunk, reads_anchor, trace);
  auto probe = result;
  Random random(98);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 1.0); }, probe);
  const auto grad = gradient(chunk, reads_anchor, probe, trace);

  Tape tape;
  const auto inputs = on_tape(values_of(chunk), tape);
  std::vector<std::string> unread;
  if (!M::Output::has_norm) unread = {"gamma", "beta"};
  expect_equal_on_tape(tape, inputs, plain::run<M>(inputs, reads_anchor), values_of(result),
                       values_of(probe), values_of(grad), unread);
}

template <class M>
class PlainChunkLaws : public ::testing::Test {};
TYPED_TEST_SUITE_P(PlainChunkLaws);

/// Head widths: any, and those that code is written for (output_rule.hpp).
TYPED_TEST_P(PlainChunkLaws, DualFormAndItsAdjointEqualIt) {
  for (const bool reads_anchor : {true, false}) {
    expect_equal_to_plain<TypeParam>(7, 5, reads_anchor);
    expect_equal_to_plain<TypeParam>(6, 4, reads_anchor, false);
  }
  for (const auto& [f, n] :
       std::vector<std::pair<Index, Index>>{{5, 1}, {13, 3}, {3, 17}, {32, 2}, {64, 2}})
    expect_equal_to_plain<TypeParam>(f, n, true);
}

/// By the tape, which shares no derivative with backpropagation.
TYPED_TEST_P(PlainChunkLaws, BackpropagationIsTheGradientOfTheLoss) {
  const auto chunk = random_chunk<TypeParam>(7, 1, 8);
  Tape tape;
  const auto inputs = on_tape(values_of(chunk), tape);
  const plain::Model<TypeParam> model{inputs};
  const auto W = model.weights("W");
  const auto k = plain::column(inputs.at("K"), 0), v = plain::column(inputs.at("V"), 0);
  const auto G = model.gradient(W, k, v);
  const TapeNumber loss = model.loss(W, k, v);
  tape.differentiate(loss);
  // The rounded constants of GeluTanhRounded change the inner gradient itself by about 1e-9.
  const double tolerance = std::same_as<TypeParam, MLPModelRoundedGelu> ? 1e-7 : plain_tolerance;
  for (std::size_t l = 0; l < W.size(); ++l) {
    EXPECT_LE(relative_error(value_of(G[l].W), tape.gradient(W[l].W)), tolerance);
    EXPECT_LE(relative_error(value_of(G[l].b), tape.gradient(W[l].b)), tolerance);
  }
  const double actual = InnerLoop<double, TypeParam>::loss(chunk.W.head(0), chunk.norm(),
                                                           chunk.K.col(0), chunk.V.col(0));
  EXPECT_NEAR(actual, loss.value, plain_tolerance * std::abs(loss.value));
}

REGISTER_TYPED_TEST_SUITE_P(PlainChunkLaws, DualFormAndItsAdjointEqualIt,
                            BackpropagationIsTheGradientOfTheLoss);

}  // namespace ttt::test
