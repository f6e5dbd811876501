// First-order inner models: the laws of a chunk, and equal to the dual form, which computes the
// same models and their adjoints by other formulas.
#include "ttt/inner/first_order_mlp.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "inner/chunk_laws.hpp"
#include "support/tolerances.hpp"
#include "ttt/inner/dual_form.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/inner/stages/gated.hpp"
#include "ttt/inner/stages/residual.hpp"

namespace ttt::test {
namespace {

/// z = W x, with or without a bias.
template <bool has_bias, class OutputRule>
struct OwnLinear {
  using Output = OutputRule;
  static constexpr std::size_t weight_count = 1;
  static WeightShape weight_shape(std::size_t, Index f) { return {f, f, has_bias}; }

  template <class T>
  using Weights = ModelWeights<T, weight_count>;
  template <class T>
  struct Saved {
    T x;
  };

  template <class T>
  static T predict(const Weights<T>& w, const T& x, Saved<T>& saved) {
    saved.x = x;
    if constexpr (has_bias) return add_column(w.W[0] * x, w.b[0]);
    return w.W[0] * x;
  }
  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    dw.W[0] = dy * saved.x.transpose();
    if constexpr (has_bias) dw.b[0] = sum_columns(dy);
    dx = w.W[0].transpose() * dy;
  }
};

/// A gated model with a residual: z = W_3 (silu(W_1 x) . (W_2 x)) + x, without biases.
struct OwnSwiGLU {
  using Output = PlainOutput;
  static constexpr std::size_t weight_count = 3;
  static WeightShape weight_shape(std::size_t l, Index f) {
    return l < 2 ? WeightShape{2 * f, f} : WeightShape{f, 2 * f};
  }
  template <class T>
  using Weights = ModelWeights<T, weight_count>;
  template <class T>
  struct Saved {
    T x, z, s, u, a;
  };

  template <class T>
  static T predict(const Weights<T>& w, const T& x, Saved<T>& saved) {
    saved.x = x;
    saved.z = w.W[0] * x;
    saved.s = activation<SiLU>(saved.z);
    saved.u = w.W[1] * x;
    saved.a = saved.s.cwiseProduct(saved.u);
    return w.W[2] * saved.a + x;
  }
  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    const T da = w.W[2].transpose() * dy;
    const T du = da.cwiseProduct(saved.s);
    const T ds = da.cwiseProduct(saved.u);
    const T dz = activation_derivative<SiLU>(saved.z).cwiseProduct(ds);
    dw.W[2] = dy * saved.a.transpose();
    dw.W[1] = du * saved.x.transpose();
    dw.W[0] = dz * saved.x.transpose();
    dx = w.W[0].transpose() * dz + w.W[1].transpose() * du + dy;
  }
};

static_assert(FirstOrderInnerModel<FirstOrderMLP<>>);
struct WithoutCode {
  using Output = PlainOutput;
  static constexpr std::size_t weight_count = 1;
  static WeightShape weight_shape(std::size_t, Index f) { return {f, f}; }
};
static_assert(InnerModel<WithoutCode> && !FirstOrderInnerModel<WithoutCode>);

using Own = ::testing::Types<OwnLinear<true, LayerNormResidual>, OwnLinear<false, PlainOutput>,
                             FirstOrderMLP<>, OwnSwiGLU>;
INSTANTIATE_TYPED_TEST_SUITE_P(FirstOrder, ChunkLaws, Own);

template <class T, class U>
void expect_equal(const T& actual, const U& expected) {
  for_each_tensor([](const TensorInfo& info, const auto& a,
                     const auto& b) { EXPECT_LE(relative_error(a, b), 1e-12) << info.name; },
                  actual, expected);
}

/// Two ways to compute one model: results and all adjoints.
template <class Model, class StackModel>
void expect_equals_dual_form() {
  typename ChunkForm<double, Model>::Trace trace;
  typename ChunkForm<double, StackModel>::Trace stack_trace;
  for (const Index n : {5, 1, 7}) {  // one trace: what an earlier chunk left must not matter
    for (const bool reads_anchor : {true, false}) {
      const auto chunk = random_chunk<Model>(6, n, 3);
      const auto stack_chunk = random_chunk<StackModel>(6, n, 3);
      auto result = run(chunk, reads_anchor, trace);
      auto stack_result = run(stack_chunk, reads_anchor, stack_trace);
      expect_equal(result, stack_result);
      for (auto* O : {&result.O, &stack_result.O}) *O = chunk.V;  // an adjoint like any other
      expect_equal(gradient(chunk, reads_anchor, result, trace),
                   gradient(stack_chunk, reads_anchor, stack_result, stack_trace));
    }
  }
}

