/// @file
/// Speed of the inner loop of one head (f = 64), on one thread, in float: one chunk of n tokens by
///   dual-form     matrix products (dual_form.hpp), the weights carried on
///   primal-form   every gradient explicit (inner_loop.hpp), as the paper writes it
///   online-step   token by token on a running sum (online_step.hpp), as streams do
///   adjoint       the exact gradient of the dual form, forward included
///   first-order   TTT-MLP's model as a user's own code (first_order_mlp.hpp), and its adjoint
/// and by the parts of the dual form. items_per_second counts tokens, and processor time.
///
///   inner_bench [options of Google Benchmark]
#include "support/layer_bench.hpp"
#include "support/program.hpp"
#include "ttt/inner/first_order_mlp.hpp"
#include "ttt/inner/inner_loop.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/inner/online_step.hpp"

namespace ttt::bench {
namespace {

constexpr Index head_width = 64;

/// One chunk of one head: E(s, t) = rate / (t + 1), the published layers' at their initialization.
template <InnerModel M>
struct OneChunk {
  using Weights = InnerWeights<float, M>;
  static constexpr float rate = 0.5f / head_width;
  Index n;
  Matrix<float> K, Q, V, E, O;
  Vector<float> tau, e, ones = Vector<float>::Ones(head_width);
  Vector<float> zeros = Vector<float>::Zero(head_width);
  Weights W_0 = Weights::zero(1, head_width), W = W_0, R = W_0;
  typename ChunkForm<float, M>::Trace trace;

  explicit OneChunk(Index tokens) : n(tokens), O(head_width, n), tau(n) {
    Random random(1);
    for (Matrix<float>* part : {&K, &Q, &V}) {
      part->resize(head_width, n);
      random.fill_normal(*part, 0.5);
    }
    for (Matrix<float>& weight : W_0.W) random.fill_normal(weight, 0.02);
    for (Index t = 0; t < n; ++t) tau[t] = 1 / static_cast<float>(t + 1);
    E = rate * Vector<float>::Ones(n) * tau.transpose();
    e.setConstant(n, -rate * tau[n - 1]);
    W = W_0;
  }

