/// @file
/// The laws of a SequenceLayer, written once for all layers, float and double. A layer joins with
///
///   struct MyCases {
///     template <class S> using Layer = MyLayer<S>;
///     static std::vector<LayerCase<MyConfig>> small();  // with the switches that matter
///     static MyConfig large();                          // enough work for several threads
///   };
///   INSTANTIATE_TYPED_TEST_SUITE_P(My, LayerLaws, MyCases);
///
/// and, if its parameters need more than noise, `static void prepare(auto& parameters)`.
#pragma once

#include <functional>

#include "support/count_allocations.hpp"
#include "support/gradient_check.hpp"
#include "support/layer_cases.hpp"
#include "support/layer_runs.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/io/state.hpp"

namespace ttt::test {

/// Compares `analytic` with the slope of `loss` along one random direction of each tensor of
/// `value`. Elements that are zero stay: in a state, they are memory not yet in use.
template <class Value, class Loss>
void expect_slopes(Value& value, const Value& analytic, Loss&& loss) {
  Random random(17);
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor, const auto& gradient) {
        const Matrix<double> centre = tensor;
        Matrix<double> direction = random_matrix<double>(tensor.rows(), tensor.cols(), random);
        direction.array() *= (centre.array() != 0).template cast<double>();
        if (direction.isZero(0)) return;
        direction.normalize();
        Vector<double> along = Vector<double>::Zero(1), slope(1);
        slope(0) = direction.cwiseProduct(gradient).sum();
        const auto moved_loss = [&] {
          tensor = centre + along(0) * direction;
          return loss();
        };
        EXPECT_TRUE(check_gradient(along, slope, moved_loss)) << info.name;
        tensor = centre;
      },
      value, analytic);
}

/// Expects `std::invalid_argument` with all `parts` in its text.
inline void expect_refused(const std::function<void()>& call,
                           const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "nothing was thrown; expected a message with " << parts[0];
  } catch (const std::invalid_argument& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "'" << error.what() << "' lacks '" << part << "'";
  }
}

/// One thread but where threads are the question: most problems here are too small for more.
template <class Cases>
class LayerLaws : public ::testing::Test {
 private:
  ThreadCount one_thread_{1};
};
TYPED_TEST_SUITE_P(LayerLaws);

TYPED_TEST_P(LayerLaws, AnySplitGivesTheSameOutputsStateAndGradients) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    constexpr double allowed = tolerance::stream<typename L::Scalar>;
    for (Trial trial : trials(period)) {
      trial.tokens += period + 2;
      const Stream<L> stream = stream_of(layer, trial, 1);
      const Outcome<L> whole = run(layer, stream);
      const std::vector<Index> single(static_cast<std::size_t>(trial.tokens), 1);
      expect_close(infer(layer, stream, single, true), whole.outputs, allowed);
      for (const std::uint64_t seed : {2, 3, 4}) {
        SCOPED_TRACE(concat("start ", trial.lead, ", split ", seed));
        Random random(seed);
        const std::vector<Index> pieces = random_pieces(trial.tokens, random);
        expect_close(infer(layer, stream, pieces, true), whole.outputs, allowed);
        expect_close(run(layer, stream, pieces), whole, allowed);
      }
    }
  });
}

TYPED_TEST_P(LayerLaws, FutureTokensLeaveEarlierOutputsBitEqual) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    using S = typename L::Scalar;
    Random random(7);
    for (const Trial& trial : trials(period)) {
      const Stream<L> stream = stream_of(layer, trial, 6);
      const Matrix<S> y = infer(layer, stream).y;
      for (Index cut = 0; cut < trial.tokens; ++cut) {
        SCOPED_TRACE(concat("start ", trial.lead, ", cut at ", cut));
        const auto with_future = [&](const Matrix<S>& future) {
          Stream<L> other = stream;
          other.x.rightCols(future.cols()) = future;
          return infer(layer, other).y;
        };
        auto future = random_matrix<S>(layer.width(), trial.tokens - cut, random);
        const Matrix<S> noisy = with_future(future);
        EXPECT_TRUE(same_bits(noisy.leftCols(cut), y.leftCols(cut)));
        EXPECT_FALSE(noisy.col(cut) == y.col(cut)) << "noise changed nothing at all";
        for (const S poison :
             {std::numeric_limits<S>::quiet_NaN(), std::numeric_limits<S>::infinity()}) {
          future.setConstant(poison);
          EXPECT_TRUE(same_bits(with_future(future).leftCols(cut), y.leftCols(cut))) << poison;
        }
      }
    }
  });
}

