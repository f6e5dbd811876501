// The layers of fixed size against the dynamic ones that they are made from: any number of steps,
// from any place of a stream and back, copied as bytes, without an allocation.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>

#include "layers/ttt_cases.hpp"
#include "ttt/layers/fixed_lstm.hpp"
#include "ttt/layers/fixed_ttt_linear.hpp"
#include "ttt/layers/fixed_ttt_mlp.hpp"

namespace ttt::test {
namespace {

struct LSTMCases {
  template <class S>
  using Layer = LSTM<S>;
};
using LinearCases = TTTCases<LinearModel>;

/// Other than those of the dynamic layer are only the order of the sums and the form of sigma.
template <class S>
constexpr double allowed = std::same_as<S, float> ? 1e-5 : 1e-12;

/// One kind of fixed layer and a dynamic one with noise on all parameters.
template <class Fixed, class Cases>
class Twins {
 public:
  using S = typename Fixed::Scalar;
  using State = typename Fixed::State;
  using Dynamic = typename Fixed::Dynamic;
  static_assert(std::is_trivially_copyable_v<Fixed> && std::is_trivially_copyable_v<State>);

  template <class... More>
  explicit Twins(const typename Dynamic::Config& config, const More&... more)
      : dynamic(make_layer<Cases, S>(config)),
        fixed(std::make_unique<Fixed>(dynamic, more...)),
        workspace(dynamic.workspace(1)) {}

  Matrix<S> step_dynamic(const Matrix<S>& x, typename Dynamic::State& state) {
    Matrix<S> y(x.rows(), x.cols());
    for (Index t = 0; t < x.cols(); ++t)
      dynamic.step(x.col(t), state, y.col(t), workspace, options);
    return y;
  }
  Matrix<S> step_fixed(const Matrix<S>& x, State& state) const {
    Matrix<S> y(x.rows(), x.cols());
    for (Index t = 0; t < x.cols(); ++t) fixed->step(x.col(t).data(), state, y.col(t).data());
    return y;
  }
  Matrix<S> noise(Index tokens, std::uint64_t seed = 1) const {
    Random random(seed);
    return random_matrix<S>(dynamic.width(), tokens, random);
  }

