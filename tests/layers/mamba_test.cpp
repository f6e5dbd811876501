// Mamba against an independent evaluation of its equations, one number at a time; initialization
// and errors.
#include "ttt/layers/mamba.hpp"

#include <gtest/gtest.h>

#include "support/layer_runs.hpp"

namespace ttt::test {
namespace {

using Layer = Mamba<double>;
using Table = std::vector<std::vector<double>>;  // [token][channel]

Table table(Index rows, Index cols) {
  return Table(static_cast<std::size_t>(rows), std::vector<double>(static_cast<std::size_t>(cols)));
}

/// W' x + b for every token; an empty bias is none.
Table affine(const Table& x, const Matrix<double>& weight, const Vector<double>& bias) {
  Table y = table(std::ssize(x), weight.cols());
  for (std::size_t t = 0; t < x.size(); ++t) {
    for (Index o = 0; o < weight.cols(); ++o) {
      double sum = bias.size() > 0 ? bias(o) : 0;
      for (Index i = 0; i < weight.rows(); ++i) sum += weight(i, o) * x[t][i];
      y[t][o] = sum;
    }
  }
  return y;
}

double silu(double z) { return z / (1 + std::exp(-z)); }

/// The layer from the start of a stream, by its equations.
Table naive(const MambaConfig& config, const MambaParameters<double>& p, const Table& x) {
  const Index E = config.inner(), N = config.state_size, R = config.rank(), K = config.conv_kernel;
  const Index T = std::ssize(x);
  const Table projected = affine(x, p.in_proj_weight, p.in_proj_bias);
  Table u = table(T, E), r = table(T, R), gated = table(T, E), h = table(E, N);
  for (Index t = 0; t < T; ++t) {
    for (Index e = 0; e < E; ++e) {
      double sum = p.conv_bias.size() > 0 ? p.conv_bias(e) : 0;
      for (Index j = 0; j < K; ++j)
        if (t + j >= K - 1) sum += p.conv_weight(j, e) * projected[t + j - (K - 1)][e];
      u[t][e] = silu(sum);
    }
  }
  const Table selected = affine(u, p.x_proj_weight, {});
  for (Index t = 0; t < T; ++t)
    for (Index i = 0; i < R; ++i) r[t][i] = selected[t][i];
  const Table raw = affine(r, p.dt_proj_weight, p.dt_proj_bias);
  for (Index t = 0; t < T; ++t) {
    for (Index e = 0; e < E; ++e) {
      const double dt = std::log1p(std::exp(raw[t][e]));
      double s = p.D(e) * u[t][e];
      for (Index n = 0; n < N; ++n) {
        const double A = -std::exp(p.A_log(n, e)), B = selected[t][R + n];
        h[e][n] = std::exp(dt * A) * h[e][n] + dt * B * u[t][e];
        s += h[e][n] * selected[t][R + N + n];
      }
      gated[t][e] = s * silu(projected[t][E + e]);
    }
  }
  return affine(gated, p.out_proj_weight, p.out_proj_bias);
}

/// Noise on everything; A_log is kept near its beginning.
Layer noisy_layer(const MambaConfig& config) {
  Layer layer(config, Random(1));
  Random random(2);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        tensor += 0.3 * random_matrix<double>(tensor.rows(), tensor.cols(), random);
      },
      layer.parameters());
  return layer;
}

std::vector<MambaConfig> configs() {
  MambaConfig published, wide;
  published.width = 6;
  wide.width = 40;  // 80 channels: two blocks; rank 3
  return {published,
          wide,
          {6, 9, 16, 4, 1, false, true},
          {5, 7, 5, 1, 2, true, false},
          {4, 3, 1, 3, 1, true, true},
          {3, 130, 2, 2, 2, false, false}};
}

TEST(MambaTest, EqualsItsEquations) {
  for (const MambaConfig& config : configs()) {
    SCOPED_TRACE(concat("width ", config.width, ", inner width ", config.inner()));
    const Layer layer = noisy_layer(config);
    for (const Index T : {Index{1}, Index{9}, 2 * ScanBlock<double>::chunk + 5}) {
      Random random(3);
      const auto x = random_matrix<double>(config.width, T, random);
      Table tokens = table(T, config.width);
      for (Index t = 0; t < T; ++t)
        for (Index i = 0; i < config.width; ++i) tokens[t][i] = x(i, t);
      const Table expected = naive(config, layer.parameters(), tokens);
      Matrix<double> y(config.width, T), wanted = y;
      for (Index t = 0; t < T; ++t)
        for (Index i = 0; i < config.width; ++i) wanted(i, t) = expected[t][i];
      auto state = layer.initial_state();
      layer.forward(x, state, y);
      EXPECT_LE(relative_error(y, wanted), 1e-12) << T << " tokens";
    }
  }
}