  HeadNorm<float> norm() const { return {{ones.data(), head_width}, {zeros.data(), head_width}}; }
  auto weights() const { return std::as_const(W).head(0); }
  /// Of one token; none for a user's code, which nobody counts.
  Flops flops() const {
    TTTConfig config;
    config.width = head_width;
    config.mini_batch = n;
    if constexpr (StackModel<M>) return inner_flops_per_token<M>(config);
    return {};
  }
  Chunk<float, M> chunk(const Weights& anchor) const {
    return {anchor.head(0), true, {}, norm(), K, Q, V, E};
  }
  void forward() { ChunkForm<float, M>::forward(chunk(W), O, trace); }
  void report_to(benchmark::State& run, double flops_per_token) const {
    report(run, O, n, flops_per_token, 4.0 * static_cast<double>(count_elements(W)));
  }
};

template <InnerModel M>
void chunk_form(benchmark::State& run) {
  OneChunk<M> c(run.range(0));
  for (auto _ : run) {
    c.forward();
    ChunkForm<float, M>::carry(c.trace, c.K, c.e, c.W.head(0));
  }
  c.report_to(run, c.flops().forward);
}

template <InnerModel M>
void primal_form(benchmark::State& run) {
  OneChunk<M> c(run.range(0));
  for (auto _ : run)
    InnerLoop<float, M>::primal_form(c.W.head(0), c.norm(), c.K, c.Q, c.V, c.E, c.O);
  c.report_to(run, 0);
}

template <InnerModel M>
void step(benchmark::State& run) {
  OneChunk<M> c(run.range(0));
  OnlineStep<float, M> online(head_width);
  for (auto _ : run) {
    for (Index t = 0; t < c.n; ++t)
      online.step(c.weights(), c.R.head(0), c.norm(), c.K.col(t), c.Q.col(t), c.V.col(t), c.rate,
                  c.tau[t], c.O.col(t));
    finish_mini_batch(c.W.head(0), c.R.head(0), c.tau[c.n - 1]);
  }
  c.report_to(run, c.flops().step);
}

template <InnerModel M>
void adjoint(benchmark::State& run) {
  OneChunk<M> c(run.range(0));
  auto dW = c.R;
  Matrix<float> dK(head_width, c.n), dQ = dK, dV = dK, dE(c.n, c.n), dO = c.V;
  Vector<float> d_e(c.n), d_weight = c.zeros, d_bias = c.zeros;
  typename ChunkForm<float, M>::Scratch scratch;
  const WrittenWeights<float, M> written{std::as_const(dW).head(0), c.e, d_e};
  ChunkGradient<float, M> out{
      dW.head(0), {}, {{d_weight.data(), head_width}, {d_bias.data(), head_width}}, dK, dQ, dV, dE};
  for (auto _ : run) {
    set_zero(dW);
    const auto chunk = c.chunk(c.W_0);
    ChunkForm<float, M>::forward(chunk, c.O, c.trace);
    ChunkForm<float, M>::backward(chunk, std::span(&written, 1), c.trace, dO, out, scratch);
    benchmark::ClobberMemory();
  }
  c.report_to(run, c.flops().backward);
}

// Parts of the dual form; `rows` is the output's height.

void product_wide(benchmark::State& run) {
  const Index rows = run.range(0), n = run.range(1);
  const Matrix<float> W = Matrix<float>::Random(rows, head_width);
  const Matrix<float> K = Matrix<float>::Random(head_width, n);
  Matrix<float> Z(rows, n);
  for (auto _ : run) {
    Product<float>::ab(W, K, Z);
    benchmark::ClobberMemory();
  }
  report(run, Z, n, 2.0 * head_width * static_cast<double>(rows), 0);
}

void product_scores(benchmark::State& run) {
  const Index rows = run.range(0), n = run.range(1);
  const Matrix<float> K = Matrix<float>::Random(rows, n), Q = Matrix<float>::Random(rows, n);
  Matrix<float> P(n, n);
  for (auto _ : run) {
    Product<float>::atb(K, Q, P);
    benchmark::ClobberMemory();
  }
  report(run, P, n, 2.0 * static_cast<double>(rows * n), 0);
}

void product_carry(benchmark::State& run) {
  const Index rows = run.range(0), n = run.range(1);
  const Matrix<float> Del = 1e-6f * Matrix<float>::Random(rows, n);
  const Matrix<float> K = Matrix<float>::Random(head_width, n);
  Matrix<float> W = Matrix<float>::Zero(rows, head_width);
  for (auto _ : run) {
    W.noalias() += Del * K.transpose();
    benchmark::ClobberMemory();
  }
  report(run, W, n, 2.0 * head_width * static_cast<double>(rows), 0);
}

void gelu_gradient(benchmark::State& run) {
  const Matrix<float> Z = Matrix<float>::Random(run.range(0), run.range(1));
  Matrix<float> A = Z, g = Z;
  for (auto _ : run) {
    GeluTanh::inner_gradient<float>(Z, A, g);
    benchmark::ClobberMemory();
  }
  report(run, g, Z.cols(), 0, 0);
}

void norm_gradient(benchmark::State& run) {
  OneChunk<LinearModel> c(run.range(1));
  Matrix<float> G = c.V;
  for (auto _ : run) {
    LayerNormResidual::gradient<float>(c.Q, c.K, c.V, c.norm(), G);
    benchmark::ClobberMemory();
  }
  report(run, G, c.n, 0, 0);
}

void norm_output(benchmark::State& run) {
  OneChunk<LinearModel> c(run.range(1));
  for (auto _ : run) {
    LayerNormResidual::output<float>(c.V, c.Q, c.norm(), c.O);
    benchmark::ClobberMemory();
  }
  report(run, c.O, c.n, 0, 0);
}

void register_all() {
  const auto forms = [](const char* name, auto* linear, auto* mlp) {
    const std::string form = name;
    for (const auto& [model, body] : {std::pair("ttt-linear/", linear), std::pair("ttt-mlp/", mlp)})
      benchmark::RegisterBenchmark((model + form).c_str(), body)
          ->ArgName("n")
          ->Arg(8)
          ->Arg(16)
          ->Arg(32);
  };
  forms("dual-form", chunk_form<LinearModel>, chunk_form<MLPModel>);
  forms("primal-form", primal_form<LinearModel>, primal_form<MLPModel>);
  forms("online-step", step<LinearModel>, step<MLPModel>);
  forms("adjoint", adjoint<LinearModel>, adjoint<MLPModel>);
  benchmark::RegisterBenchmark("own-mlp/first-order", chunk_form<FirstOrderMLP<>>)
      ->ArgName("n")
      ->Arg(16);
  benchmark::RegisterBenchmark("own-mlp/first-order adjoint", adjoint<FirstOrderMLP<>>)
      ->ArgName("n")
      ->Arg(16);
  const auto part = [](const char* name, auto* body, std::initializer_list<Index> heights) {
    for (const Index rows : heights)
      benchmark::RegisterBenchmark(name, body)->ArgNames({"rows", "n"})->Args({rows, 16});
  };
  part("part/product W K", product_wide, {head_width, 4 * head_width});
  part("part/product K'Q", product_scores, {head_width, 4 * head_width});
  part("part/product Del K'", product_carry, {head_width, 4 * head_width});
  part("part/gelu and gradient", gelu_gradient, {4 * head_width});
  part("part/norm gradient", norm_gradient, {head_width});
  part("part/norm output", norm_output, {head_width});
}

}  // namespace
}  // namespace ttt::bench

int main(int argc, char** argv) {
  return ttt::bench::Program(argc, argv).run([] { ttt::bench::register_all(); });
}
