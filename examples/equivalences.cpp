/// @file
/// What the theorems say, as running code: the inner loop under other names.
///
/// A TTT layer is a choice: a model f(x; W), a loss l, when gradients are taken, and what the
/// update remembers. Some choices are layers that the literature knows by other names, and some are
/// only another way to compute the same numbers. Every line of the table below runs the library on
/// T random tokens k_t, q_t, v_t, and beside it a few lines of plain Eigen that say what is
/// claimed, in double. It prints the largest difference, divided by the largest number compared.
///
/// Throughout, G_s is the gradient of token s's loss, l = 1/2 |f(k; W) - v|^2 where nothing else is
/// said, and a chunk of n tokens whose gradients are all taken at one W is (inner/chunk.hpp)
///
///   W_t = W - sum_{s<=t} E(s,t) G_s      z_t = f(q_t; W_t)
///
/// Theorems 1 and 2 are those of Sun et al. 2024 (arXiv 2407.04620), section 2.6.
#include <Eigen/Cholesky>
#include <cstdio>
#include <functional>
#include <vector>

#include "ttt/inner/first_order_mlp.hpp"
#include "ttt/inner/inner_loop.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/nadaraya_watson.hpp"
#include "ttt/inner/rate_policies.hpp"
#include "ttt/inner/stages/norms.hpp"
#include "ttt/inner/stages/residual.hpp"
#include "ttt/inner/update_kernel.hpp"
#include "ttt/layers/ttt_mlp.hpp"

using ttt::Index;
using Matrix = ttt::Matrix<double>;
using Vector = ttt::Vector<double>;

constexpr Index token_width = 8, T = 24;
constexpr double limit = 1e-10;  // of the relative difference

// f(k; W) = W k, and three models with the published output rule, f(k) = k + LN(...).
using Linear = ttt::PlainStack<ttt::LinearMap<>>;
using LinearDotProduct =
    ttt::StackOf<ttt::OutputRule<ttt::NoNorm, ttt::DotProduct, false>, ttt::LinearMap<>>;
using Deep = ttt::Stack<ttt::Affine<2>, ttt::Tanh, ttt::Residual<ttt::Affine<2>, ttt::SiLU>,
                        ttt::LayerNormStage, ttt::Affine<>>;

template <class Model>
using Weights = ttt::InnerWeights<double, Model>;

/// What one head reads, and the gain and bias of its norm.
struct Tokens {
  Matrix K, Q, V;  // [token_width, T]
  Vector gain, bias;

  explicit Tokens(ttt::Random& random)
      : K(token_width, T),
        Q(token_width, T),
        V(token_width, T),
        gain(token_width),
        bias(token_width) {
    for (Matrix* part : {&K, &Q, &V}) random.fill_normal(*part, 0.5);
    random.fill_uniform(gain, 0.5, 1.5);
    random.fill_normal(bias, 0.3);
  }
  ttt::HeadNorm<double> norm() const {
    return {{gain.data(), token_width}, {bias.data(), token_width}};
  }
};

template <class Model>
Weights<Model> random_weights(ttt::Random& random) {
  Weights<Model> W = Weights<Model>::zero(1, token_width);  // of one head
  ttt::for_each_tensor([&](const auto&, auto& tensor) { random.fill_normal(tensor, 0.3); }, W);
  return W;
}

Vector random_rates(ttt::Random& random) {
  Vector rates(T);
  random.fill_uniform(rates, 0.1, 0.5);
  return rates;
}

/// The library: all T tokens in chunks of b. `kernel(begin)` is E [b, b] of the chunk that begins
/// there. Returns z [token_width, T]; W becomes what the last token leaves.
template <class Model>
Matrix run(const Tokens& x, Index b, const std::function<Matrix(Index)>& kernel,
           Weights<Model>& W) {
  using Form = ttt::ChunkForm<double, Model>;
  typename Form::Trace trace;
  Matrix z(token_width, T);
  for (Index begin = 0; begin < T; begin += b) {
    const Matrix E = kernel(begin), K = x.K.middleCols(begin, b);
    Form::forward({std::as_const(W).head(0),
                   true,
                   {},
                   x.norm(),
                   K,
                   x.Q.middleCols(begin, b),
                   x.V.middleCols(begin, b),
                   E},
                  z.middleCols(begin, b), trace);
    Form::carry(trace, K, -E.col(b - 1), W.head(0));
  }
  return z;
}