TEST(FirstOrderTest, LinearModelEqualsItsDualForm) {
  expect_equals_dual_form<OwnLinear<true, LayerNormResidual>, LinearModel>();
  expect_equals_dual_form<OwnLinear<false, PlainOutput>, PlainStack<LinearMap<>>>();
}
TEST(FirstOrderTest, MLPEqualsItsDualForm) { expect_equals_dual_form<FirstOrderMLP<>, MLPModel>(); }
TEST(FirstOrderTest, GatedModelEqualsItsDualForm) {
  expect_equals_dual_form<OwnSwiGLU, PlainStack<Residual<SwiGLUStage<2>, LinearMap<>>>>();
}

TEST(FirstOrderTest, InfiniteTokenLeavesEarlierOutputsBitEqual) {
  auto chunk = random_chunk<FirstOrderMLP<>>(6, 5, 5);
  FirstOrderForm<double, FirstOrderMLP<>>::Trace trace;
  const Matrix<double> clean = run(chunk, true, trace).O;
  chunk.V.col(2).setConstant(std::numeric_limits<double>::infinity());
  const auto poisoned = run(chunk, true, trace);
  EXPECT_TRUE(poisoned.O.leftCols(2) == clean.leftCols(2));
  EXPECT_TRUE(poisoned.O.rightCols(3).array().isNaN().all());
  for (const auto* X : {&poisoned.W, &poisoned.X}) {
    EXPECT_TRUE(X->W[1].array().isNaN().all());
    EXPECT_TRUE(X->b[1].array().isNaN().all());
  }
}

TEST(FirstOrderTest, StepEqualsAChunkOfOneToken) {
  using Form = FirstOrderForm<double, FirstOrderMLP<>>;
  auto chunk = random_chunk<FirstOrderMLP<>>(6, 1, 5);
  const double rate = 0.3, tau = 0.7;
  chunk.E(0, 0) = rate * tau;
  chunk.read_1[0] = -tau;
  chunk.e_2[0] = rate;
  chunk.read_2.setZero();
  Form::Trace trace;
  const auto expected = run(chunk, true, trace);
  InnerWeights<double, FirstOrderMLP<>> R = chunk.X_1;
  const std::vector<CarriedWeights<double, FirstOrderMLP<>>> carried{
      {std::as_const(R).head(0), chunk.read_1}};
  Matrix<double> z(6, 1);
  Form::step(chunk.chunk(carried, true), chunk.e_2, R.head(0), z, trace);
  expect_equal(z, expected.O);
  expect_equal(R, expected.X);
}

template <class S>
Matrix<double> outputs_in(const ChunkCase<FirstOrderMLP<>>& chunk) {
  auto W = InnerWeights<S, FirstOrderMLP<>>::zero(1, chunk.K.rows());
  for_each_tensor(
      [](const TensorInfo&, auto& to, const auto& from) { to = from.template cast<S>(); }, W,
      chunk.W);
  const Vector<S> gamma = chunk.gamma.cast<S>(), beta = chunk.beta.cast<S>();
  const Matrix<S> K = chunk.K.cast<S>(), Q = chunk.Q.cast<S>(), V = chunk.V.cast<S>(),
                  E = chunk.E.cast<S>();
  const HeadNorm<S> norm{{gamma.data(), gamma.size()}, {beta.data(), beta.size()}};
  Matrix<S> O(K.rows(), K.cols());
  typename FirstOrderForm<S, FirstOrderMLP<>>::Trace trace;
  FirstOrderForm<S, FirstOrderMLP<>>::forward(
      {std::as_const(W).head(0), true, {}, norm, K, Q, V, E}, O, trace);
  return O.template cast<double>();
}

TEST(FirstOrderTest, FloatAgreesWithDouble) {
  const auto chunk = random_chunk<FirstOrderMLP<>>(6, 5, 3);
  EXPECT_LE(relative_error(outputs_in<float>(chunk), outputs_in<double>(chunk)),
            tolerance::stream_float_against_double);
}

/// Its gradient leaves the bias out.
struct ForgetfulModel : OwnLinear<true, LayerNormResidual> {
  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    dw.W[0] = dy * saved.x.transpose();
    dx = w.W[0].transpose() * dy;
  }
};

TEST(FirstOrderTest, GradientThatForgetsAWeightIsAnError) {
  const auto chunk = random_chunk<ForgetfulModel>(4, 2, 3);
  FirstOrderForm<double, ForgetfulModel>::Trace trace;
  EXPECT_THROW(run(chunk, true, trace), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
