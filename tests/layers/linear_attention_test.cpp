// Linear attention against a loop over all pairs of tokens, differentiated operation by operation,
// and against the TTT layers that it is (Sun et al. 2024, theorem 1).
#include "ttt/layers/linear_attention.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "support/laws.hpp"
#include "support/tape.hpp"
#include "ttt/layers/ttt_layer.hpp"

namespace ttt::test {
namespace {

constexpr double allowed_values = 1e-12, allowed_gradients = 1e-11;

using Mat = Matrix<TapeNumber>;
using Vec = Vector<TapeNumber>;

Vec features(EluPlusOne, const Vec& x) {
  return x.unaryExpr([](const TapeNumber& a) { return a > 0 ? a + 1 : exp(a); });
}
Vec features(NoFeatureMap, const Vec& x) { return x; }

/// By their names in files; "x", "y" and the state's beside them.
using Tensors = std::map<std::string, Mat>;

/// Writes "y" and the state after: every token sums over all tokens up to its own, and over the
/// memory that the stream began with.
template <class Features>
void textbook(const LinearAttentionConfig& config, Tensors& tensors) {
  const Index f = config.head_width();
  const Mat x = tensors.at("x");
  const auto project = [&](const char* name, const Mat& in) {
    return Mat(tensors.at(name).transpose() * in);
  };
  const Mat q = project("q_proj.weight", x), k = project("k_proj.weight", x),
            v = project("v_proj.weight", x);
  Mat z(config.width, x.cols());
  for (Index h = 0; h < config.heads; ++h) {
    const auto of_head = [&](const Mat& tokens, Index t) {
      return Vec(tokens.col(t).segment(h * f, f));
    };
    const Mat M = tensors.at("memory").middleCols(h * f, f);
    for (Index t = 0; t < x.cols(); ++t) {
      const Vec query = features(Features(), of_head(q, t));
      Vec answer = M * query;
      TapeNumber sum = 1e-6;
      if (config.normalized) sum += tensors.at("normalizer").col(h).dot(query);
      for (Index s = 0; s <= t; ++s) {
        const TapeNumber score = features(Features(), of_head(k, s)).dot(query);
        answer += of_head(v, s) * score;
        sum += score;
      }
      z.col(t).segment(h * f, f) = config.normalized ? Vec(answer / sum) : answer;
    }
    for (Index t = 0; t < x.cols(); ++t) {
      const Vec key = features(Features(), of_head(k, t));
      tensors.at("memory").middleCols(h * f, f) += of_head(v, t) * key.transpose();
      if (config.normalized) tensors.at("normalizer").col(h) += key;
    }
  }
  tensors["y"] = project("o_proj.weight", z);
}

Matrix<double> values(const Mat& numbers) {
  return numbers.unaryExpr([](const TapeNumber& number) { return number.value; });
}

/// <probe, numbers>
TapeNumber weighted(const Matrix<double>& probe, const Mat& numbers) {
  TapeNumber sum = 0;
  for (Index j = 0; j < numbers.cols(); ++j)
    for (Index i = 0; i < numbers.rows(); ++i) sum += probe(i, j) * numbers(i, j);
  return sum;
}

/// Outputs, the state after, and every gradient of <dy, y> + <probe, state after>.
template <class Features>
void expect_textbook(const LinearAttentionConfig& config, Index lead, Index tokens) {
  using Layer = LinearAttention<double, Features>;
  Random random(3);
  Layer layer(config);
  for_each_tensor([&](const TensorInfo&, auto& tensor) { random.fill_normal(tensor, 0.5); },
                  layer.parameters());
  auto stream = random_stream(layer, lead, tokens, 4);
  stream.start = stream.start_of(layer);
  const Outcome<Layer> outcome = run(layer, stream);

  Tape tape;
  Tensors variables{{"x", tape.variables(stream.x)}};
  const auto track = [&](const TensorInfo& info, const auto& tensor) {
    variables[info.name] = tape.variables(tensor);
  };
  for_each_tensor(track, layer.parameters());
  for_each_tensor(track, *stream.start);
  Tensors results = variables;
  textbook<Features>(config, results);

  EXPECT_LE(relative_error(outcome.outputs.y, values(results.at("y"))), allowed_values);
  TapeNumber loss = weighted(stream.dy, results.at("y"));
  const auto probe = random_like(outcome.outputs.state, stream.probe_seed);
  for_each_tensor(
      [&](const TensorInfo& info, const auto& after, const auto& weights) {
        EXPECT_LE(relative_error(after, values(results.at(info.name))), allowed_values)
            << info.name;
        loss += weighted(weights, results.at(info.name));
      },
      outcome.outputs.state, probe);
  tape.differentiate(loss);
  const auto expect_gradient = [&](const std::string& name, const auto& gradient) {
    EXPECT_GT(gradient.cwiseAbs().maxCoeff(), 0) << name;
    EXPECT_LE(relative_error(gradient, tape.gradient(variables.at(name))), allowed_gradients)
        << name;
  };
  expect_gradient("x", outcome.dx);
  for_each_tensor(
      [&](const TensorInfo& info, const auto& gradient) { expect_gradient(info.name, gradient); },
      outcome.grad);
  for_each_tensor(
      [&](const TensorInfo& info, const auto& gradient) {
        if (gradient.size() > 0) expect_gradient(info.name, gradient);
      },
      outcome.d_state);
}

constexpr Index three_chunks = 2 * LinearAttentionChunks::most_tokens + 9;

TEST(LinearAttentionTest, EqualsTheLoopOverPairsInValuesAndGradients) {
  expect_textbook<EluPlusOne>({6, 2}, 0, three_chunks);
  expect_textbook<EluPlusOne>({6, 2}, 5, three_chunks);
}

TEST(LinearAttentionTest, WithoutNormalizerEqualsTheLoopOverPairsInValuesAndGradients) {
  expect_textbook<EluPlusOne>({6, 2, false}, 5, 20);
  expect_textbook<NoFeatureMap>({6, 2, false}, 5, three_chunks);
}

// TTT layers: gradients of -v.(W k) at the start of the whole sequence, rate 1, W_0 = 0.

struct WholeSequenceRule : PublishedRule {
  static constexpr bool rate_over_width = false, token_factors = false;
  static constexpr ConstantRate rate{};
  static constexpr WholeSequence schedule{};
};
struct WholeSequenceElu : WholeSequenceRule {
  static constexpr EluPlusOne features{};
};

/// The outputs of the heads, before what a TTT layer does to them; the states after.
template <class Rule, class Features>
void expect_same_heads() {
  using Model = StackOf<OutputRule<NoNorm, DotProduct, false>, LinearMap<>>;
  using TTT = TTTLayer<double, Model, Rule>;
  using Layer = LinearAttention<double, Features>;
  const Index width = 8, heads = 2, tokens = 2 * largest_piece + 10;
  TTTConfig config{.width = width, .heads = heads};
  config.learned_initial_weights = false;
  Random random(5);
  TTT ttt(config, random);
  Layer layer({width, heads, false}, random);
  for (auto* weight : {&ttt.parameters().q_proj, &ttt.parameters().k_proj, &ttt.parameters().v_proj,
                       &ttt.parameters().o_proj})
    random.fill_normal(*weight, 0.5);
  layer.parameters() = {ttt.parameters().q_proj, ttt.parameters().k_proj, ttt.parameters().v_proj,
                        ttt.parameters().o_proj};
  const auto x = random_matrix<double>(width, tokens, random);
  Matrix<double> y(width, tokens);
  const auto heads_of = [&](const auto& of, auto& state) {
    auto workspace = of.workspace(tokens);
    typename std::remove_cvref_t<decltype(of)>::Cache cache;
    of.forward(x, state, y, workspace, cache);
    return cache.activations.z;
  };
  auto ttt_state = ttt.initial_state();
  auto state = layer.initial_state();
  const Matrix<double> expected = heads_of(ttt, ttt_state), z = heads_of(layer, state);
  EXPECT_LE(relative_error(z, expected), allowed_values);
}

TEST(LinearAttentionTest, WithoutNormalizerIsATTTLayer) {
  expect_same_heads<WholeSequenceRule, NoFeatureMap>();
  expect_same_heads<WholeSequenceElu, EluPlusOne>();
}

TEST(LinearAttentionTest, AnOutputIsAMeanOfTheValues) {
  Random random(6);
  LinearAttention<double> layer({8, 2}, random);
  layer.parameters().o_proj.setIdentity();
  layer.parameters().v_proj.setIdentity();
  Matrix<double> x = random_matrix<double>(8, 100, random), y = x;
  x.bottomRows(3).setConstant(0.75);  // of the second head
  auto state = layer.initial_state();
  layer.forward(x, state, y);
  EXPECT_LE((y.bottomRows(3).array() - 0.75).abs().maxCoeff(), 1e-6);
  EXPECT_LE(relative_error(y.col(0), x.col(0)), 1e-6);
  EXPECT_LT(y.topRows(5).maxCoeff(), x.topRows(5).maxCoeff());
}

TEST(LinearAttentionTest, StartsAsDocumented) {
  const auto p = LinearAttention<double>({32, 4}, Random(1)).parameters();
  std::map<std::string, std::vector<Index>> shapes;
  for_each_tensor([&](const TensorInfo& info, const auto&) { shapes[info.name] = info.shape; }, p);
  EXPECT_EQ(shapes, (std::map<std::string, std::vector<Index>>{{"q_proj.weight", {32, 32}},
                                                               {"k_proj.weight", {32, 32}},
                                                               {"v_proj.weight", {32, 32}},
                                                               {"o_proj.weight", {32, 32}}}));
  for (const auto* weight : {&p.q_proj, &p.k_proj, &p.v_proj, &p.o_proj})
    EXPECT_NEAR(std::sqrt(weight->squaredNorm() / 1024), 0.02, 0.002);
  const auto state = LinearAttention<double>({32, 4}).initial_state();
  EXPECT_TRUE(state.memory.isZero(0) && state.normalizer.isZero(0));
  EXPECT_EQ(state.memory.size() + state.normalizer.size(), 8 * 32 + 8 * 4);
  EXPECT_EQ(LinearAttention<double>({32, 4, false}).initial_state().normalizer.size(), 0);
}

TEST(LinearAttentionTest, RefusesSizesThatDoNotFit) {
  const auto refused = [](const LinearAttentionConfig& config, const char* part) {
    expect_refused([&] { LinearAttention<float> layer(config); }, {part});
  };
  refused({0, 1}, "width is 0, expected a positive number");
  refused({8, 0}, "heads is 0, expected a positive number");
  refused({8, 3}, "width 8 is not a multiple of heads 3");
}

/// A state with a normalizer is not one of a layer that divides by nothing.
TEST(LinearAttentionTest, RefusesStatesOfTheOtherKind) {
  const LinearAttention<float> layer({8, 2}), plain({8, 2, false});
  expect_refused([&] { layer.check(plain.initial_state()); }, {"normalizer"});
  expect_refused([&] { plain.check(layer.initial_state()); }, {"normalizer"});
}

TEST(LinearAttentionTest, NamesTheFirstTokenThatIsNotFinite) {
  const LinearAttention<double> layer({4, 2});
  Random random(7);
  auto x = random_matrix<double>(4, 6, random), y = x;
  auto workspace = layer.workspace(6);
  LinearAttentionCache<double> cache;
  const auto found = [&] {
    auto state = layer.initial_state();
    layer.forward(x, state, y, workspace, cache);
    return layer.first_non_finite(cache);
  };
  EXPECT_EQ(found(), "");
  x(1, 4) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(found(), "head 0, token 4 (query)");
  x.col(4).setZero();
  auto state = layer.initial_state();
  state.memory(0, 3) = std::numeric_limits<double>::infinity();
  layer.forward(x, state, y, workspace, cache);
  EXPECT_EQ(layer.first_non_finite(cache), "head 1, token 0 (output)");
}

}  // namespace
}  // namespace ttt::test
