/// @file
/// The inner loop: a model that learns while it reads one sequence.
///
/// A sequence x_1, x_2, ... comes in, each token a vector of f = 16 numbers. The tokens are not
/// arbitrary: they lie in a plane through the origin that is this sequence's own. Nobody tells the
/// model which, and halfway through, the plane is exchanged for another one.
///
/// The hidden state is a matrix W [16, 16], the weights of a model f(x; W) = W x. It is updated by
/// one step of gradient descent per token, on a self-supervised task: undo a corruption. With x~
/// the token after half of its numbers, chosen at random, were set to zero,
///
///   loss      l(W; x~, x) = 1/2 |f(x~; W) - x|^2
///   update    W_t = W_{t-1} - eta grad l(W_{t-1}; x~_t, x_t)
///   output    z = f(x; W_t)             asked for once, at the end
///
/// This is section 2.1 of Sun et al. 2024 (arXiv 2407.04620; their loss has no factor 1/2). There
/// are no projections and no outer loop yet: those are what a TTT layer adds. W_0 is the identity:
/// it passes the corrupted token on, and what it would have scored stands in the column `frozen`.
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "ttt/core/random.hpp"
#include "ttt/inner/inner_loop.hpp"

using ttt::Index, ttt::Matrix, ttt::Vector;

// f(x; W) = W x, one matrix and nothing else. An MLP: PlainStack<Affine<4>, GeluTanh, Affine<>>.
using Model = ttt::PlainStack<ttt::LinearMap<>>;
using Loop = ttt::InnerLoop<double, Model>;
using Weights = ttt::InnerWeights<double, Model>;

constexpr Index f = 16, T = 400;
constexpr double eta = 0.06;

/// A point of the plane that two columns of `plane` [f, 2] span, of length sqrt(f).
Vector<double> token(const Matrix<double>& plane, ttt::Random& random) {
  Vector<double> coordinates(2);
  random.fill_normal(coordinates, 1);
  const Vector<double> x = plane * coordinates;
  return x * (std::sqrt(double{f}) / x.norm());
}

Vector<double> corrupt(Vector<double> x, ttt::Random& random) {
  for (double& number : x)
    if (random.uniform() < 0.5) number = 0;
  return x;
}

void print_row(const char* name, const Vector<double>& x) {
  std::printf("%-10s", name);
  for (Index i = 0; i < 12; ++i) std::printf(" %5.2f", x(i));
  std::printf(" ...\n");
}

int main() {
  ttt::Random random(1);
  const ttt::HeadNorm<double> no_norm{{nullptr, 0}, {nullptr, 0}};  // a plain stack has none
  Weights state = Weights::zero(1, f), gradient = state;            // one head
  state.W[0].setIdentity();
  const Weights start = state;
  const Loop::Weights W = state.head(0), G = gradient.head(0);  // views: to write ...
  const Loop::ConstWeights W_t = std::as_const(state).head(0),
                           G_t = std::as_const(gradient).head(0),
                           W_0 = start.head(0);  // ... and to read

  Matrix<double> plane(f, 2);
  double before = 0, after = 0, frozen = 0;
  std::printf(
      "Mean loss of the tokens since the line above, before and after learning from each.\n\n"
      " token  before   after  frozen\n");
  for (Index t = 1, since = 1; t <= T; ++t, ++since) {
    if (t == 1 || t == T / 2 + 1) random.fill_normal(plane, 1);
    const Vector<double> x = token(plane, random), x_corrupted = corrupt(x, random);

    frozen += Loop::loss(W_0, no_norm, x_corrupted, x);
    before += Loop::loss(W_t, no_norm, x_corrupted, x);
    Loop::gradient(W_t, no_norm, x_corrupted, x, G);
    Loop::update(W, eta, G_t);
    after += Loop::loss(W_t, no_norm, x_corrupted, x);

    if (t > 5 && t % 20 > 0) continue;
    const double n = static_cast<double>(since);
    std::printf("%6td %7.2f %7.2f %7.2f  %s\n", t, before / n, after / n, frozen / n,
                std::string(static_cast<std::size_t>(8 * before / n), '#').c_str());
    if (t == T / 2) std::printf("        the plane is exchanged for another one\n");
    before = after = frozen = 0;
    since = 0;
  }

  const Vector<double> x = token(plane, random), x_corrupted = corrupt(x, random);
  Vector<double> z(f);
  Loop::output(W_t, no_norm, x_corrupted, z);
  std::printf("\nA token that it has not seen, corrupted, and what the model makes of that:\n");
  print_row("x", x);
  print_row("x~", x_corrupted);
  print_row("f(x~; W)", z);
}
