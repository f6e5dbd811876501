// The dual form against the primal form, and its adjoint against differences, for stacks of depth
// one to three with random weights E of every pair of tokens.
#include "ttt/inner/dual_form_adjoint.hpp"

#include <gtest/gtest.h>

#include "ttt/core/random.hpp"
#include "ttt/inner/inner_loop.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"

namespace ttt {
namespace {

/// Everything that one chunk reads, as one struct with fields, so that it can be moved along a
/// random direction and hold its own gradient.
template <class M>
struct Chunk {
  StackWeights<double, M> W, R;
  Vector<double> gamma, beta;  // [f]
  Matrix<double> K, Q, V;      // [f, n]
  Matrix<double> E;            // [n, n]
  Vector<double> read, e;      // [n]

  static auto fields(auto& self) {
    return std::tuple(field("weights", self.W), field("sums", self.R), field("gamma", self.gamma),
                      field("beta", self.beta), field("K", self.K), field("Q", self.Q),
                      field("V", self.V), field("E", self.E), field("read", self.read),
                      field("e", self.e));
  }

  HeadNorm<double> norm() const {
    return {{gamma.data(), gamma.size()}, {beta.data(), beta.size()}};
  }
};

template <class M>
Chunk<M> random_chunk(Index f, Index n, std::uint64_t seed) {
  Chunk<M> chunk{StackWeights<double, M>::zero(1, f),
                 StackWeights<double, M>::zero(1, f),
                 Vector<double>(f),
                 Vector<double>(f),
                 Matrix<double>(f, n),
                 Matrix<double>(f, n),
                 Matrix<double>(f, n),
                 Matrix<double>(n, n),
                 Vector<double>(n),
                 Vector<double>(n)};
  Random random(seed);
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor) {
        const bool large = info.name == "K" || info.name == "Q" || info.name == "V";
        random.fill_normal(tensor, large ? 1.0 : 0.3 * std::sqrt(6.0 / static_cast<double>(f)));
      },
      chunk);
  chunk.E.template triangularView<Eigen::StrictlyLower>().setZero();
  return chunk;
}

/// Outputs [f, n] and what the chunk leaves behind: W and R plus carry into W.
template <class M>
struct Result {
  Matrix<double> O;
  StackWeights<double, M> W;
  static auto fields(auto& self) { return std::tuple(field("O", self.O), field("W", self.W)); }
};

template <class M>
Result<M> run(const Chunk<M>& chunk, DualFormTrace<double, M>& trace) {
  using Forward = DualForm<double, M>;
  Result<M> result{Matrix<double>(chunk.K.rows(), chunk.K.cols()), chunk.W};
  const typename Forward::Carried carried{chunk.R.head(0), chunk.read};
  Forward::forward(chunk.W.head(0), &carried, chunk.norm(), chunk.K, chunk.Q, chunk.V, chunk.E,
                   result.O, trace);
  Forward::carry(trace, chunk.K, chunk.e, result.W.head(0));
  return result;
}

template <class T>
double inner_product(const T& a, const T& b) {
  double sum = 0;
  for_each_tensor(
      [&](const TensorInfo&, const auto& x, const auto& y) { sum += x.cwiseProduct(y).sum(); }, a,
      b);
  return sum;
}

template <class M>
class DualFormTest : public ::testing::Test {};

struct PlainMLP : PlainStack<Tanh, 3> {};
using Models = ::testing::Types<LinearModel, MLPModel, MLPModelRoundedGelu, Stack<SiLU, 2, 3>,
                                PlainStack<Identity>, PlainMLP>;
TYPED_TEST_SUITE(DualFormTest, Models);

TYPED_TEST(DualFormTest, EqualsPrimalForm) {
  for (const auto& [f, n] : std::vector<std::pair<Index, Index>>{
           {6, 1}, {6, 2}, {6, 7}, {6, 16}, {32, 5}, {64, 16}, {64, 1}}) {
    auto chunk = random_chunk<TypeParam>(f, n, 10 + static_cast<std::uint64_t>(n));
    set_zero(chunk.R);
    chunk.e = -chunk.E.col(n - 1);
    DualFormTrace<double, TypeParam> trace;
    const Result<TypeParam> dual = run(chunk, trace);
    auto W = chunk.W;
    Matrix<double> O(f, n);
    InnerLoop<double, TypeParam>::primal_form(W.head(0), chunk.norm(), chunk.K, chunk.Q, chunk.V,
                                              chunk.E, O);
    EXPECT_LE((dual.O - O).cwiseAbs().maxCoeff(), 1e-12 * O.cwiseAbs().maxCoeff());
    for_each_tensor(
        [](const TensorInfo& info, const auto& a, const auto& b) {
          EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-12 * b.cwiseAbs().maxCoeff()) << info.name;
        },
        dual.W, W);
  }
}

