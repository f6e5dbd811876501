// Inner losses of a layer against a computation that shares nothing with them: weights from W_0 by
// the sum over all tokens, losses from the definition with gradients by differences.
#include "ttt/layers/ttt_inner_losses.hpp"

#include <gtest/gtest.h>

#include "support/gradient_check.hpp"
#include "support/layer_runs.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

using S = double;

TTTConfig config(Index mini_batch = 4) {
  return {.width = 8,
          .heads = 2,
          .mini_batch = mini_batch,
          .share_qk = true,
          .gate = true,
          .base_learning_rate = 4};
}

template <class Layer>
Layer make(const TTTConfig& config) {
  Layer layer(config);
  Random random(5);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        tensor += 0.4 * random_matrix<S>(tensor.rows(), tensor.cols(), random);
      },
      layer.parameters());
  layer.parameters().token_idx = layer.parameters().token_idx.cwiseAbs() * 0.3;
  return layer;
}

/// The weights of one head in one long vector, and l(w; k, v) as the paper writes it.
struct NaiveLinear {
  static double loss(const Vector<S>& w, const Vector<S>& gamma, const Vector<S>& beta,
                     const Vector<S>& k, const Vector<S>& v) {
    const Index f = k.size();
    Vector<S> z = w.tail(f);
    for (Index i = 0; i < f; ++i)
      for (Index j = 0; j < f; ++j) z(i) += w(i + j * f) * k(j);
    return of_output(z, gamma, beta, k, v);
  }

  static double of_output(const Vector<S>& z, const Vector<S>& gamma, const Vector<S>& beta,
                          const Vector<S>& k, const Vector<S>& v) {
    const Index f = k.size();
    double mean = 0, variance = 0, loss = 0;
    for (Index i = 0; i < f; ++i) mean += z(i) / static_cast<double>(f);
    for (Index i = 0; i < f; ++i)
      variance += (z(i) - mean) * (z(i) - mean) / static_cast<double>(f);
    for (Index i = 0; i < f; ++i) {
      const double normed = gamma(i) * (z(i) - mean) / std::sqrt(variance + 1e-6) + beta(i);
      loss += 0.5 * std::pow(normed - (v(i) - k(i)), 2);
    }
    return loss;
  }
};

struct NaiveMLP {
  static double loss(const Vector<S>& w, const Vector<S>& gamma, const Vector<S>& beta,
                     const Vector<S>& k, const Vector<S>& v) {
    const Index f = k.size(), hidden = 4 * f;
    const Eigen::Map<const Matrix<S>> W1(w.data(), hidden, f);
    const Eigen::Map<const Vector<S>> b1(w.data() + hidden * f, hidden);
    const Eigen::Map<const Matrix<S>> W2(b1.data() + hidden, f, hidden);
    const Eigen::Map<const Vector<S>> b2(W2.data() + hidden * f, f);
    Vector<S> a = W1 * k + b1;
    for (double& x : a)
      x = 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    return NaiveLinear::of_output(W2 * a + b2, gamma, beta, k, v);
  }
};

template <class Model>
Vector<S> flat(const HeadWeights<const S, Model::weight_count>& weights) {
  std::vector<S> values;
  for (std::size_t l = 0; l < Model::weight_count; ++l) {
    values.insert(values.end(), weights.W[l].data(), weights.W[l].data() + weights.W[l].size());
    values.insert(values.end(), weights.b[l].data(), weights.b[l].data() + weights.b[l].size());
  }
  return Eigen::Map<const Vector<S>>(values.data(), std::ssize(values));
}

/// All tokens of a fresh stream of one head: k, v [f, T], rate [T].
template <class Naive, class Layer>
InnerLosses<S> naive_losses(const Layer& layer, const typename Layer::Cache& cache) {
  using Model = typename Layer::Inner;
  const Index H = layer.config().heads, f = layer.config().head_width(), T = cache.x.cols();
  const Index b = layer.config().mini_batch;
  const Matrix<S> empty = unwritten<S>(H, T);
  InnerLosses<S> losses{empty, empty, empty, empty};
  for (Index h = 0; h < H; ++h) {
    const Vector<S> gamma = layer.parameters().norm_weight.col(h);
    const Vector<S> beta = layer.parameters().norm_bias.col(h);
    const Vector<S> W_0 = flat<Model>(layer.parameters().W_0.head(h));
    Vector<S> W = W_0, W_t = W_0, sum = Vector<S>::Zero(W.size());
    for (Index t = 0; t < T; ++t) {
      const Vector<S> k = cache.activations.k.col(t).segment(h * f, f);
      const Vector<S> v = cache.activations.v.col(t).segment(h * f, f);
      const auto loss = [&](const Vector<S>& w) { return Naive::loss(w, gamma, beta, k, v); };
      losses.initial(h, t) = loss(W_0);
      losses.border(h, t) = loss(W);
      losses.before(h, t) = loss(W_t);
      for (Index i = 0; i < W.size(); ++i) {
        Vector<S> w = W;
        const auto loss_now = [&] { return loss(w); };
        sum(i) += cache.activations.rate(h, t) * detail::central_difference(w(i), 1e-3, loss_now);
      }
      const double tau = 1.0 / static_cast<double>(t % b + 1) + layer.parameters().token_idx(t % b);
      W_t = W - std::max(0.0, tau) * sum;
      losses.after(h, t) = loss(W_t);
      if (t % b + 1 == b) {
        W = W_t;
        sum.setZero();
      }
    }
  }
  return losses;
}

/// One forward of x after `state`, and its losses.
template <class Layer>
InnerLosses<S> run_losses(const Layer& layer, const Matrix<S>& x, typename Layer::State& state,
                          typename Layer::Cache& cache, const RunOptions& options = {}) {
  auto workspace = layer.workspace(x.cols());
  Matrix<S> y(x.rows(), x.cols());
  layer.forward(x, state, y, workspace, cache, options);
  return inner_losses(layer, cache);
}

