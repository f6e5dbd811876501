// The laws of a chunk (inner/chunk.hpp), written once for every inner model: its form equals the
// primal form and its adjoint equals differences, with random weights E of every pair of tokens,
// two carried sets of weights and two carries.
#pragma once

#include <gtest/gtest.h>

#include "inner/chunk_case.hpp"

namespace ttt::test {

template <class T>
double dot_product(const T& a, const T& b) {
  double sum = 0;
  for_each_tensor(
      [&](const TensorInfo&, const auto& x, const auto& y) { sum += x.cwiseProduct(y).sum(); }, a,
      b);
  return sum;
}

/// The slope of `loss` at 0 by differences of fourth order.
double slope(auto&& loss) {
  const double h = 1e-4;
  return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
}

template <class M>
void expect_adjoint_equals_differences(Index f, Index n, bool reads_anchor) {
  SCOPED_TRACE(concat("head width ", f, ", reads_anchor ", reads_anchor));
  const auto chunk = random_chunk<M>(f, n, 7);
  typename ChunkForm<double, M>::Trace trace;
  auto probe = run(chunk, reads_anchor, trace);
  Random random(99);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 1.0); }, probe);
  const auto grad = gradient(chunk, reads_anchor, probe, trace);
  for_each_tensor(
      [&](const TensorInfo& info, const auto&) {
        auto direction = zeros_like(chunk);
        for_each_tensor(
            [&](const TensorInfo& other, auto& d) {
              if (other.name == info.name) random.fill_normal(d, 1.0);
            },
            direction);
        direction.E.template triangularView<Eigen::StrictlyLower>().setZero();
        const double difference = slope([&](double step) {
          auto moved = chunk;
          for_each_tensor([&](const TensorInfo&, auto& x, const auto& d) { x += step * d; }, moved,
                          direction);
          typename ChunkForm<double, M>::Trace scratch_trace;
          return dot_product(run(moved, reads_anchor, scratch_trace), probe);
        });
        EXPECT_NEAR(dot_product(grad, direction), difference,
                    1e-8 * std::max(1.0, std::abs(difference)))
            << info.name;
      },
      chunk);
}

template <class M>
class ChunkLaws : public ::testing::Test {};
TYPED_TEST_SUITE_P(ChunkLaws);

TYPED_TEST_P(ChunkLaws, EqualsPrimalForm) {
  for (const auto& [f, n] : std::vector<std::pair<Index, Index>>{
           {6, 1}, {6, 2}, {6, 7}, {6, 16}, {32, 5}, {64, 16}, {64, 1}}) {
    auto chunk = random_chunk<TypeParam>(f, n, 10 + static_cast<std::uint64_t>(n));
    set_zero(chunk.X_1);
    set_zero(chunk.X_2);
    chunk.e = -chunk.E.col(n - 1);
    typename ChunkForm<double, TypeParam>::Trace trace;
    const auto result = run(chunk, true, trace);
    auto W = chunk.W;
    Matrix<double> O(f, n);
    InnerLoop<double, TypeParam>::primal_form(W.head(0), chunk.norm(), chunk.K, chunk.Q, chunk.V,
                                              chunk.E, O);
    EXPECT_LE((result.O - O).cwiseAbs().maxCoeff(), 1e-12 * O.cwiseAbs().maxCoeff());
    for_each_tensor(
        [](const TensorInfo& info, const auto& a, const auto& b) {
          EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-12 * b.cwiseAbs().maxCoeff()) << info.name;
        },
        result.W, W);
  }
}

/// With E = 0 a token's weights are what it reads of the anchor and of the carried sets.
TYPED_TEST_P(ChunkLaws, ReadsTheAnchorAndTheCarriedWeights) {
  using M = TypeParam;
  const Index f = 6;
  auto chunk = random_chunk<M>(f, 3, 12);
  chunk.E.setZero();
  typename ChunkForm<double, M>::Trace trace;
  for (const bool reads_anchor : {true, false}) {
    const Matrix<double> O = run(chunk, reads_anchor, trace).O;
    for (Index t = 0; t < 3; ++t) {
      auto W_t = zeros_like(chunk.W);
      for_each_tensor(
          [&](const TensorInfo&, auto& w, const auto& anchor, const auto& x_1, const auto& x_2) {
            w = chunk.read_1[t] * x_1 + chunk.read_2[t] * x_2;
            if (reads_anchor) w += anchor;
          },
          W_t, chunk.W, chunk.X_1, chunk.X_2);
      Vector<double> o(f);
      InnerLoop<double, M>::output(std::as_const(W_t).head(0), chunk.norm(), chunk.Q.col(t), o);
      EXPECT_LE((O.col(t) - o).cwiseAbs().maxCoeff(), 1e-12 * o.cwiseAbs().maxCoeff());
    }
  }
}