TEST(MambaTest, TensorsHaveThePublishedNamesAndShapes) {
  const MambaConfig config{6, 10, 3, 4, 2, true, true};
  std::vector<std::pair<std::string, std::vector<Index>>> found;
  for_each_tensor(
      [&](const TensorInfo& info, const auto&) { found.emplace_back(info.name, info.shape); },
      Layer(config).parameters());
  const decltype(found) expected{
      {"in_proj.weight", {20, 6}},  {"in_proj.bias", {20}},     {"conv1d.weight", {10, 1, 4}},
      {"conv1d.bias", {10}},        {"x_proj.weight", {8, 10}}, {"dt_proj.weight", {10, 2}},
      {"dt_proj.bias", {10}},       {"A_log", {10, 3}},         {"D", {10}},
      {"out_proj.weight", {6, 10}}, {"out_proj.bias", {6}}};
  EXPECT_EQ(found, expected);
}

TEST(MambaTest, WeightDecayIsNotForTheStateSpace) {
  std::vector<std::string> found;
  for_each_tensor(
      [&](const TensorInfo& info, const auto&) {
        if (!info.decays) found.push_back(info.name);
      },
      Layer({6, 10, 3}).parameters());
  EXPECT_EQ(found, (std::vector<std::string>{"A_log", "D"}));
}

TEST(MambaTest, SwitchesAndZerosChooseSizes) {
  MambaConfig config;
  config.width = 33;
  EXPECT_EQ(config.inner(), 66);
  EXPECT_EQ(config.rank(), 3);
  const Layer layer(config);
  EXPECT_EQ(layer.parameters().in_proj_bias.size(), 0);
  EXPECT_EQ(layer.parameters().out_proj_bias.size(), 0);
  EXPECT_EQ(layer.parameters().conv_bias.size(), 66);
  EXPECT_EQ(layer.parameters().x_proj_weight.cols(), 3 + 2 * 16);
  config.conv_bias = false;
  config.bias = true;
  config.dt_rank = 5;
  const Layer other(config);
  EXPECT_EQ(other.parameters().in_proj_bias.size(), 132);
  EXPECT_EQ(other.parameters().conv_bias.size(), 0);
  EXPECT_EQ(other.parameters().dt_proj_weight.rows(), 5);
}

/// All within the bound, and spread over it.
void expect_uniform(const Matrix<double>& weight, double bound) {
  EXPECT_LE(weight.cwiseAbs().maxCoeff(), bound);
  EXPECT_GT(weight.maxCoeff(), 0.9 * bound);
  EXPECT_LT(weight.minCoeff(), -0.9 * bound);
}

TEST(MambaTest, InitializationIsThePublishedOne) {
  MambaConfig config;
  config.width = 64;
  config.bias = true;
  config.dt_init_floor = 0.002;
  const Layer layer(config, Random(4));
  const auto& p = layer.parameters();
  for (Index e = 0; e < config.inner(); ++e)
    for (Index n = 0; n < config.state_size; ++n)
      EXPECT_NEAR(std::exp(p.A_log(n, e)), static_cast<double>(n + 1), 1e-12);
  EXPECT_TRUE((p.D.array() == 1).all());
  const Eigen::ArrayXd dt = p.dt_proj_bias.array().exp().log1p();
  EXPECT_GE(dt.minCoeff(), config.dt_init_floor * (1 - 1e-12));
  EXPECT_LE(dt.minCoeff(), config.dt_init_floor * (1 + 1e-12))
      << "of 128 steps, some meet the floor";
  EXPECT_LE(dt.maxCoeff(), config.dt_max * (1 + 1e-12));
  EXPECT_GT(dt.maxCoeff(), 0.5 * config.dt_max);
  EXPECT_NEAR(dt.log().mean(), std::log(0.01), 0.4) << "log-uniform around the geometric mean";
  expect_uniform(p.in_proj_weight, 1 / std::sqrt(64.0));
  expect_uniform(p.conv_weight, 0.5);
  expect_uniform(p.x_proj_weight, 1 / std::sqrt(128.0));
  expect_uniform(p.dt_proj_weight, 0.5);
  expect_uniform(p.out_proj_weight, 1 / std::sqrt(128.0));
  EXPECT_TRUE(p.in_proj_bias.isZero(0) && p.conv_bias.isZero(0) && p.out_proj_bias.isZero(0));
}

