#include "ttt/nn/swiglu.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index D = 6, I = 9;

template <class S>
typename SwiGLU<S>::Parameters random_parameters(Index width, Index hidden) {
  return {random_matrix<float>(width, hidden, 1).template cast<S>(),
          random_matrix<float>(width, hidden, 2).template cast<S>(),
          random_matrix<float>(hidden, width, 3).template cast<S>()};
}

/// down(silu(gate x) o (up x)) of one token, in double and in loops.
template <class S>
Vector<double> by_loops(const typename SwiGLU<S>::Parameters& p, const Vector<S>& x) {
  Vector<double> y = Vector<double>::Zero(p.down_proj.cols());
  for (Index i = 0; i < p.down_proj.rows(); ++i) {
    double gate = 0, up = 0;
    for (Index d = 0; d < x.size(); ++d) {
      gate += double(p.gate_proj(d, i)) * double(x(d));
      up += double(p.up_proj(d, i)) * double(x(d));
    }
    const double hidden = gate / (1 + std::exp(-gate)) * up;
    for (Index d = 0; d < y.size(); ++d) y(d) += double(p.down_proj(i, d)) * hidden;
  }
  return y;
}

template <class S>
class SwiGLUTest : public ::testing::Test {};
TYPED_TEST_SUITE(SwiGLUTest, Scalars);

TYPED_TEST(SwiGLUTest, ForwardsAndStepEqualLoops) {
  using S = TypeParam;
  const auto parameters = random_parameters<S>(D, I);
  auto workspace = SwiGLU<S>::workspace(D, I, 4);  // grows, and then is longer than needed
  for (const Index T : {0, 1, 3, 133, 2}) {
    const auto x = random_matrix<S>(D, T, 4);
    Matrix<double> expected(D, T);
    for (Index t = 0; t < T; ++t) expected.col(t) = by_loops<S>(parameters, x.col(t));
    Matrix<S> y(D, T), cached(D, T), by_step(D, T);
    typename SwiGLU<S>::Cache cache;
    SwiGLU<S>::forward(x, parameters, y, workspace);
    SwiGLU<S>::forward(x, parameters, cached, workspace, cache);
    for (Index t = 0; t < T; ++t) SwiGLU<S>::step(x.col(t), parameters, by_step.col(t), workspace);
    EXPECT_LE(relative_error(y, expected), tolerance::rounding<S>);
    EXPECT_LE(relative_error(by_step, expected), tolerance::rounding<S>);
    EXPECT_LE(relative_error(cached, y), tolerance::rounding<S>);
    EXPECT_EQ(cache.x, x);
  }
}

TEST(SwiGLUDoubleTest, BackwardEqualsDifferencesOverwritesDxAndAddsIntoGrad) {
  auto parameters = random_parameters<double>(D, I);
  for (const Index T : {Index{1}, Index{5}}) {
    auto x = random_matrix<double>(D, T, 4);
    const auto c = random_matrix<double>(D, T, 5);
    auto workspace = SwiGLU<double>::workspace(D, I, T + 2);
    SwiGLU<double>::Cache cache;
    Matrix<double> y(D, T), dx = Matrix<double>::Constant(D, T, 9);
    SwiGLU<double>::forward(x, parameters, y, workspace, cache);
    auto grad = zeros_like(parameters);
    SwiGLU<double>::backward(c, cache, parameters, dx, grad, workspace);
    const auto loss = [&] {
      SwiGLU<double>::forward(x, parameters, y, workspace);
      return c.cwiseProduct(y).sum();
    };
    EXPECT_TRUE(check_gradient(x, dx, loss));
    EXPECT_TRUE(check_gradient(parameters, grad, loss));

    const auto once = grad;
    SwiGLU<double>::backward(c, cache, parameters, dx, grad, workspace);
    for_each_tensor(
        [](const TensorInfo& info, const auto& twice, const auto& single) {
          EXPECT_LE(relative_error(twice, 2 * single), tolerance::rounding<double>) << info.name;
        },
        grad, once);
  }
}