TYPED_TEST_P(LayerLaws, BackwardEqualsDifferences) {
  each_layer<TypeParam, double>([](auto layer, Index period) {
    using L = decltype(layer);
    GradientCheckOptions options;
    options.elements_per_tensor = 2;
    for (const Trial& trial : trials(period)) {
      SCOPED_TRACE(concat("start ", trial.lead));
      Stream<L> stream = stream_of(layer, trial, 8);
      const Outcome<L> outcome = run(layer, stream);
      const auto loss_now = [&] { return loss(layer, stream); };
      expect_slopes(layer.parameters(), outcome.grad, loss_now);
      EXPECT_TRUE(check_gradient(layer.parameters(), outcome.grad, loss_now, options));
      EXPECT_TRUE(check_gradient(stream.x, outcome.dx, loss_now, options));
      if (stream.start) expect_slopes(*stream.start, outcome.d_state, loss_now);
    }
  });
}

TYPED_TEST_P(LayerLaws, BackwardAddsToGradients) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    const Stream<L> stream = stream_of(layer, {2, period + 3, 1.0}, 9);
    auto workspace = layer.workspace(1);
    typename L::Cache cache;
    Outcome<L> once = run(layer, stream), twice = once;
    layer.forward(stream.x, twice.outputs.state = *stream.start, twice.outputs.y, workspace, cache);
    set_zero(twice.grad);
    for (int call = 0; call < 2; ++call) {
      twice.d_state = random_like(twice.outputs.state, stream.probe_seed);
      layer.backward(stream.dy, cache, twice.d_state, twice.dx, twice.grad, workspace);
    }
    layer.backward_initial_state(twice.d_state, twice.grad);
    layer.backward_initial_state(twice.d_state, twice.grad);
    layer.backward_initial_state(once.d_state, once.grad);
    add_to(once.grad, typename L::Parameters(once.grad));
    expect_close(twice, once, tolerance::rounding<typename L::Scalar>);
  });
}

TYPED_TEST_P(LayerLaws, CopiedStateForksTheStreamAndAMarkLeadsBack) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    for (const Trial& trial : trials(period)) {
      Stream<L> stream = stream_of(layer, trial, 10);
      const Outputs<L> expected = infer(layer, stream);
      auto state = stream.start_of(layer), fork = state;
      const auto marked = mark(state);
      Matrix<typename L::Scalar> y(layer.width(), trial.tokens);
      auto workspace = layer.workspace(trial.tokens);
      layer.forward(stream.dy, fork, y, workspace, stream.options);  // other tokens
      layer.forward(stream.x, state, y, workspace, stream.options);
      expect_same_bits(Outputs<L>{y, state}, expected);
      rewind(state, marked);
      layer.forward(stream.x, state, y, workspace, stream.options);
      expect_same_bits(Outputs<L>{y, state}, expected);
    }
  });
}

TYPED_TEST_P(LayerLaws, LengthsAroundAPeriodWorkWithAndWithoutCacheInUsedMemory) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    auto workspace = layer.workspace(1);
    std::vector<typename L::Cache> caches;
    for (const Index tokens :
         {2 * period + 1, Index{0}, Index{1}, period - 1, period, period + 1}) {
      SCOPED_TRACE(concat(tokens, " tokens"));
      const Stream<L> stream = stream_of(layer, {0, tokens, 1.0}, 11);
      const Outcome<L> fresh = run(layer, stream);
      expect_same_bits(infer(layer, stream), fresh.outputs);
      expect_same_bits(run(layer, stream, {tokens}, workspace, caches), fresh);
      EXPECT_EQ(first_non_finite(fresh), std::nullopt);
      if (tokens > 0) continue;
      expect_same_bits(fresh.outputs.state, layer.initial_state());
      expect_same_bits(fresh.d_state, random_like(layer.initial_state(), stream.probe_seed));
    }
  });
}