/// E(s,t) = rate_s for s <= t: gradient descent.
std::function<Matrix(Index)> descent(const Vector& rates, Index b) {
  return [&rates, b](Index begin) -> Matrix {
    return rates.segment(begin, b).replicate(1, b).triangularView<Eigen::Upper>();
  };
}

/// Of two matrices, or of two structs of tensors: the worst of them.
template <class Values>
double relative_difference(const Values& a, const Values& b) {
  double worst = 0;
  ttt::for_each_tensor(
      [&](const auto&, const auto& left, const auto& right) {
        const double difference =
            (left - right).cwiseAbs().maxCoeff() / right.cwiseAbs().maxCoeff();
        if (!(difference <= worst)) worst = difference;  // true of NaN, too
      },
      a, b);
  return worst;
}

bool failed = false;

void print_row(const char* what, const char* is, double difference) {
  const bool holds = difference <= limit;
  std::printf("%-45s = %-41s %.0e%s\n", what, is, difference, holds ? "" : "  DIFFERS");
  if (!holds) failed = true;
}

// The paper's two theorems.

void theorem_1(const Tokens& x) {
  Weights<Linear> W = Weights<Linear>::zero(1, token_width);
  const Vector ones = Vector::Ones(T);
  const Matrix z = run(x, T, descent(ones, T), W);

  // z_t = sum_{s<=t} v_s (k_s . q_t)
  const Matrix scores = (x.K.transpose() * x.Q).triangularView<Eigen::Upper>();
  print_row("Theorem 1: W k, W_0 = 0, one mini-batch", "linear attention",
            relative_difference<Matrix>(z, x.V * scores));
}

void theorem_2(const Tokens& x) {
  Matrix z(token_width, T);
  ttt::nadaraya_watson<double>(x.K, x.Q, x.V, z);

  // z_t = sum_{s<=t} a_st v_s,  a_st = exp(k_s . q_t) / sum_{s<=t} exp(k_s . q_t)
  Matrix a = (x.K.transpose() * x.Q).array().exp().matrix().triangularView<Eigen::Upper>();
  for (Index t = 0; t < T; ++t) a.col(t) /= a.col(t).sum();
  print_row("Theorem 2: Nadaraya-Watson, kernel exp(k.q)", "softmax attention",
            relative_difference<Matrix>(z, x.V * a));
}

// Other layers of the family.

void delta_rule(const Tokens& x, ttt::Random& random) {
  Weights<Linear> W = random_weights<Linear>(random);
  const Vector beta = random_rates(random);
  Matrix S = W.W[0], expected(token_width, T);
  const Matrix z = run(x, 1, descent(beta, 1), W);

  for (Index t = 0; t < T; ++t) {
    const auto k = x.K.col(t), v = x.V.col(t);
    S -= beta[t] * (S * k - v).eval() * k.transpose();
    expected.col(t) = S * x.Q.col(t);
  }
  print_row("W k, b = 1", "the delta rule (DeltaNet)",
            std::max(relative_difference(z, expected), relative_difference(W.W[0], S)));
}

void implicit_step(const Tokens& x, ttt::Random& random) {
  Weights<Linear> W = random_weights<Linear>(random);
  Vector r(T), theta(T);
  random.fill_normal(r, 1);
  ttt::ProximalRate::forward<double>(r, x.K, theta);
  Matrix S = W.W[0], expected(token_width, T);
  const Matrix z = run(x, 1, descent(theta, 1), W);

  // The gradient at the end of the step: S_t = S_{t-1} - beta (S_t k - v) k', a system to solve.
  for (Index t = 0; t < T; ++t) {
    const Vector k = x.K.col(t), v = x.V.col(t);
    const double beta = 1 / (1 + std::exp(-r[t]));
    const Matrix A = Matrix::Identity(token_width, token_width) +
                     beta * k * k.transpose();  // S_t A = S + beta v k'
    S = A.llt().solve(Matrix(S + beta * v * k.transpose()).transpose()).transpose().eval();
    expected.col(t) = S * x.Q.col(t);
  }
  print_row("W k, b = 1, rate beta / (1 + beta k.k)", "an implicit step of rate beta (Longhorn)",
            std::max(relative_difference(z, expected), relative_difference(W.W[0], S)));
}

