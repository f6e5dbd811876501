// The kernel against the loop that it unrolls, and its adjoint against differences, with and
// without momentum and forgetting.
#include "ttt/inner/update_kernel.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr double exact = 1e-12;  // a few dozen terms of size 1, added in another order

/// The three choices per token of n tokens. They include a momentum of 0 and a forgetting of 1,
/// by which nothing may be divided.
template <class Kernel>
struct Choices {
  Vector<double> theta, mu, alpha;  // [n]; empty where the kernel has none

  static auto fields(auto& self) {
    return std::tuple(field("theta", self.theta), field("mu", self.mu), field("alpha", self.alpha));
  }

  static Choices make(Index n, std::uint64_t seed) {
    Choices choices{Vector<double>(n), Vector<double>(Kernel::momentum ? n : 0),
                    Vector<double>(Kernel::forgetting ? n : 0)};
    Random random(seed);
    random.fill_uniform(choices.theta, 0.1, 2);
    random.fill_uniform(choices.mu, 0, 1);
    random.fill_uniform(choices.alpha, 0, 1);
    if (n > 4 && Kernel::momentum) choices.mu[2] = 0;
    if (n > 4 && Kernel::forgetting) choices.alpha[3] = 1;
    return choices;
  }

  Choices piece(Index begin, Index size) const {
    const auto part = [&](const Vector<double>& values) {
      return Vector<double>(
          values.segment(values.size() > 0 ? begin : 0, values.size() > 0 ? size : 0));
    };
    return {part(theta), part(mu), part(alpha)};
  }

  Kernel kernel() const {
    Kernel kernel;
    kernel.build(theta, mu, alpha);
    return kernel;
  }
};

/// W and S, and the gradients of n tokens.
struct Problem {
  Matrix<double> W = random_matrix<double>(3, 2, 21), S = random_matrix<double>(3, 2, 22);
  std::vector<Matrix<double>> G;

  explicit Problem(Index n) {
    for (Index t = 0; t < n; ++t)
      G.push_back(random_matrix<double>(3, 2, 30 + static_cast<std::uint64_t>(t)));
  }
};

/// W_1 ... W_n, and S_n.
struct Path {
  std::vector<Matrix<double>> W;
  Matrix<double> S;
};

template <class Kernel>
Path loop(const Choices<Kernel>& choices, const Problem& problem) {
  Path path{{}, problem.S};
  Matrix<double> W = problem.W;
  for (Index t = 0; t < choices.theta.size(); ++t) {
    const double mu = Kernel::momentum ? choices.mu[t] : 0;
    const double alpha = Kernel::forgetting ? choices.alpha[t] : 0;
    path.S = mu * path.S - choices.theta[t] * problem.G[std::size_t(t)];
    W = (1 - alpha) * W + path.S;
    path.W.push_back(W);
  }
  return path;
}

/// The same from a kernel, for the tokens from `begin` on, which start at W and S.
template <class Kernel>
Path unrolled(const Kernel& kernel, const Problem& problem, Index begin, const Matrix<double>& W,
              const Matrix<double>& S) {
  const Index n = kernel.E.cols();
  Path path{{}, S};
  if (n == 0) return path;
  if (Kernel::momentum) path.S = kernel.m() * S;
  for (Index t = 0; t < n; ++t) {
    Matrix<double> W_t = kernel.beta[t] * W;
    if (Kernel::momentum) W_t += kernel.c[t] * S;
    for (Index s = 0; s < n; ++s) W_t -= kernel.E(s, t) * problem.G[std::size_t(begin + s)];
    path.W.push_back(W_t);
    if (Kernel::momentum) path.S -= kernel.ES()[t] * problem.G[std::size_t(begin + t)];
  }
  return path;
}

template <bool Momentum, bool Forgetting>
struct Kind : UpdateKernel<double, Momentum, Forgetting> {
  static constexpr bool momentum = Momentum, forgetting = Forgetting;
};

template <class Kernel>
class UpdateKernelTest : public ::testing::Test {};
using Kinds =
    ::testing::Types<Kind<false, false>, Kind<true, false>, Kind<false, true>, Kind<true, true>>;
TYPED_TEST_SUITE(UpdateKernelTest, Kinds);