TYPED_TEST_P(LayerLaws, FloatAgreesWithDouble) {
  using Narrow = typename TypeParam::template Layer<float>;
  using Wide = typename TypeParam::template Layer<double>;
  const auto widen = [](const TensorInfo&, const auto& from, auto& to) {
    to = from.template cast<double>();
  };
  for (const auto& one : TypeParam::small()) {
    SCOPED_TRACE(one.name);
    const auto narrow = make_layer<TypeParam, float>(one.config);
    Wide wide(one.config);
    for_each_tensor(widen, narrow.parameters(), wide.parameters());
    const Stream<Narrow> stream = stream_of(narrow, {0, one.period + 3, 1.0}, 12);
    const Stream<Wide> wide_stream{std::nullopt, stream.x.template cast<double>(),
                                   stream.dy.template cast<double>(), stream.probe_seed,
                                   stream.options};
    expect_close(run(narrow, stream), run(wide, wide_stream),
                 tolerance::stream_float_against_double);
  }
}

TYPED_TEST_P(LayerLaws, BatchEqualsSeparateStreams) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    using S = typename L::Scalar;
    std::vector<Stream<L>> streams;
    for (const Trial& trial : std::vector<Trial>{
             {2, period + 3, 0.5}, {0, 0, 0.5}, {1, 1, 0.5}, {period, 2 * period, 0.5}})
      streams.push_back(stream_of(layer, trial, 13 + streams.size()));
    const BatchOutcome<L> batch = run_batch(layer, streams);
    expect_close(batch, run_separately(layer, streams), tolerance::stream<S>);

    std::vector<typename L::State> together = batch.states, apart = batch.states;
    Random random(14);
    const auto x = random_matrix<S>(layer.width(), std::ssize(streams), random);
    auto y = unwritten<S>(layer.width(), x.cols()), expected = y;
    auto workspace = layer.workspace(1);
    step_batch(layer, x, std::span<typename L::State>(together), y, workspace, streams[0].options);
    for (Index s = 0; s < x.cols(); ++s)
      layer.step(x.col(s), apart[static_cast<std::size_t>(s)], expected.col(s), workspace,
                 streams[0].options);
    EXPECT_LE(relative_error(y, expected), tolerance::stream<S>);
    for (std::size_t s = 0; s < apart.size(); ++s)
      expect_close(together[s], apart[s], tolerance::stream<S>);
  });
}

TYPED_TEST_P(LayerLaws, AnyNumberOfThreadsGivesTheSameBits) {
  const auto layer = make_layer<TypeParam, float>(TypeParam::large());
  using L = std::remove_const_t<decltype(layer)>;
  const std::vector<Stream<L>> streams{random_stream(layer, 2, 200, 15),
                                       random_stream(layer, 0, 70, 16)};
  const auto with_threads = [&](int threads) {
    const ThreadCount guard(threads);
    return run_batch(layer, streams);
  };
  const BatchOutcome<L> serial = with_threads(1);
  for (const int threads : {2, 3}) {
    SCOPED_TRACE(concat(threads, " threads"));
    expect_same_bits(with_threads(threads), serial);
  }
}

TYPED_TEST_P(LayerLaws, StepAllocatesNothing) {
  if constexpr (!counts_allocations) {
    GTEST_SKIP() << "allocations are counted with glibc and without sanitizers only";
  } else {
    const AllocationCounter self_check;
    ASSERT_GT(Vector<double>::Ones(self_check.count() + 1000).eval().size(), 0);
    ASSERT_GT(self_check.count(), 0u) << "the counter does not count";
    each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
      using S = typename std::remove_cvref_t<decltype(layer)>::Scalar;
      const Index tokens = 2 * period + 3;
      auto workspace = layer.workspace(1);
      auto state = [&] {
        if constexpr (requires { layer.initial_state(tokens); }) return layer.initial_state(tokens);
        return layer.initial_state();
      }();
      const Vector<S> x_t = Vector<S>::Ones(layer.width());
      Vector<S> y_t(layer.width());
      for (Index t = 0; t < tokens; ++t) {
        const AllocationCounter counter;
        layer.step(x_t, state, y_t, workspace);
        EXPECT_EQ(counter.count(), 0u) << "token " << t;
      }
    });
  }
}