TYPED_TEST(DualFormTest, ExplicitGradientEqualsDifferences) {
  using Loop = InnerLoop<double, TypeParam>;
  const auto chunk = random_chunk<TypeParam>(6, 1, 3);
  auto G = chunk.W;
  Loop::gradient(chunk.W.head(0), chunk.norm(), chunk.K.col(0), chunk.V.col(0), G.head(0));
  const auto direction = chunk.R;
  const auto loss = [&](double step) {
    auto W = chunk.W;
    for_each_tensor([&](const TensorInfo&, auto& w, const auto& d) { w += step * d; }, W,
                    direction);
    return Loop::loss(std::as_const(W).head(0), chunk.norm(), chunk.K.col(0), chunk.V.col(0));
  };
  const double h = 2e-4;
  const double difference = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
  // The rounded constants change the inner gradient itself by about 1e-9.
  EXPECT_NEAR(inner_product(G, direction), difference, 1e-7 * std::abs(difference));
}

/// Head widths: any, and those that code is written for (output_rule.hpp).
template <class M>
void expect_adjoint_equals_differences(Index f) {
  const auto chunk = random_chunk<M>(f, 5, 7);
  DualFormTrace<double, M> trace;
  const auto result = run(chunk, trace);
  auto probe = result;
  Random random(99);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 1.0); }, probe);

  using Adjoint = DualFormAdjoint<double, M>;
  const typename Adjoint::Carried carried{chunk.R.head(0), chunk.read};
  const typename Adjoint::Inputs inputs{chunk.W.head(0), &carried, chunk.norm(), chunk.K,
                                        chunk.Q,         chunk.V,  chunk.E,      chunk.e};
  auto grad = zeros_like(chunk);
  grad.W = probe.W;  // the carry went into W, so dX is dW, in place
  auto dR = grad.R.head(0);
  typename Adjoint::Outputs outputs{std::as_const(grad).W.head(0),
                                    grad.W.head(0),
                                    &dR,
                                    {{grad.gamma.data(), f}, {grad.beta.data(), f}},
                                    grad.K,
                                    grad.Q,
                                    grad.V,
                                    grad.E,
                                    grad.read,
                                    grad.e};
  typename Adjoint::Scratch scratch;
  Adjoint::backward(inputs, trace, probe.O, outputs, scratch);

  for_each_tensor(
      [&](const TensorInfo& info, const auto&) {
        auto direction = zeros_like(chunk);
        for_each_tensor(
            [&](const TensorInfo& other, auto& d) {
              if (other.name == info.name) random.fill_normal(d, 1.0);
            },
            direction);
        direction.E.template triangularView<Eigen::StrictlyLower>().setZero();
        const auto loss = [&](double step) {
          auto moved = chunk;
          for_each_tensor([&](const TensorInfo&, auto& x, const auto& d) { x += step * d; }, moved,
                          direction);
          DualFormTrace<double, M> scratch_trace;
          return inner_product(run(moved, scratch_trace), probe);
        };
        const double h = 2e-4;
        const double difference =
            (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
        EXPECT_NEAR(inner_product(grad, direction), difference,
                    1e-8 * std::max(1.0, std::abs(difference)))
            << info.name << ", head width " << f;
      },
      chunk);
}

TYPED_TEST(DualFormTest, AdjointEqualsDifferencesForEveryInput) {
  for (const Index f : {6, 32, 64}) expect_adjoint_equals_differences<TypeParam>(f);
}

TYPED_TEST(DualFormTest, TokenThatIsNotANumberLeavesEarlierOutputsBitEqual) {
  const auto chunk = random_chunk<TypeParam>(6, 8, 5);
  DualFormTrace<double, TypeParam> trace;
  const auto clean = run(chunk, trace);
  auto poisoned = chunk;
  poisoned.K.col(4).setConstant(std::numeric_limits<double>::quiet_NaN());
  const auto result = run(poisoned, trace);
  EXPECT_TRUE(result.O.leftCols(4) == clean.O.leftCols(4));
  EXPECT_TRUE(result.O.rightCols(4).array().isNaN().all());
  EXPECT_TRUE(result.W.W[0].array().isNaN().all());
}

}  // namespace
}  // namespace ttt