void dot_product_loss(const Tokens& x, ttt::Random& random) {
  const Weights<LinearDotProduct> W_0 = random_weights<LinearDotProduct>(random);
  const Vector beta = random_rates(random);
  const Matrix scores = (x.K.transpose() * x.Q).triangularView<Eigen::Upper>();
  const Matrix expected = W_0.W[0] * x.Q + x.V * beta.asDiagonal() * scores;

  double worst = 0;
  for (const Index b : {1, 4, 24}) {  // its gradient is -v k' whatever W is: b does not matter
    Weights<LinearDotProduct> W = W_0;
    worst = std::max(worst, relative_difference(run(x, b, descent(beta, b), W), expected));
  }
  print_row("W k, loss -v.(W k), b = 1, 4 and 24", "linear attention plus W_0 q", worst);
}

void forgetting(const Tokens& x, ttt::Random& random) {
  const Weights<LinearDotProduct> W_0 = random_weights<LinearDotProduct>(random);
  const Vector theta = random_rates(random), alpha = random_rates(random), none;
  ttt::UpdateKernel<double, false, true> kernel;
  kernel.build(theta, none, alpha);
  using Form = ttt::ChunkForm<double, LinearDotProduct>;
  Form::Trace trace;
  Matrix z(token_width, T);
  // W_t = beta_t W_0 - sum_s E(s,t) G_s: here W_0 is read as carried weights, token by token
  const ttt::CarriedWeights<double, LinearDotProduct> carried{W_0.head(0), kernel.beta};
  Form::forward({W_0.head(0), false, {&carried, 1}, x.norm(), x.K, x.Q, x.V, kernel.E}, z, trace);

  Matrix S = W_0.W[0], expected(token_width, T);
  for (Index t = 0; t < T; ++t) {
    S = (1 - alpha[t]) * S + theta[t] * x.V.col(t) * x.K.col(t).transpose();
    expected.col(t) = S * x.Q.col(t);
  }
  print_row("the same with forgetting, as a kernel E", "decayed S (RetNet, Mamba-2)",
            relative_difference(z, expected));
}

// Other ways to compute the same numbers.

/// The dual form against the loop that it stands for, in mini-batches of 8, at the rates of the TTT
/// layers: E(s,t) = tau_t eta_s, tau_t = 1 / (place of t in its mini-batch).
template <class Model>
void dual_form(const char* name, const Tokens& x, ttt::Random& random) {
  constexpr Index b = 8;
  const Vector eta = random_rates(random);
  const Vector tau = Vector::LinSpaced(b, 1, b).cwiseInverse();
  const auto kernel = [&](Index begin) -> Matrix {
    return descent(eta, b)(begin) * tau.asDiagonal();
  };
  Weights<Model> W = random_weights<Model>(random), W_t = W;
  const Matrix z = run(x, b, kernel, W);

  Matrix expected(token_width, T);
  for (Index begin = 0; begin < T; begin += b)
    ttt::InnerLoop<double, Model>::primal_form(W_t.head(0), x.norm(), x.K.middleCols(begin, b),
                                               x.Q.middleCols(begin, b), x.V.middleCols(begin, b),
                                               kernel(begin), expected.middleCols(begin, b));
  print_row(name, "the loop, every gradient explicit",
            std::max(relative_difference(z, expected), relative_difference(W, W_t)));
}

