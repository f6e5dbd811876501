/// @file
/// Which layers and streams the laws (laws.hpp) are tried on.
#pragma once

#include "support/layer_runs.hpp"
#include "ttt/core/parallel.hpp"

namespace ttt::test {

/// `period`: tokens after which the state does something of its own (mini-batch, window); else 4.
template <class Config>
struct LayerCase {
  std::string name;
  Config config;
  Index period;
};

/// A layer with noise on all parameters, so that nothing is zero or one by initialization.
template <class Cases, class S>
auto make_layer(const auto& config) {
  typename Cases::template Layer<S> layer(config);
  Random random(5);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        tensor += 0.3 * random_matrix<S>(tensor.rows(), tensor.cols(), random);
      },
      layer.parameters());
  if constexpr (requires { Cases::prepare(layer.parameters()); })
    Cases::prepare(layer.parameters());
  return layer;
}

#if defined(__SANITIZE_ADDRESS__)  // g++
inline constexpr bool sanitized = true;
#elif defined(__has_feature)
inline constexpr bool sanitized = __has_feature(address_sanitizer);
#else
inline constexpr bool sanitized = false;
#endif

/// Calls `body(layer, period)` for every configuration and scalar. With sanitizers in double alone:
/// they take minutes to compile both, and watch the memory of the same code.
template <class Cases, class... Scalars, class Body>
void each_layer(Body&& body) {
  const auto with_scalar = [&]<class S>(S, const auto& one) {
    if constexpr (!sanitized || std::same_as<S, double>) {
      SCOPED_TRACE(concat(one.name, ", numbers of ", sizeof(S), " bytes"));
      body(make_layer<Cases, S>(one.config), one.period);
    }
  };
  for (const auto& one : Cases::small()) (with_scalar(Scalars{}, one), ...);
}

/// Where streams start, and how long they are: at the beginning, inside a period with and without
/// reaching its end, at its border.
struct Trial {
  Index lead, tokens;
  double inner_rate_scale;
};
inline std::vector<Trial> trials(Index period) {
  return {{0, period + 3, 1.0}, {1, 2, 1.0}, {2, period + 3, 0.5}, {period, period + 1, 1.0}};
}

template <SequenceLayer L>
Stream<L> stream_of(const L& layer, const Trial& trial, std::uint64_t seed) {
  Stream<L> stream = random_stream(layer, trial.lead, trial.tokens, seed);
  stream.options.inner_rate_scale = trial.inner_rate_scale;
  return stream;
}

/// Sets the number of threads of parallel loops while it lives; Eigen's own stay at one, as in our
/// programs. Does nothing in a serial build.
class ThreadCount {
 public:
  explicit ThreadCount([[maybe_unused]] int threads) {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
    omp_set_num_threads(threads);
    Eigen::setNbThreads(1);
#endif
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;
  ~ThreadCount() {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
    omp_set_num_threads(threads_before_);
    Eigen::setNbThreads(0);
#endif
  }

 private:
  [[maybe_unused]] int threads_before_ = static_cast<int>(available_threads());
};

}  // namespace ttt::test
