// Against torch.nn.LSTM (golden/make_lstm_golden.py) and against the equations written out, one
// number after the other.
#include "ttt/layers/lstm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "support/layer_cases.hpp"
#include "ttt/io/safetensors.hpp"

namespace ttt::test {
namespace {

using Tensors = std::map<std::string, Matrix<double>>;

Tensors golden() {
  const SafetensorsFile file(TTT_GOLDEN_DIR "/lstm/lstm.safetensors");
  Tensors tensors;
  for (const auto& [name, entry] : file.entries()) tensors[name] = file.matrix<double>(name);
  return tensors;
}

/// What this library makes of the parameters, inputs and probes: the same names.
Tensors recompute(const Tensors& given) {
  const Index D = given.at("h_0").rows(), B = given.at("h_0").cols();
  LSTM<double> layer({D});
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor) {
        const Matrix<double>& value = given.at(info.name);
        require_shape(info.name.c_str(), value, tensor.rows(), tensor.cols());
        tensor = value;
      },
      layer.parameters());
  const Matrix<double>& x = given.at("input");
  const std::vector<Index> lengths(static_cast<std::size_t>(B), x.cols() / B);
  std::vector<LSTMState<double>> states, d_states;
  std::vector<LSTMState<double>*> pointers, d_pointers;
  for (Index s = 0; s < B; ++s) {
    states.push_back({given.at("h_0").col(s), given.at("c_0").col(s)});
    d_states.push_back({given.at("probe.h_n").col(s), given.at("probe.c_n").col(s)});
  }
  for (auto& state : states) pointers.push_back(&state);
  for (auto& d_state : d_states) d_pointers.push_back(&d_state);

  Matrix<double> y(D, x.cols()), dx(D, x.cols());
  auto workspace = layer.workspace(1);
  LSTMCache<double> cache;
  auto grad = zeros_like(layer.parameters());
  layer.forward_batch(x, lengths, pointers, y, workspace, &cache);
  layer.backward_batch(given.at("probe"), cache, d_pointers, dx, grad, workspace);

  Tensors result{{"output", y}, {"grad.input", dx}};
  const auto side_by_side = [&](const auto& list, auto member) {
    Matrix<double> columns(D, B);
    for (Index s = 0; s < B; ++s) columns.col(s) = list[static_cast<std::size_t>(s)].*member;
    return columns;
  };
  result["h_n"] = side_by_side(states, &LSTMState<double>::h);
  result["c_n"] = side_by_side(states, &LSTMState<double>::c);
  result["grad.h_0"] = side_by_side(d_states, &LSTMState<double>::h);
  result["grad.c_0"] = side_by_side(d_states, &LSTMState<double>::c);
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor) { result["grad." + info.name] = tensor; },
      grad);
  return result;
}

/// The largest error of a tensor that `given` holds, too.
double worst_error(const Tensors& given) {
  double worst = 0;
  for (const auto& [name, tensor] : recompute(given))
    worst = std::max(worst, relative_error(tensor, given.at(name)));
  return worst;
}

TEST(LSTMTest, EqualsTorchInOutputsStatesAndEveryGradient) {
  const Tensors given = golden();
  const Tensors result = recompute(given);
  EXPECT_EQ(result.size(), 10u);
  for (const auto& [name, tensor] : result)
    EXPECT_LE(relative_error(tensor, given.at(name)), 1e-12) << name;
}

TEST(LSTMTest, ComparisonWithTorchNoticesAChangeOfAnyTensor) {
  const Tensors given = golden();
  ASSERT_EQ(given.size(), 20u);
  for (const auto& [name, tensor] : given) {
    Tensors changed = given;
    changed[name](tensor.size() / 2) += 1e-4;
    EXPECT_GT(worst_error(changed), 1e-8) << name;
  }
}

double logistic(double z) { return 1 / (1 + std::exp(-z)); }