void momentum(const Tokens& x, ttt::Random& random) {
  using Model = ttt::MLPModel;
  using Loop = ttt::InnerLoop<double, Model>;
  using Form = ttt::ChunkForm<double, Model>;
  const Weights<Model> W_0 = random_weights<Model>(random), S_0 = random_weights<Model>(random);
  const Vector theta = random_rates(random), mu = random_rates(random),
               alpha = 0.2 * random_rates(random);
  ttt::UpdateKernel<double> kernel;
  kernel.build(theta, mu, alpha);
  // W_t = beta_t W_0 + c_t S_0 - sum_s E(s,t) G_s
  const ttt::CarriedWeights<double, Model> carried[] = {{W_0.head(0), kernel.beta},
                                                        {S_0.head(0), kernel.c}};
  Form::Trace trace;
  Matrix z(token_width, T);
  Form::forward({W_0.head(0), false, carried, x.norm(), x.K, x.Q, x.V, kernel.E}, z, trace);

  Matrix expected(token_width, T);
  Weights<Model> W = W_0, S = S_0, G = W_0;
  for (Index t = 0; t < T; ++t) {
    Loop::gradient(W_0.head(0), x.norm(), x.K.col(t), x.V.col(t), G.head(0));
    ttt::for_each_tensor(
        [&](const auto&, auto& W_l, auto& S_l, const auto& G_l) {
          S_l = mu[t] * S_l - theta[t] * G_l;
          W_l = (1 - alpha[t]) * W_l + S_l;
        },
        W, S, G);
    Loop::output(std::as_const(W).head(0), x.norm(), x.Q.col(t), expected.col(t));
  }
  print_row("momentum and forgetting, as a kernel E", "W = (1 - alpha) W + S, S = mu S - theta G",
            relative_difference(z, expected));
}

/// The outputs y and the gradient of r . y in all that the layer learns.
struct Run {
  Matrix y;
  std::vector<Matrix> gradient;
};

template <class Model>
Run run_layer(const Matrix& x, const Matrix& r) {
  using Layer = ttt::TTTLayer<double, Model>;
  Layer layer(
      {.width = 2 * token_width, .heads = 2, .mini_batch = 5, .share_qk = true, .gate = true});
  ttt::Random random(3);
  ttt::for_each_tensor([&](const auto&, auto& p) { random.fill_normal(p, 0.4); }, layer);

  auto workspace = layer.workspace(x.cols());
  typename Layer::Cache cache;
  auto state = layer.initial_state();
  Matrix y(2 * token_width, x.cols()), dx = y;
  layer.forward(x, state, y, workspace, cache);

  auto gradient = ttt::zeros_like(layer.parameters());
  auto d_state = ttt::zeros_like(state);
  layer.backward(r, cache, d_state, dx, gradient, workspace);
  layer.backward_initial_state(d_state, gradient);
  std::vector<Matrix> tensors;
  ttt::for_each_tensor([&](const auto&, const auto& tensor) { tensors.emplace_back(tensor); },
                       gradient);
  return {y, tensors};
}

void first_order_code(ttt::Random& random) {
  Matrix x(2 * token_width, T), r(2 * token_width, T);
  random.fill_normal(x, 1);
  random.fill_normal(r, 1);
  const Run own = run_layer<ttt::FirstOrderMLP<>>(x, r), stack = run_layer<ttt::MLPModel>(x, r);
  print_row("a layer with TTT-MLP's model as own code", "the stack: outputs",
            relative_difference(own.y, stack.y));
  print_row("", "the stack: outer gradients, all of them",
            relative_difference(own.gradient, stack.gradient));
}

int main() {
  ttt::Random random(1);
  const Tokens x(random);
  std::printf("%td random tokens of %td numbers. The last column is the largest difference.\n\n", T,
              token_width);
  theorem_1(x);
  theorem_2(x);
  std::printf("\n");
  delta_rule(x, random);
  implicit_step(x, random);
  dot_product_loss(x, random);
  forgetting(x, random);
  std::printf("\n");
  dual_form<ttt::LinearModel>("the dual form of TTT-Linear", x, random);
  dual_form<ttt::MLPModel>("the dual form of TTT-MLP", x, random);
  dual_form<Deep>("the dual form of a deeper stack", x, random);
  momentum(x, random);
  first_order_code(random);
  if (failed) std::printf("\nA line DIFFERS by more than %.0e: it does not hold.\n", limit);
  return failed ? 1 : 0;
}