TYPED_TEST_P(ChunkLaws, ExplicitGradientEqualsDifferences) {
  using Loop = InnerLoop<double, TypeParam>;
  const auto chunk = random_chunk<TypeParam>(6, 1, 3);
  auto G = chunk.W;
  Loop::gradient(chunk.W.head(0), chunk.norm(), chunk.K.col(0), chunk.V.col(0), G.head(0));
  const double difference = slope([&](double step) {
    auto W = chunk.W;
    for_each_tensor([&](const TensorInfo&, auto& w, const auto& d) { w += step * d; }, W,
                    chunk.X_1);
    return Loop::loss(std::as_const(W).head(0), chunk.norm(), chunk.K.col(0), chunk.V.col(0));
  });
  // The rounded constants of GeluTanhRounded change the inner gradient itself by about 1e-9.
  EXPECT_NEAR(dot_product(G, chunk.X_1), difference, 1e-7 * std::abs(difference));
}

/// Head widths: any, and those that code is written for (output_rule.hpp).
TYPED_TEST_P(ChunkLaws, AdjointEqualsDifferencesForEveryInput) {
  expect_adjoint_equals_differences<TypeParam>(6, 5, true);
  expect_adjoint_equals_differences<TypeParam>(6, 5, false);
  for (const Index f : {32, 64}) expect_adjoint_equals_differences<TypeParam>(f, 5, true);
}

/// Whether it is the key or one number of the target, and in a stream as in a chunk.
TYPED_TEST_P(ChunkLaws, TokenThatIsNotANumberLeavesEarlierOutputsBitEqual) {
  const auto chunk = random_chunk<TypeParam>(6, 8, 5);
  typename ChunkForm<double, TypeParam>::Trace trace;
  const auto clean = run(chunk, true, trace);
  const auto is_poison = [](const auto& weights) {
    bool all = true;
    for_each_tensor(
        [&](const TensorInfo&, const auto& tensor) { all = all && tensor.array().isNaN().all(); },
        weights);
    return all;
  };
  for (const bool key : {true, false}) {
    auto poisoned = chunk;
    if (key) poisoned.K.col(4).setConstant(std::numeric_limits<double>::quiet_NaN());
    if (!key) poisoned.V(2, 4) = std::numeric_limits<double>::quiet_NaN();
    const auto result = run(poisoned, true, trace);
    EXPECT_TRUE(result.O.leftCols(4) == clean.O.leftCols(4));
    EXPECT_TRUE(result.O.rightCols(4).array().isNaN().all());
    EXPECT_TRUE(is_poison(result.W) && is_poison(result.X));

    auto R = chunk.X_1;
    const std::vector<CarriedWeights<double, TypeParam>> carried{
        {std::as_const(R).head(0), chunk.read_1.head(1)}};
    Vector<double> z(6);
    ChunkForm<double, TypeParam>::step(
        {chunk.W.head(0), true, carried, chunk.norm(), poisoned.K.col(4), poisoned.Q.col(4),
         poisoned.V.col(4), Matrix<double>()},
        chunk.e.head(1), R.head(0), z, trace);
    EXPECT_TRUE(z.array().isNaN().all() && is_poison(R));
  }
}

TYPED_TEST_P(ChunkLaws, StepEqualsAChunkOfOneToken) {
  using M = TypeParam;
  using Form = ChunkForm<double, M>;
  auto chunk = random_chunk<M>(6, 1, 4);
  typename Form::Trace trace;
  for (int token = 0; token < 2; ++token) {  // the trace of one step serves the next
    const double rate = 0.3, tau = 0.5;
    chunk.read_1[0] = -tau;
    chunk.E(0, 0) = rate * tau;
    auto R = chunk.X_1;
    const std::vector<CarriedWeights<double, M>> before{
        {std::as_const(chunk).X_1.head(0), chunk.read_1}};
    const std::vector<CarriedWeights<double, M>> after{{std::as_const(R).head(0), chunk.read_1}};
    const Vector<double> e = Vector<double>::Constant(1, rate);
    Vector<double> z(6), o(6);
    Form::step({std::as_const(chunk).W.head(0), true, after, chunk.norm(), chunk.K, chunk.Q,
                chunk.V, Matrix<double>()},
               e, R.head(0), z, trace);
    typename Form::Trace other;
    Form::forward(chunk.chunk(before, true), o, other);
    Form::carry(other, chunk.K, e, chunk.X_1.head(0));
    EXPECT_LE((z - o).cwiseAbs().maxCoeff(), 1e-12 * o.cwiseAbs().maxCoeff());
    for_each_tensor(
        [](const TensorInfo& info, const auto& a, const auto& b) {
          EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-12 * b.cwiseAbs().maxCoeff()) << info.name;
        },
        R, chunk.X_1);
  }
}

REGISTER_TYPED_TEST_SUITE_P(ChunkLaws, EqualsPrimalForm, ReadsTheAnchorAndTheCarriedWeights,
                            StepEqualsAChunkOfOneToken, ExplicitGradientEqualsDifferences,
                            AdjointEqualsDifferencesForEveryInput,
                            TokenThatIsNotANumberLeavesEarlierOutputsBitEqual);

}  // namespace ttt::test