/// {y, dx, all parameter gradients} of fixed float inputs, computed in S.
template <class S>
Results<S> run(Index width, Index hidden, Index T) {
  const auto parameters = random_parameters<S>(width, hidden);
  const Matrix<S> x = random_matrix<float>(width, T, 4).template cast<S>() * S(0.2);
  const Matrix<S> dy = random_matrix<float>(width, T, 5).template cast<S>();
  auto workspace = SwiGLU<S>::workspace(width, hidden, T);
  typename SwiGLU<S>::Cache cache;
  auto grad = zeros_like(parameters);
  Matrix<S> y(width, T), dx(width, T);
  SwiGLU<S>::forward(x, parameters, y, workspace, cache);
  SwiGLU<S>::backward(dy, cache, parameters, dx, grad, workspace);
  return {{y, dx, grad.gate_proj, grad.up_proj, grad.down_proj}};
}

TEST(SwiGLUFloatTest, AgreesWithDouble) {
  expect_close(run<float>(24, 37, 150), run<double>(24, 37, 150), tolerance::float_against_double);
}

TEST(SwiGLUFloatTest, HasTheSameBitsForAnyNumberOfThreads) {
  expect_same_bits_for_any_threads([] { return run<float>(64, 160, 3 * token_block + 1); });
}

TEST(SwiGLUFloatTest, LargePreactivationsStayFinite) {
  SwiGLU<float>::Parameters parameters{Matrix<float>::Constant(1, 2, 1),
                                       Matrix<float>::Constant(1, 2, 1),
                                       Matrix<float>::Constant(2, 1, 1)};
  auto workspace = SwiGLU<float>::workspace(1, 2, 2);
  SwiGLU<float>::Cache cache;
  auto grad = zeros_like(parameters);
  Matrix<float> x(1, 2), y(1, 2), dx(1, 2);
  x << -1000, 1000;
  SwiGLU<float>::forward(x, parameters, y, workspace, cache);
  SwiGLU<float>::backward(Matrix<float>::Ones(1, 2), cache, parameters, dx, grad, workspace);
  EXPECT_NEAR(y(0), 0, 1e-20);
  EXPECT_FLOAT_EQ(y(1), 2e6F);
  EXPECT_NEAR(dx(0), 0, 1e-20);
  EXPECT_FLOAT_EQ(dx(1), 4000);
  EXPECT_EQ(first_non_finite(grad), std::nullopt);
}

TEST(SwiGLUDoubleTest, HasTheNamesOfCheckpoints) {
  const auto parameters = random_parameters<double>(D, I);
  std::vector<std::string> names;
  for_each_tensor([&](const TensorInfo& info, const auto&) { names.push_back(info.name); },
                  parameters);
  EXPECT_EQ(names,
            (std::vector<std::string>{"gate_proj.weight", "up_proj.weight", "down_proj.weight"}));
}

TEST(SwiGLUDoubleTest, RefusesWrongShapes) {
  const auto parameters = random_parameters<double>(D, I);
  auto workspace = SwiGLU<double>::workspace(D, I, 2);
  SwiGLU<double>::Cache cache;
  auto grad = zeros_like(parameters);
  Matrix<double> x = Matrix<double>::Ones(D, 2), narrow(D - 1, 2), y(D, 2), longer(D, 3);
  EXPECT_THROW(SwiGLU<double>::forward(narrow, parameters, y, workspace), std::invalid_argument);
  EXPECT_THROW(SwiGLU<double>::forward(x, parameters, longer, workspace), std::invalid_argument);
  SwiGLU<double>::forward(x, parameters, y, workspace, cache);
  EXPECT_THROW(SwiGLU<double>::backward(longer, cache, parameters, longer, grad, workspace),
               std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