/// One stream by the equations, number by number.
Matrix<double> by_hand(const LSTMParameters<double>& p, const Matrix<double>& x, Vector<double>& h,
                       Vector<double>& c) {
  const Index D = x.rows();
  Matrix<double> y(D, x.cols());
  for (Index t = 0; t < x.cols(); ++t) {
    std::vector<double> a;
    for (Index r = 0; r < 4 * D; ++r) {
      a.push_back(p.bias_ih(r) + p.bias_hh(r));
      for (Index k = 0; k < D; ++k)
        a.back() += p.weight_ih(k, r) * x(k, t) + p.weight_hh(k, r) * h(k);
    }
    for (Index d = 0; d < D; ++d) {
      const auto gate = [&](Index n) { return a[static_cast<std::size_t>(n * D + d)]; };
      c(d) = logistic(gate(1)) * c(d) + logistic(gate(0)) * std::tanh(gate(2));
      y(d, t) = logistic(gate(3)) * std::tanh(c(d));
    }
    h = y.col(t);
  }
  return y;
}

/// Eleven sequences make two groups; their lengths are in no order and reach both ways of
/// multiplying by W_hh.
TEST(LSTMTest, ABatchOfManyLengthsFollowsTheEquations) {
  const Index D = 5;
  Random random(2);
  LSTM<double> layer({D}, random);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 0.6); },
                  layer.parameters());
  const std::vector<Index> lengths{3, 0, 12, 9, 1, 12, 4, 10, 15, 2, 11};
  const Index tokens = std::accumulate(lengths.begin(), lengths.end(), Index{0});
  const auto x = random_matrix<double>(D, tokens, random);
  auto y = unwritten<double>(D, tokens);
  std::vector<LSTMState<double>> states;
  for (std::size_t s = 0; s < lengths.size(); ++s)
    states.push_back(random_like(layer.initial_state(), s));
  std::vector<LSTMState<double>> expected = states;
  auto workspace = layer.workspace(1);
  forward_batch(layer, x, lengths, std::span<LSTMState<double>>(states), y, workspace);
  Index begin = 0;
  for (std::size_t s = 0; s < lengths.size(); begin += lengths[s++]) {
    SCOPED_TRACE(concat("sequence ", s));
    const Matrix<double> y_s =
        by_hand(layer.parameters(), x.middleCols(begin, lengths[s]), expected[s].h, expected[s].c);
    EXPECT_LE(relative_error(y.middleCols(begin, lengths[s]), y_s), tolerance::rounding<double>);
    expect_close(states[s], expected[s], tolerance::rounding<double>);
  }
}

/// Gradients of such a batch are those of its sequences one by one.
TEST(LSTMTest, GradientsOfTwoGroupsAddUp) {
  LSTM<double> layer({5});
  std::vector<Stream<LSTM<double>>> streams;
  for (const Index tokens : {3, 0, 12, 9, 1, 12, 4, 10, 15, 2, 11})
    streams.push_back(random_stream(layer, tokens % 3, tokens, 20 + streams.size()));
  expect_close(run_batch(layer, streams), run_separately(layer, streams),
               tolerance::stream<double>);
}

TEST(LSTMTest, GroupsGiveTheSameBitsForAnyNumberOfThreads) {
  const LSTM<float> layer({12});
  std::vector<Stream<LSTM<float>>> streams;
  for (Index tokens = 1; tokens <= 20; ++tokens)
    streams.push_back(random_stream(layer, 0, tokens, 40 + streams.size()));
  const auto with_threads = [&](int threads) {
    const ThreadCount guard(threads);
    return run_batch(layer, streams);
  };
  const auto serial = with_threads(1);
  for (const int threads : {2, 3}) expect_same_bits(with_threads(threads), serial);
}

TEST(LSTMTest, LockstepOrderPutsTheTokensOfEachTimeTogetherLongestSequenceFirst) {
  const std::vector<Index> lengths{1, 0, 3, 2, 3};
  const LockstepOrder order(lengths);
  EXPECT_EQ(order.sequence, (std::vector<Index>{2, 4, 3, 0, 1}));
  EXPECT_EQ(order.steps(), 3);
  std::vector<Index> columns;
  order.for_each_token([&](Index packed, Index column) {
    EXPECT_EQ(packed, std::ssize(columns));
    columns.push_back(column);
  });
  EXPECT_EQ(columns, (std::vector<Index>{1, 6, 4, 0, 2, 7, 5, 3, 8}));
  EXPECT_EQ(LockstepOrder(std::span<const Index>()).steps(), 0);
}