  Dynamic dynamic;
  std::unique_ptr<Fixed> fixed;
  typename Dynamic::Workspace workspace;
  RunOptions options;
};

/// Steps of both, and all along the fixed one's state read by the dynamic layer.
void expect_equal_steps(auto& twins, Index tokens) {
  using S = typename std::remove_cvref_t<decltype(twins)>::S;
  auto state = twins.fixed->initial_state();
  auto expected = twins.dynamic.initial_state();
  for (const Index piece : {Index{1}, tokens - 1}) {
    const auto x = twins.noise(piece, static_cast<std::uint64_t>(piece));
    const auto y = twins.step_fixed(x, state);
    EXPECT_LT(relative_error(y, twins.step_dynamic(x, expected)), allowed<S>);
    expect_close(twins.fixed->to_dynamic(state), expected, allowed<S>);
  }
}

/// A prompt at once by the dynamic layer, steps by the fixed one, the rest by the dynamic one.
void expect_equal_after_a_prompt(auto& twins, Index prompt, Index steps) {
  using S = typename std::remove_cvref_t<decltype(twins)>::S;
  const auto x = twins.noise(2 * prompt + steps);
  Matrix<S> y(x.rows(), x.cols());
  auto state = twins.dynamic.initial_state();
  twins.dynamic.forward(x.leftCols(prompt), state, y.leftCols(prompt), twins.workspace);
  auto fixed_state = twins.fixed->from(state);
  y.middleCols(prompt, steps) = twins.step_fixed(x.middleCols(prompt, steps), fixed_state);
  state = twins.fixed->to_dynamic(fixed_state);
  EXPECT_NO_THROW(twins.dynamic.check(state));
  twins.dynamic.forward(x.rightCols(prompt), state, y.rightCols(prompt), twins.workspace);

  auto expected = twins.dynamic.initial_state();
  EXPECT_LT(relative_error(y, twins.step_dynamic(x, expected)), allowed<S>);
  expect_close(state, expected, allowed<S>);
}

/// Layer and state moved elsewhere as bytes, in the middle of a stream; x and y the same memory.
void expect_equal_bytes(auto& twins, Index lead) {
  using Fixed = std::remove_cvref_t<decltype(*twins.fixed)>;
  using State = typename Fixed::State;
  const auto x = twins.noise(lead + 20);
  auto state = twins.fixed->initial_state();
  twins.step_fixed(x.leftCols(lead), state);
  alignas(State) std::array<std::byte, sizeof(State)> state_bytes;
  auto copied_layer = std::make_unique<Fixed>(*twins.fixed);
  std::memcpy(state_bytes.data(), &state, sizeof state);
  std::memcpy(static_cast<void*>(copied_layer.get()), twins.fixed.get(), sizeof(Fixed));
  const auto y = twins.step_fixed(x.rightCols(20), state);

  State copied;
  std::memcpy(&copied, state_bytes.data(), sizeof copied);
  const AllocationCounter allocations;
  for (Index t = 0; t < 20; ++t) {
    auto x_t = x.col(lead + t).eval();
    const AllocationCounter allocations_of_step;
    copied_layer->step(x_t.data(), copied, x_t.data());
    EXPECT_EQ(allocations_of_step.count(), 0u);
    EXPECT_TRUE(same_bits(x_t, y.col(t))) << t;
  }
  EXPECT_TRUE(!counts_allocations || allocations.count() > 0) << "the counter counts nothing";
}

template <class Fixed, class Cases>
void expect_twins(const typename Fixed::Dynamic::Config& config, Index period) {
  Twins<Fixed, Cases> twins(config);
  expect_equal_steps(twins, 3 * period + 2);
  expect_equal_after_a_prompt(twins, period + 1, 2 * period);
  expect_equal_bytes(twins, period - 1);
}

template <int width>
void expect_lstm() {
  SCOPED_TRACE(width);
  expect_twins<FixedLSTM<float, width>, LSTMCases>({width}, 8);
  expect_twins<FixedLSTM<double, width>, LSTMCases>({width}, 8);
}

/// `config` has the other switches; its sizes are those of the type.
template <class Model, int f, int heads, int mini_batch,
          FixedTTTOptions options = FixedTTTOptions{}>
void expect_ttt(TTTConfig config = {}) {
  SCOPED_TRACE(concat(heads, " heads of ", f, ", mini-batch ", mini_batch));
  config.width = heads * f;
  config.heads = heads;
  config.mini_batch = mini_batch;
  config.share_qk = options.share_qk;
  config.gate = options.gate;
  config.conv_kernel = options.conv_kernel;
  expect_twins<FixedTTTLayer<float, Model, f, heads, mini_batch, options>, TTTCases<Model>>(
      config, mini_batch);
  expect_twins<FixedTTTLayer<double, Model, f, heads, mini_batch, options>, TTTCases<Model>>(
      config, mini_batch);
}

constexpr FixedTTTOptions mamba_backbone{.share_qk = true, .gate = true};

TEST(FixedLSTMTest, EqualsTheDynamicLayer) {
  expect_lstm<8>();
  expect_lstm<16>();
  expect_lstm<32>();
  expect_lstm<64>();
}

TEST(FixedLSTMTest, EqualsTheDynamicLayerWhereNoRegisterDividesTheWidth) {
  expect_lstm<1>();
  expect_lstm<5>();
  expect_lstm<12>();
}

TEST(FixedLSTMTest, RefusesOtherWidths) {
  const LSTM<float> layer({8});
  expect_refused([&] { FixedLSTM<float, 16>{layer}; }, {"FixedLSTM", "width is 8", "expected 16"});
  expect_refused([&] { FixedLSTM<float, 16>::from(layer.initial_state()); },
                 {"FixedLSTM", "h has shape 8 x 1", "expected 16 x 1"});
}

TEST(FixedTTTLinearTest, EqualsTheDynamicLayer) {
  expect_ttt<LinearModel, 8, 1, 4>();
  expect_ttt<LinearModel, 16, 2, 16>();
  expect_ttt<LinearModel, 32, 1, 4>();
  expect_ttt<LinearModel, 64, 1, 16>();
}

TEST(FixedTTTLinearTest, EqualsTheDynamicLayerWhereNoRegisterDividesTheWidth) {
  expect_ttt<LinearModel, 2, 1, 1>();
  expect_ttt<LinearModel, 6, 2, 4>();
  expect_ttt<LinearModel, 20, 1, 4>();
}

TEST(FixedTTTLinearTest, EqualsTheDynamicLayerWithEverySwitch) {
  expect_ttt<LinearModel, 8, 2, 4, mamba_backbone>();
  expect_ttt<LinearModel, 16, 1, 16, mamba_backbone>(
      {.base_learning_rate = -0.3, .queries_as_keys = true});
  expect_ttt<LinearModel, 8, 1, 4, FixedTTTOptions{true, false, 1}>();
  expect_ttt<LinearModel, 8, 2, 4, FixedTTTOptions{false, true}>({.rope_theta = 100});
  expect_ttt<LinearModel, 8, 2, 4>(
      {.rotary = false, .learned_initial_weights = false, .queries_as_keys = true});
}

TEST(FixedTTTMLPTest, EqualsTheDynamicLayer) {
  expect_ttt<MLPModel, 6, 2, 4>();
  expect_ttt<MLPModel, 16, 1, 4, mamba_backbone>({.base_learning_rate = 0.1});
  expect_ttt<MLPModel, 64, 1, 4>();
}

TEST(FixedTTTMLPTest, RefusesOtherSizesByItsName) {
  using Fixed = FixedTTTMLP<float, 6, 2, 4>;
  const TTTMLP<float> layer({.width = 12, .heads = 1, .mini_batch = 4});
  expect_refused([&] { Fixed{layer}; }, {"FixedTTTMLP: the layer's ", "heads is 1, expected 2"});
  auto state = TTTMLP<float>({.width = 12, .heads = 2, .mini_batch = 4}).initial_state();
  state.weights.W[1] = Matrix<float>::Zero(6, 24);
  expect_refused([&] { Fixed::from(state); },
                 {"FixedTTTMLP: the state's ", "W has shape 6 x 24, expected 6 x 48"});
}

TEST(FixedTTTLinearTest, ScalesTheInnerRateAsTheDynamicLayer) {
  using Fixed = FixedTTTLinear<double, 8, 2, 4>;
  Twins<Fixed, LinearCases> twins({.width = 16, .heads = 2, .mini_batch = 4}, 0.5);
  twins.options.inner_rate_scale = 0.5;
  expect_equal_steps(twins, 10);
}

TEST(FixedTTTLinearTest, RefusesOtherSizesAndSwitches) {
  const TTTConfig fits{
      .width = 16, .heads = 2, .mini_batch = 4, .share_qk = true, .gate = true, .conv_kernel = 3};
  using Fixed = FixedTTTLinear<float, 8, 2, 4, FixedTTTOptions{true, true, 3}>;
  EXPECT_NO_THROW(Fixed{TTTLinear<float>(fits)});
  const auto refused = [&](auto member, auto value, const char* is, const char* expected) {
    TTTConfig config = fits;
    config.*member = value;
    expect_refused([&] { Fixed{TTTLinear<float>(config)}; },
                   {"FixedTTTLinear: the layer's ", is, expected});
  };
  refused(&TTTConfig::heads, 1, "heads is 1", "expected 2");
  refused(&TTTConfig::width, 24, "head width is 12", "expected 8");
  refused(&TTTConfig::mini_batch, 16, "mini_batch is 16", "expected 4");
  refused(&TTTConfig::share_qk, false, "share_qk is false", "expected true");
  refused(&TTTConfig::gate, false, "gate is false", "expected true");
  refused(&TTTConfig::conv_kernel, 4, "conv_kernel is 4", "expected 3");
}

TEST(FixedTTTLinearTest, RefusesStatesOfOtherSizes) {
  using Fixed = FixedTTTLinear<float, 8, 2, 4>;
  const auto refused = [](const TTTConfig& config, Index position, const char* part) {
    auto state = TTTLinear<float>(config).initial_state();
    state.position = position;
    expect_refused([&] { Fixed::from(state); }, {"FixedTTTLinear: the state's ", part});
  };
  const TTTConfig fits{.width = 16, .heads = 2, .mini_batch = 4};
  EXPECT_NO_THROW(Fixed::from(TTTLinear<float>(fits).initial_state()));
  refused(fits, 4, "position is 4, expected 0 to 3");
  refused({.width = 16, .heads = 2, .mini_batch = 4, .share_qk = true}, 0,
          "conv_tail has shape 16 x 3, expected 16 x 0");
  refused({.width = 16, .heads = 4, .mini_batch = 4}, 0, "W has shape 4 x 16, expected 8 x 16");
}

}  // namespace
}  // namespace ttt::test
