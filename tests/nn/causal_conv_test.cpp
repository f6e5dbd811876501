#include "ttt/nn/causal_conv.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index D = 5;

/// A stream with everything that its gradient depends on, and what it gives back.
template <class S>
struct Problem {
  Matrix<S> x;       // [D, T]
  Matrix<S> weight;  // [K, D]
  Vector<S> bias;    // [D]
  Matrix<S> tail;    // [D, K-1]
  static auto fields(auto& self) {
    return std::tuple(field("x", self.x), field("weight", self.weight), field("bias", self.bias),
                      field("tail", self.tail));
  }
};

template <class S>
Problem<S> random_problem(Index width, Index K, Index T) {
  return {random_matrix<float>(width, T, 1).template cast<S>(),
          random_matrix<float>(K, width, 2).template cast<S>(),
          random_vector<float>(width, 3).template cast<S>(),
          random_matrix<float>(width, K - 1, 4).template cast<S>()};
}

/// Outputs and the tail after, from the definition.
template <class S>
Results<double> by_loops(const Problem<S>& p) {
  const Index past = p.tail.cols(), T = p.x.cols();
  const auto u = [&](Index d, Index s) {
    return static_cast<double>(s < past ? p.tail(d, s) : p.x(d, s - past));
  };
  Matrix<double> y(p.x.rows(), T), tail(p.x.rows(), past);
  for (Index d = 0; d < p.x.rows(); ++d) {
    for (Index t = 0; t < T; ++t) {
      y(d, t) = p.bias.size() > 0 ? static_cast<double>(p.bias(d)) : 0.0;
      for (Index j = 0; j <= past; ++j)
        y(d, t) += static_cast<double>(p.weight(j, d)) * u(d, t + j);
    }
    for (Index s = 0; s < past; ++s) tail(d, s) = u(d, T + s);
  }
  return {{y, tail}};
}

/// {y, tail after}, in the given pieces; a piece of -1 is one `step`.
template <class S>
Results<S> forward_in_pieces(const Problem<S>& p, const std::vector<Index>& pieces) {
  Matrix<S> y(p.x.rows(), p.x.cols()), tail = p.tail;
  Index begin = 0;
  for (const Index piece : pieces) {
    const Index size = std::abs(piece);
    if (piece < 0) {
      CausalConv<S>::step(p.x.col(begin), p.weight, p.bias, tail, y.col(begin));
    } else {
      CausalConv<S>::forward(p.x.middleCols(begin, size), p.weight, p.bias, tail,
                             y.middleCols(begin, size));
    }
    begin += size;
  }
  return {{y, tail}};
}

/// {dx, d_weight, d_bias, d_tail before}, from the last piece to the first.
template <class S>
Results<S> backward_in_pieces(const Problem<S>& p, const Matrix<S>& dy, const Matrix<S>& d_tail_end,
                              const std::vector<Index>& pieces) {
  std::vector<Matrix<S>> tails = {p.tail};
  std::vector<Index> begins = {0};
  for (const Index piece : pieces) {
    const auto x = p.x.middleCols(begins.back(), piece);
    Matrix<S> tail = tails.back(), y(p.x.rows(), piece);
    CausalConv<S>::forward(x, p.weight, p.bias, tail, y);
    tails.push_back(tail);
    begins.push_back(begins.back() + piece);
  }
  Problem<S> d = zeros_like(p);
  d.tail = d_tail_end;
  for (std::size_t i = pieces.size(); i-- > 0;) {
    const Index begin = begins[i], size = pieces[i];
    d.x.middleCols(begin, size).setConstant(S(9));  // must be overwritten
    CausalConv<S>::backward(dy.middleCols(begin, size), p.x.middleCols(begin, size), tails[i],
                            p.weight, d.tail, d.x.middleCols(begin, size), d.weight, d.bias);
  }
  return {{d.x, d.weight, d.bias, d.tail}};
}

std::vector<Index> random_pieces(Index total, Random& random) {
  std::vector<Index> pieces;
  while (total > 0) {
    pieces.push_back(std::min(total, random.below(6)));  // 0 is a piece too
    total -= pieces.back();
  }
  return pieces;
}

template <class S>
void expect_equal(const Results<S>& actual, const Results<S>& expected) {
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b) {
        EXPECT_LE(relative_error(a, b), tolerance::rounding<S>) << "result " << info.name;
      },
      actual, expected);
}

template <class S>
class CausalConvTest : public ::testing::Test {};
TYPED_TEST_SUITE(CausalConvTest, Scalars);

TYPED_TEST(CausalConvTest, ForwardAndStepEqualLoopsForEveryKernelAndLength) {
  using S = TypeParam;
  for (const Index K : {1, 2, 4, 5}) {
    for (const Index T : {0, 1, 2, 3, 4, 9, 130}) {
      for (const bool has_bias : {true, false}) {
        SCOPED_TRACE(concat("K ", K, ", T ", T, ", bias ", has_bias));
        auto problem = random_problem<S>(D, K, T);
        if (!has_bias) problem.bias.resize(0);
        const auto expected = by_loops(problem);
        const std::vector<Index> steps(static_cast<std::size_t>(T), -1);
        for (const auto& result :
             {forward_in_pieces(problem, {T}), forward_in_pieces(problem, steps)}) {
          EXPECT_LE(relative_error(result.tensors[0], expected.tensors[0]), tolerance::rounding<S>);
          EXPECT_EQ(result.tensors[1].template cast<double>(), expected.tensors[1]);
        }
      }
    }
  }
}