TEST(LSTMTest, StartsAsDocumented) {
  const Index D = 16;
  const auto p = LSTM<double>({D}, Random(1)).parameters();
  for (const auto* weight : {&p.weight_ih, &p.weight_hh}) {
    EXPECT_EQ(weight->rows(), D);
    EXPECT_EQ(weight->cols(), 4 * D);
    EXPECT_LE(weight->cwiseAbs().maxCoeff(), 0.25);
    EXPECT_GT(weight->maxCoeff(), 0.24);
    EXPECT_LT(weight->minCoeff(), -0.24);
    EXPECT_NEAR(weight->squaredNorm() / static_cast<double>(weight->size()), 0.0625 / 3, 0.001);
  }
  EXPECT_FALSE(p.weight_ih == p.weight_hh);
  Vector<double> forget = Vector<double>::Zero(4 * D);
  forget.segment(D, D).setOnes();
  EXPECT_EQ(p.bias_ih, forget);
  EXPECT_EQ(p.bias_hh, Vector<double>::Zero(4 * D));
  EXPECT_EQ(LSTM<double>({D}).parameters().weight_ih, LSTM<double>({D}).parameters().weight_ih);
  const auto state = LSTM<double>({D}).initial_state();
  EXPECT_TRUE(state.h.isZero(0) && state.c.isZero(0));
}

TEST(LSTMTest, TensorsHaveTheNamesAndShapesOfTorch) {
  std::map<std::string, std::vector<Index>> shapes;
  for_each_tensor([&](const TensorInfo& info, const auto&) { shapes[info.name] = info.shape; },
                  LSTM<float>({3}).parameters());
  EXPECT_EQ(shapes, (std::map<std::string, std::vector<Index>>{{"weight_ih_l0", {12, 3}},
                                                               {"weight_hh_l0", {12, 3}},
                                                               {"bias_ih_l0", {12}},
                                                               {"bias_hh_l0", {12}}}));
}

TEST(LSTMTest, RefusesAWidthThatIsNotPositive) {
  for (const Index width : {0, -2}) {
    try {
      LSTM<float>({width});
      ADD_FAILURE() << "width " << width << " was taken";
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(std::string(error.what()),
                concat("LSTMConfig: width is ", width, ", expected a positive number"));
    }
  }
}

TEST(LSTMTest, SaturatedGatesStayFiniteForwardAndBackward) {
  const LSTM<float> layer({4});
  Matrix<float> x = Matrix<float>::Constant(4, 3, 1e30f), y = x, dx = x;
  x.col(1) *= -1;
  auto state = layer.initial_state(), d_state = state;
  auto workspace = layer.workspace(3);
  LSTMCache<float> cache;
  auto grad = zeros_like(layer.parameters());
  layer.forward(x, state, y, workspace, cache);
  layer.backward(Matrix<float>::Ones(4, 3), cache, d_state, dx, grad, workspace);
  EXPECT_TRUE(y.allFinite() && dx.allFinite());
  EXPECT_EQ(first_non_finite(grad), std::nullopt);
}

/// Tokens are counted as the caller gave them, not in the order of the lockstep.
TEST(LSTMTest, NamesTheFirstTokenThatIsNotFinite) {
  const LSTM<double> layer({2});
  const std::vector<Index> lengths{2, 4};
  std::vector<LSTMState<double>> states(2, layer.initial_state());
  auto workspace = layer.workspace(6);
  LSTMCache<double> cache;
  Random random(3);
  const auto found = [&](const Matrix<double>& x) {
    Matrix<double> y(2, 6);
    std::vector<LSTMState<double>> used = states;
    std::vector<LSTMState<double>*> pointers{&used[0], &used[1]};
    layer.forward_batch(x, lengths, pointers, y, workspace, &cache);
    return layer.first_non_finite(cache);
  };
  const auto x = random_matrix<double>(2, 6, random);
  EXPECT_EQ(found(x), "");
  auto poisoned = x;
  poisoned(1, 4) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(found(poisoned), "token 4 (input)");
  poisoned(0, 1) = std::numeric_limits<double>::infinity();
  EXPECT_EQ(found(poisoned), "token 1 (input)");
  states[1].c(0) = std::numeric_limits<double>::infinity();
  EXPECT_EQ(found(x), "token 2 (cell)");
}

}  // namespace
}  // namespace ttt::test
