/// @file
/// The benchmarks that all sequence layers share. For a layer and a case it registers
///   forward        T tokens of a new stream, for inference
///   forward-cache  the same, keeping what backward needs
///   backward       of these T tokens; the adjoint of the last state starts at zero
///   step           one token after T to 2 T tokens of context, on one thread
/// named `layer/operation/width:D/heads:H/mini_batch:b/T:T/threads:n`, which summarize.py reads.
/// Counters: items_per_second (tokens), flops (of products, a second), bytes (of one state).
#pragma once

#include <memory>

#include "support/ceilings.hpp"
#include "ttt/core/random.hpp"
#include "ttt/layers/flops.hpp"
#include "ttt/layers/sequence_layer.hpp"

namespace ttt::bench {

struct Case {
  std::string layer;
  Index width = 768, heads = 12;
  Index mini_batch = 0;  // 0 for layers without one
  Index tokens = 2048;
  int threads = 1;
};

inline std::string benchmark_name(const Case& c, const std::string& operation) {
  return concat(c.layer, "/", operation, "/width:", c.width, "/heads:", c.heads,
                "/mini_batch:", c.mini_batch, "/T:", c.tokens, "/threads:", c.threads);
}

/// The one way to register; `body(run)` is the benchmark.
template <class Body>
void register_case(const Case& c, const std::string& operation, Body body) {
  const auto run_case = [c, body](benchmark::State& run) {
    set_threads(c.threads);
    body(run);
  };
  auto* registered = benchmark::RegisterBenchmark(benchmark_name(c, operation).c_str(), run_case);
  set_clock(registered->Unit(benchmark::kMillisecond), c.threads);
}

/// Bytes of the tensors of a state: what a stream keeps from token to token.
template <class State>
double state_bytes(const State& state) {
  double bytes = 0;
  for_each_tensor(
      [&](const TensorInfo&, const auto& tensor) {
        bytes += static_cast<double>(tensor.size()) * sizeof(*tensor.data());
      },
      state);
  return bytes;
}

/// Sets the counters. A result that is not finite is an error: its time would mean nothing.
template <class Tensor>
void report(benchmark::State& run, const Tensor& result, Index tokens, double flops_per_token,
            double bytes) {
  if (!result.allFinite()) run.SkipWithError("the result is not finite");
  run.SetItemsProcessed(run.iterations() * tokens);
  run.counters["flops"] = flops_counter(flops_per_token * static_cast<double>(tokens));
  run.counters["bytes"] = bytes;
}

/// A layer and a stream that has read nothing.
template <SequenceLayer L>
struct Subject {
  using S = typename L::Scalar;
  L layer;
  Matrix<S> x, y;  // [width, T]
  typename L::State state;
  typename L::Workspace workspace;

  Subject(const typename L::Config& config, Index tokens)
      : layer(config),
        x(layer.width(), tokens),
        y(layer.width(), tokens),
        state(layer.initial_state()),
        workspace(layer.workspace(tokens)) {
    Random random(1);
    random.fill_normal(x, 1);
  }
};

/// Kept while benchmarks of the same case follow one another: making a layer takes longer than
/// running it. Only one subject of a kind is alive.
template <SequenceLayer L>
Subject<L>& subject(const Case& c, const typename L::Config& config) {
  static std::string kept_name;
  static std::unique_ptr<Subject<L>> kept;
  Case any_threads = c;
  any_threads.threads = 0;
  const std::string name = benchmark_name(any_threads, "");
  if (name != kept_name) {
    kept.reset();
    kept = std::make_unique<Subject<L>>(config, c.tokens);
    kept_name = name;
  }
  kept->state = kept->layer.initial_state();
  return *kept;
}

template <SequenceLayer L>
void measure_forward(benchmark::State& run, Subject<L>& s, double flops) {
  const auto start = mark(s.state);
  for (auto _ : run) {
    rewind(s.state, start);
    s.layer.forward(s.x, s.state, s.y, s.workspace);
    benchmark::ClobberMemory();
  }
  report(run, s.y, s.x.cols(), flops, state_bytes(s.state));
}

template <SequenceLayer L>
void measure_forward_cache(benchmark::State& run, Subject<L>& s, double flops) {
  typename L::Cache cache;
  const auto start = mark(s.state);
  for (auto _ : run) {
    rewind(s.state, start);
    s.layer.forward(s.x, s.state, s.y, s.workspace, cache);
    benchmark::ClobberMemory();
  }
  report(run, s.y, s.x.cols(), flops, state_bytes(s.state));
}

template <SequenceLayer L>
void measure_backward(benchmark::State& run, Subject<L>& s, double flops) {
  typename L::Cache cache;
  s.layer.forward(s.x, s.state, s.y, s.workspace, cache);
  const auto d_state_after = zeros_like(s.state);
  auto d_state = d_state_after;
  auto grad = zeros_like(s.layer.parameters());
  Matrix<typename L::Scalar> dx(s.x.rows(), s.x.cols());
  for (auto _ : run) {
    run.PauseTiming();
    d_state = d_state_after;
    run.ResumeTiming();
    s.layer.backward(s.y, cache, d_state, dx, grad, s.workspace);
    benchmark::ClobberMemory();
  }
  report(run, dx, s.x.cols(), flops, state_bytes(s.state));
}

template <SequenceLayer L>
void measure_step(benchmark::State& run, Subject<L>& s, double flops) {
  s.state = initial_state(s.layer, 2 * s.x.cols());
  s.layer.forward(s.x, s.state, s.y, s.workspace);
  const auto context = mark(s.state);
  const double bytes = state_bytes(s.state);
  Vector<typename L::Scalar> y_t(s.x.rows());
  Index t = 0;
  for (auto _ : run) {
    s.layer.step(s.x.col(t), s.state, y_t, s.workspace);
    benchmark::DoNotOptimize(y_t.data());
    if (++t == s.x.cols()) {  // a state that grows stays within a factor of two
      rewind(s.state, context);
      t = 0;
    }
  }
  report(run, y_t, 1, flops, bytes);
}

/// Registers the forward of one case. `config` agrees with `c`.
template <SequenceLayer L>
void register_forward(const Case& c, const typename L::Config& config, const Flops& flops) {
  register_case(c, "forward", [=](benchmark::State& run) {
    measure_forward(run, subject<L>(c, config), flops.forward);
  });
}

/// Registers all four operations.
template <SequenceLayer L>
void register_layer(const Case& c, const typename L::Config& config, const Flops& flops) {
  using State = benchmark::State;
  register_forward<L>(c, config, flops);
  register_case(c, "backward",
                [=](State& run) { measure_backward(run, subject<L>(c, config), flops.backward); });
  register_case(c, "forward-cache", [=](State& run) {
    measure_forward_cache(run, subject<L>(c, config), flops.forward);
  });
  if (c.threads == 1)
    register_case(c, "step",
                  [=](State& run) { measure_step(run, subject<L>(c, config), flops.step); });
}

}  // namespace ttt::bench