TYPED_TEST(CausalConvTest, RandomPiecesEqualTheWholeForwardAndBackward) {
  using S = TypeParam;
  Random random(11);
  for (const Index K : {1, 2, 4, 7}) {
    for (int round = 0; round < 20; ++round) {
      const Index T = random.below(30);
      const auto problem = random_problem<S>(D, K, T);
      const auto dy = random_matrix<S>(D, T, 5), d_tail = random_matrix<S>(D, K - 1, 6);
      const auto pieces = random_pieces(T, random);
      SCOPED_TRACE(concat("K ", K, ", T ", T, ", round ", round));
      expect_equal(forward_in_pieces(problem, pieces), forward_in_pieces(problem, {T}));
      expect_equal(backward_in_pieces(problem, dy, d_tail, pieces),
                   backward_in_pieces(problem, dy, d_tail, {T}));
    }
  }
}

TEST(CausalConvDoubleTest, BackwardEqualsDifferencesForEveryKernelAndLength) {
  for (const Index K : {1, 2, 4}) {
    for (const Index T : {0, 1, 2, 3, 5, 70}) {
      SCOPED_TRACE(concat("K ", K, ", T ", T));
      auto problem = random_problem<double>(D, K, T);
      const auto c = random_matrix<double>(D, T, 5), c_tail = random_matrix<double>(D, K - 1, 6);
      const auto result = backward_in_pieces(problem, c, c_tail, {T});
      const Problem<double> grad{result.tensors[0], result.tensors[1], result.tensors[2],
                                 result.tensors[3]};
      EXPECT_TRUE(check_gradient(problem, grad, [&] {
        const auto values = forward_in_pieces(problem, {T});
        return c.cwiseProduct(values.tensors[0]).sum() +
               c_tail.cwiseProduct(values.tensors[1]).sum();
      }));
    }
  }
}

TEST(CausalConvDoubleTest, BackwardAddsParameterGradientsAndTakesNoBias) {
  const auto problem = random_problem<double>(D, 4, 6);
  const auto dy = random_matrix<double>(D, 6, 5), d_tail = random_matrix<double>(D, 3, 6);
  const auto expected = backward_in_pieces(problem, dy, d_tail, {6});
  Matrix<double> tail = d_tail, dx(D, 6), d_weight = Matrix<double>::Ones(4, D);
  Vector<double> no_bias(0);
  CausalConv<double>::backward(dy, problem.x, problem.tail, problem.weight, tail, dx, d_weight,
                               no_bias);
  EXPECT_EQ(dx, expected.tensors[0]);
  EXPECT_LE(relative_error(d_weight.array() - 1, expected.tensors[1].array()),
            tolerance::rounding<double>);
  tail = d_tail;
  d_weight.setZero();
  Vector<double> d_bias = Vector<double>::Ones(D);
  CausalConv<double>::backward(dy, problem.x, problem.tail, problem.weight, tail, dx, d_weight,
                               d_bias);
  EXPECT_LE(relative_error(d_bias.array() - 1, expected.tensors[2].array()),
            tolerance::rounding<double>);
}

TEST(CausalConvDoubleTest, LaterTokensDoNotReachEarlierOutputs) {
  auto problem = random_problem<double>(D, 4, 9);
  const auto before = forward_in_pieces(problem, {9});
  problem.x.rightCols(4).setConstant(std::numeric_limits<double>::quiet_NaN());
  const auto after = forward_in_pieces(problem, {9});
  EXPECT_EQ(after.tensors[0].leftCols(5), before.tensors[0].leftCols(5));
  EXPECT_TRUE(after.tensors[0].rightCols(4).array().isNaN().all());
}

/// {y, tail after, dx, d_weight, d_bias, d_tail} of fixed float inputs, computed in S.
template <class S>
Results<S> run(Index width, Index T) {
  const auto problem = random_problem<S>(width, 4, T);
  const Matrix<S> dy = random_matrix<float>(width, T, 5).template cast<S>();
  auto results = forward_in_pieces(problem, {T});
  for (auto& tensor :
       backward_in_pieces(problem, dy, Matrix<S>(Matrix<S>::Zero(width, 3)), {T}).tensors)
    results.tensors.push_back(tensor);
  return results;
}

TEST(CausalConvFloatTest, AgreesWithDouble) {
  expect_close(run<float>(37, 150), run<double>(37, 150), tolerance::float_against_double);
}

TEST(CausalConvFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  expect_same_bits_for_any_threads([] { return run<float>(37, 5 * token_block + 1); });
}

TEST(CausalConvDoubleTest, RefusesWrongShapes) {
  const auto p = random_problem<double>(D, 4, 2);
  Matrix<double> tail = p.tail, y(D, 2), longer(D, 3), empty(0, D), d_weight(4, D),
                 short_tail(D, 2);
  Vector<double> bias = p.bias, wrong_bias(D - 1);
  using Conv = CausalConv<double>;
  EXPECT_THROW(Conv::forward(p.x, p.weight, p.bias, tail, longer), std::invalid_argument);
  EXPECT_THROW(Conv::forward(p.x, p.weight, wrong_bias, tail, y), std::invalid_argument);
  EXPECT_THROW(Conv::forward(p.x, p.weight, p.bias, short_tail, y), std::invalid_argument);
  EXPECT_THROW(Conv::forward(p.x, empty, p.bias, tail, y), std::invalid_argument);
  EXPECT_THROW(Conv::backward(longer, p.x, p.tail, p.weight, tail, y, d_weight, bias),
               std::invalid_argument);
  EXPECT_THROW(Conv::backward(y, p.x, p.tail, p.weight, short_tail, y, d_weight, bias),
               std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