Matrix<S> tokens(Index T, std::uint64_t seed = 3) {
  Random random(seed);
  return random_matrix<S>(8, T, random);
}

template <class Layer, class NaiveModel>
struct Case {
  using LayerType = Layer;
  using Naive = NaiveModel;
};
using Cases = ::testing::Types<Case<TTTLinear<S>, NaiveLinear>, Case<TTTMLP<S>, NaiveMLP>>;

template <class Case>
class InnerLossesTest : public ::testing::Test {};
TYPED_TEST_SUITE(InnerLossesTest, Cases);

TYPED_TEST(InnerLossesTest, EqualTheDefinition) {
  using Layer = typename TypeParam::LayerType;
  const auto layer = make<Layer>(config());
  for (const double scale : {1.0, 0.5}) {
    typename Layer::Cache cache;
    auto state = layer.initial_state();
    const auto losses = run_losses(layer, tokens(11), state, cache, {scale});
    // Gradients by differences carry 1e-10 of error.
    expect_close(losses, naive_losses<typename TypeParam::Naive>(layer, cache), 1e-8);
    EXPECT_GT((losses.after - losses.before).cwiseAbs().maxCoeff(), 1e-2) << "nothing is learned";
  }
}

TYPED_TEST(InnerLossesTest, PiecesAndBatchesEqualOneForward) {
  using Layer = typename TypeParam::LayerType;
  const auto layer = make<Layer>(config());
  const Matrix<S> x = tokens(11);
  typename Layer::Cache cache;
  auto state = layer.initial_state();
  const auto whole = run_losses(layer, x, state, cache);
  state = layer.initial_state();
  InnerLosses<S> pieces = whole;
  set_zero(pieces);
  Index begin = 0;
  for (const Index size : {1, 2, 0, 4, 4}) {  // starts inside, ends at and crosses borders
    const auto part = run_losses(layer, x.middleCols(begin, size), state, cache);
    for_each_tensor(
        [&](const TensorInfo&, auto& all, const auto& one) { all.middleCols(begin, size) = one; },
        pieces, part);
    begin += size;
  }
  expect_close(pieces, whole, tolerance::stream<S>);

  auto first = layer.initial_state(), second = first;
  const std::vector<Index> lengths{7, 11};
  const std::vector<typename Layer::State*> states{&first, &second};
  Matrix<S> both(8, 18), y(8, 18);
  both << tokens(7, 9), x;
  auto workspace = layer.workspace(18);
  layer.forward_batch(both, lengths, states, y, workspace, &cache);
  auto second_losses = inner_losses(layer, cache);
  for_each_tensor([](const TensorInfo&, auto& all) { all = all.rightCols(11).eval(); },
                  second_losses);
  expect_close(second_losses, whole, tolerance::stream<S>);
}

TYPED_TEST(InnerLossesTest, TheFourMeetWhereTheirWeightsAreTheSame) {
  using Layer = typename TypeParam::LayerType;
  auto layer = make<Layer>(config());
  typename Layer::Cache cache;
  auto state = layer.initial_state();
  auto losses = run_losses(layer, tokens(11), state, cache);
  for (Index t = 0; t < 11; ++t) {
    EXPECT_EQ(losses.border(0, t) == losses.initial(0, t), t < 4) << t;
    EXPECT_EQ(losses.before(0, t) == losses.border(0, t), t % 4 == 0) << t;
    EXPECT_NE(losses.before(0, t), losses.after(0, t));
  }

  // A place whose factor is clamped at 0 reads the border's weights.
  layer.parameters().token_idx(1) = -2;
  state = layer.initial_state();
  losses = run_losses(layer, tokens(11), state, cache);
  for (const Index t : {1, 5, 9}) EXPECT_EQ(losses.after.col(t), losses.border.col(t));
  for (const Index t : {2, 6, 10}) EXPECT_EQ(losses.before.col(t), losses.border.col(t));

  state = layer.initial_state();
  losses = run_losses(layer, tokens(11), state, cache, {.inner_rate_scale = 0});
  for (const auto* part : {&losses.border, &losses.before, &losses.after})
    EXPECT_EQ(*part, losses.initial);
}

TYPED_TEST(InnerLossesTest, TheSameTokenAgainIsKnownBetter) {
  using Layer = typename TypeParam::LayerType;
  auto cautious = config(1);  // a border after every token, and small steps: plain descent
  cautious.share_qk = false;
  cautious.base_learning_rate = 0.02;
  const auto layer = make<Layer>(cautious);
  typename Layer::Cache cache;
  auto state = layer.initial_state();
  const auto losses = run_losses(layer, tokens(1).replicate(1, 20), state, cache);
  for (Index t = 0; t < 20; ++t)
    EXPECT_TRUE((losses.after.col(t).array() < losses.before.col(t).array()).all()) << t;
  EXPECT_LE(relative_error(losses.after.leftCols(19), losses.before.rightCols(19)),
            tolerance::stream<S>);
}

TEST(InnerLossesRefusalTest, ACacheOfAnotherLayerIsRefused) {
  const auto layer = make<TTTLinear<S>>(config());
  TTTLinear<S>::Cache cache;
  auto state = layer.initial_state();
  run_losses(layer, tokens(5), state, cache);
  const auto other = make<TTTLinear<S>>(config(8));
  EXPECT_EQ(testing::message_of([&] { inner_losses(other, cache); }),
            "inner_losses: the cache's tau has shape 4 x 1, expected 8 x 1");
}

}  // namespace
}  // namespace ttt::test