/// With one token and one state, h = dt u B for each channel: shows every step size by itself.
template <class S>
void expect_exact_steps() {
  const MambaConfig config{8, 61, 1, 1, 1};
  Mamba<S> layer(config);
  layer.parameters().dt_proj_weight.setZero();
  for (Index e = 0; e < 61; ++e) layer.parameters().dt_proj_bias(e) = static_cast<S>(e - 30);
  typename Mamba<S>::Cache cache;
  auto state = layer.initial_state();
  auto workspace = layer.workspace(1);
  Random random(5);
  Matrix<S> x = random_matrix<S>(8, 1, random), y = x, dx = x;
  layer.forward(x, state, y, workspace, cache);
  auto d_state = zeros_like(state);
  d_state.ssm.setOnes();
  auto grad = zeros_like(layer.parameters());
  layer.backward(Matrix<S>::Zero(8, 1), cache, d_state, dx, grad, workspace);
  const double allowed = 64 * static_cast<double>(std::numeric_limits<S>::epsilon());
  for (Index e = 0; e < 61; ++e) {
    const double bias = static_cast<double>(e - 30);
    const double input = static_cast<double>(cache.activations.u(e, 0)) *
                         static_cast<double>(cache.activations.selected(1, 0));
    EXPECT_NEAR(static_cast<double>(state.ssm(e, 0)) / (input * std::log1p(std::exp(bias))), 1,
                allowed)
        << bias;
    EXPECT_NEAR(static_cast<double>(grad.dt_proj_bias(e)) * (1 + std::exp(-bias)) / input, 1,
                allowed)
        << bias;
  }
}

TEST(MambaTest, TinyAndLargeStepSizesAreExact) {
  expect_exact_steps<float>();
  expect_exact_steps<double>();
}

TEST(MambaTest, KeepsStatesAtChunkBordersOnly) {
  const Layer layer = noisy_layer({4, 70, 3});
  const Index chunk = ScanBlock<double>::chunk, T = 2 * chunk + 1;
  Random random(6);
  const auto x = random_matrix<double>(4, T, random);
  Matrix<double> y(4, T);
  auto state = layer.initial_state(), expected = state;
  auto workspace = layer.workspace(T);
  Layer::Cache cache;
  layer.forward(x, state, y, workspace, cache);
  ASSERT_EQ(cache.borders.size(), 1u);
  ASSERT_EQ(cache.borders[0].cols(), 3 * 3);
  for (Index border = 0; border < 3; ++border) {
    EXPECT_LE(relative_error(cache.borders[0].middleCols(3 * border, 3), expected.ssm), 1e-13);
    if (border < 2)
      layer.forward(x.middleCols(border * chunk, chunk), expected,
                    y.middleCols(border * chunk, chunk));
  }
}

TEST(MambaTest, NamesTheFirstNumberThatIsNotFinite) {
  const Layer layer = noisy_layer({4, 6, 3});
  Matrix<double> x = Matrix<double>::Ones(4, 5), y = x;
  auto state = layer.initial_state();
  auto workspace = layer.workspace(5);
  Layer::Cache cache;
  layer.forward(x, state, y, workspace, cache);
  EXPECT_EQ(layer.first_non_finite(cache), "");
  state.ssm(2, 1) = std::numeric_limits<double>::infinity();
  layer.forward(x, state, y, workspace, cache);
  EXPECT_EQ(layer.first_non_finite(cache), "channel 2, token 0 (scan output)");
  x(0, 3) = std::numeric_limits<double>::quiet_NaN();
  state = layer.initial_state();
  layer.forward(x, state, y, workspace, cache);
  EXPECT_EQ(layer.first_non_finite(cache), "channel 0, token 3 (in_proj)");
}

TEST(MambaTest, RefusesInvalidConfigurationsInWords) {
  const auto expect_message = [](auto&& change, const std::string& message) {
    MambaConfig config;
    config.width = 8;
    change(config);
    try {
      Layer layer(config);
      ADD_FAILURE() << "nothing was thrown; expected: " << message;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(error.what(), "MambaConfig: " + message);
    }
  };
  expect_message([](auto& c) { c.width = 0; }, "width is 0, expected a positive number");
  expect_message([](auto& c) { c.inner_width = -1; },
                 "inner_width is -1, expected a positive number, or 0 for 2 width");
  expect_message([](auto& c) { c.state_size = 0; }, "state_size is 0, expected a positive number");
  expect_message([](auto& c) { c.conv_kernel = 0; },
                 "conv_kernel is 0, expected a positive number");
  expect_message([](auto& c) { c.dt_rank = -2; },
                 "dt_rank is -2, expected a positive number, or 0 for width / 16");
  expect_message([](auto& c) { c.dt_min = 0; }, "dt_min is 0, expected a positive number");
  expect_message([](auto& c) { c.dt_max = 1e-4; },
                 "dt_max is 0.0001, expected a finite number, at least dt_min, 0.001");
  expect_message([](auto& c) { c.dt_init_floor = -1; },
                 "dt_init_floor is -1, expected a finite number, at least 0");
}

}  // namespace
}  // namespace ttt::test