TYPED_TEST_P(LayerLaws, SavedAndLoadedStateContinuesBitEqual) {
  each_layer<TypeParam, float, double>([](const auto& layer, Index period) {
    using L = std::remove_cvref_t<decltype(layer)>;
    const testing::TemporaryFolder folder;
    for (const Trial& trial : trials(period)) {
      Stream<L> stream = stream_of(layer, trial, 18);
      const Outputs<L> expected = infer(layer, stream);
      save_state(folder / "state", stream.start_of(layer), "model");
      stream.start = layer.initial_state();
      set_zero(*stream.start);
      load_state(folder / "state", *stream.start, "model");
      expect_same_bits(infer(layer, stream), expected);
    }
  });
}

TYPED_TEST_P(LayerLaws, ForwardRefusesWrongShapesInWords) {
  const auto layer = make_layer<TypeParam, double>(TypeParam::small().front().config);
  using State = typename decltype(layer)::State;
  const Index width = layer.width();
  const std::string wide = std::to_string(width + 1), right = std::to_string(width);
  auto workspace = layer.workspace(5);
  auto state = layer.initial_state();
  auto foreign = make_layer<TypeParam, double>(TypeParam::large()).initial_state();
  auto y = Matrix<double>::Ones(width, 5).eval();
  auto too_wide = Matrix<double>::Ones(width + 1, 5).eval();
  auto too_long = Matrix<double>::Ones(width, 6).eval();

  expect_refused([&] { layer.forward(too_wide, state, too_wide, workspace); },
                 {"forward: x", wide, right});
  expect_refused([&] { layer.forward(y, state, too_long, workspace); }, {"forward: y", "6", "5"});
  typename decltype(layer)::Cache cache;
  expect_refused([&] { layer.forward(y, state, too_wide, workspace, cache); },
                 {"forward: y", wide, right});
  expect_refused([&] { layer.check(foreign); }, {"state", "expected"});
  expect_refused([&] { layer.forward(y, foreign, y, workspace); }, {"state", "expected"});

  const std::vector<Index> lengths{2, 4};
  std::vector<State*> states{&state, &state};
  const auto batch = [&] { layer.forward_batch(y, lengths, states, y, workspace, nullptr); };
  expect_refused(batch, {"forward", "6", "5"});
  states.pop_back();
  expect_refused(batch, {"forward", "2", "1"});
}

TYPED_TEST_P(LayerLaws, BackwardRefusesWrongShapesInWords) {
  const auto layer = make_layer<TypeParam, double>(TypeParam::small().front().config);
  const Index width = layer.width();
  auto workspace = layer.workspace(5);
  auto state = layer.initial_state();
  auto foreign = make_layer<TypeParam, double>(TypeParam::large()).initial_state();
  auto grad = zeros_like(layer.parameters());
  auto y = Matrix<double>::Ones(width, 5).eval(), dx = y;
  auto too_wide = Matrix<double>::Ones(width + 1, 5).eval();
  auto too_long = Matrix<double>::Ones(width, 6).eval();
  typename decltype(layer)::Cache cache;
  layer.forward(y, state, dx, workspace, cache);

  expect_refused([&] { layer.backward(too_long, cache, state, dx, grad, workspace); },
                 {"backward: dy", "6", "5"});
  expect_refused([&] { layer.backward(y, cache, state, too_wide, grad, workspace); },
                 {"backward: dx", std::to_string(width + 1), std::to_string(width)});
  expect_refused([&] { layer.backward(y, cache, foreign, dx, grad, workspace); },
                 {"state", "expected"});
  expect_refused([&] { layer.backward_batch(y, cache, {}, dx, grad, workspace); },
                 {"backward", "0", "1"});
}

REGISTER_TYPED_TEST_SUITE_P(LayerLaws, AnySplitGivesTheSameOutputsStateAndGradients,
                            FutureTokensLeaveEarlierOutputsBitEqual, BackwardEqualsDifferences,
                            BackwardAddsToGradients, CopiedStateForksTheStreamAndAMarkLeadsBack,
                            LengthsAroundAPeriodWorkWithAndWithoutCacheInUsedMemory,
                            FloatAgreesWithDouble, BatchEqualsSeparateStreams,
                            AnyNumberOfThreadsGivesTheSameBits, StepAllocatesNothing,
                            SavedAndLoadedStateContinuesBitEqual, ForwardRefusesWrongShapesInWords,
                            BackwardRefusesWrongShapesInWords);

}  // namespace ttt::test