TYPED_TEST(UpdateKernelTest, EqualsTheLoop) {
  for (const Index n : {Index{1}, Index{2}, Index{13}}) {
    const auto choices = Choices<TypeParam>::make(n, 1);
    const Problem problem(n);
    const Path expected = loop(choices, problem);
    const Path actual = unrolled(choices.kernel(), problem, 0, problem.W, problem.S);
    for (std::size_t t = 0; t < expected.W.size(); ++t)
      EXPECT_LE(relative_error(actual.W[t], expected.W[t]), exact) << "token " << t << " of " << n;
    if (TypeParam::momentum) {
      EXPECT_LE(relative_error(actual.S, expected.S), exact);
    }
  }
}

TYPED_TEST(UpdateKernelTest, APieceContinuesWhereTheLastEnded) {
  constexpr Index n = 9;
  const auto choices = Choices<TypeParam>::make(n, 2);
  const Problem problem(n);
  const Path expected = loop(choices, problem);
  for (Index cut = 0; cut <= n; ++cut) {
    const Path first = unrolled(choices.piece(0, cut).kernel(), problem, 0, problem.W, problem.S);
    const Matrix<double>& W = cut > 0 ? first.W.back() : problem.W;
    const Path rest = unrolled(choices.piece(cut, n - cut).kernel(), problem, cut, W, first.S);
    for (Index t = cut; t < n; ++t)
      EXPECT_LE(relative_error(rest.W[std::size_t(t - cut)], expected.W[std::size_t(t)]), exact)
          << "token " << t << ", cut at " << cut;
    if (TypeParam::momentum) {
      EXPECT_LE(relative_error(rest.S, expected.S), exact);
    }
  }
}

TYPED_TEST(UpdateKernelTest, BackwardEqualsDifferences) {
  for (const Index n : {Index{1}, Index{8}}) {
    const Index n_momentum = TypeParam::momentum ? n : 0;
    auto choices = Choices<TypeParam>::make(n, 3);
    typename TypeParam::Adjoint d;
    d.dE = random_matrix<double>(n, n, 4);  // below the diagonal too: to be passed over
    d.d_beta = random_vector<double>(n, 5);
    d.d_c = random_vector<double>(n_momentum, 6);
    d.d_ES = random_vector<double>(n_momentum, 7);
    d.d_m = 0.7;
    const auto loss = [&, given = d] {
      const TypeParam kernel = choices.kernel();
      double sum = given.dE.cwiseProduct(kernel.E).sum() + given.d_beta.dot(kernel.beta);
      if (TypeParam::momentum)
        sum += given.d_c.dot(kernel.c) + given.d_ES.dot(kernel.ES()) + given.d_m * kernel.m();
      return sum;
    };
    auto gradient = choices;  // overwritten
    choices.kernel().backward(choices.mu, choices.alpha, d, gradient.theta, gradient.mu,
                              gradient.alpha);
    EXPECT_TRUE(check_gradient(choices, gradient, loss, {.relative = 1e-7}));
  }
}

TEST(UpdateKernelDoubleTest, GradientDescentWeighsATokenTheSameForAllLaterOnes) {
  UpdateKernel<double, false, false> kernel;
  const Vector<double> theta = random_vector<double>(5, 1), none;
  kernel.build(theta, none, none);
  const Matrix<double> all = theta.replicate(1, 5);
  EXPECT_EQ(kernel.E, Matrix<double>(all.triangularView<Eigen::Upper>()));
  EXPECT_EQ(kernel.beta, Vector<double>::Ones(5));
  EXPECT_EQ(kernel.F.size() + kernel.c.size() + kernel.p.size(), 0);
}

TEST(UpdateKernelDoubleTest, IsBuiltAnewForEveryPiece) {
  using Kernel = Kind<true, true>;
  Kernel reused;
  for (const Index n : {7, 0, 3, 3}) {
    const auto choices = Choices<Kernel>::make(n, 10 + static_cast<std::uint64_t>(n));
    reused.build(choices.theta, choices.mu, choices.alpha);
    const Kernel fresh = choices.kernel();
    EXPECT_EQ(reused.E, fresh.E);
    EXPECT_EQ(reused.F, fresh.F);
    EXPECT_EQ(reused.beta, fresh.beta);
    EXPECT_EQ(reused.c, fresh.c);
  }
}

TEST(UpdateKernelDoubleTest, RefusesWrongLengths) {
  const Vector<double> three = Vector<double>::Ones(3), two = Vector<double>::Ones(2), none;
  UpdateKernel<double, true, true> both;
  EXPECT_THROW(both.build(three, two, three), std::invalid_argument);
  EXPECT_THROW(both.build(three, three, none), std::invalid_argument);
  UpdateKernel<double, false, false> neither;
  EXPECT_THROW(neither.build(three, three, none), std::invalid_argument);
  EXPECT_THROW(neither.build(three, none, three), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
