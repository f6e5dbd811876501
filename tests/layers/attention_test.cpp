// Attention against the textbook: all scores of a head in one T x T matrix, in double. Then what
// attention alone promises: what is not seen, the memory of its state, marks, errors.
#include "ttt/layers/attention.hpp"

#include <gtest/gtest.h>

#include <complex>

#include "support/laws.hpp"

namespace ttt::test {
namespace {

using Layer = Attention<double>;
using Dense = Matrix<double>;

/// Everything of one forward and backward from the beginning of a stream.
struct Textbook {
  Dense y, dx;
  AttentionParameters<double> grad;
};

/// exp(i sign m theta_i) times the complex number (a_i, a_(i + f/2)), for every head and token m.
Dense turned(const Dense& x, Index f, double theta, double sign) {
  Dense result(x.rows(), x.cols());
  for (Index t = 0; t < x.cols(); ++t) {
    for (Index row = 0; row < x.rows(); ++row) {
      const Index head = row / f * f, i = row % f;
      if (i >= f / 2) continue;
      const double frequency =
          std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(f));
      const std::complex<double> pair(x(head + i, t), x(head + i + f / 2, t));
      const auto rotated = pair * std::polar(1.0, sign * static_cast<double>(t) * frequency);
      result(head + i, t) = rotated.real();
      result(head + i + f / 2, t) = rotated.imag();
    }
  }
  return result;
}

Textbook textbook(const Layer& layer, const Dense& x, const Dense& dy) {
  const AttentionConfig& c = layer.config();
  const AttentionParameters<double>& p = layer.parameters();
  const Index T = x.cols(), G = c.key_value_heads > 0 ? c.key_value_heads : c.heads;
  const Index f = c.head_width > 0 ? c.head_width : c.width / c.heads;
  const Dense q = turned(p.q_proj.transpose() * x, f, c.rope_theta, 1);
  const Dense k = turned(p.k_proj.transpose() * x, f, c.rope_theta, 1);
  const Dense v = p.v_proj.transpose() * x, d_out = p.o_proj * dy;
  Dense out(q.rows(), T), dq = Dense::Zero(q.rows(), T);
  Dense dk = Dense::Zero(k.rows(), T), dv = dk;
  for (Index h = 0; h < c.heads; ++h) {
    const Index g = h / (c.heads / G), one = h * f, shared = g * f;
    Dense P = k.middleRows(shared, f).transpose() * q.middleRows(one, f) / std::sqrt(double(f));
    for (Index t = 0; t < T; ++t) {
      double sum = 0;
      for (Index s = 0; s < T; ++s) {
        const bool seen = s <= t && (c.window == 0 || t - s < c.window);
        sum += P(s, t) = seen ? std::exp(P(s, t)) : 0.0;
      }
      P.col(t) /= sum;
    }
    out.middleRows(one, f) = v.middleRows(shared, f) * P;
    dv.middleRows(shared, f) += d_out.middleRows(one, f) * P.transpose();
    const Dense dP = v.middleRows(shared, f).transpose() * d_out.middleRows(one, f);
    Dense dS(T, T);
    for (Index t = 0; t < T; ++t)
      dS.col(t) = P.col(t).cwiseProduct((dP.col(t).array() - P.col(t).dot(dP.col(t))).matrix() /
                                        std::sqrt(double(f)));
    dq.middleRows(one, f) = k.middleRows(shared, f) * dS;
    dk.middleRows(shared, f) += q.middleRows(one, f) * dS.transpose();
  }
  dq = turned(dq, f, c.rope_theta, -1);
  dk = turned(dk, f, c.rope_theta, -1);
  return {p.o_proj.transpose() * out,
          p.q_proj * dq + p.k_proj * dk + p.v_proj * dv,
          {x * dq.transpose(), x * dk.transpose(), x * dv.transpose(), out * dy.transpose()}};
}

/// Every way in which 300 tokens meet the tiles of 128: aligned, cut by a window shorter than a
/// strip, than a tile, and longer, and starting anywhere.
std::vector<AttentionConfig> configs() {
  return {{.width = 8, .heads = 2},
          {.width = 6, .heads = 4, .key_value_heads = 2, .head_width = 4, .rope_theta = 100},
          {.width = 8, .heads = 4, .key_value_heads = 1},
          {.width = 4, .heads = 1, .window = 1},
          {.width = 8, .heads = 2, .window = 7},
          {.width = 8, .heads = 2, .key_value_heads = 1, .window = 100},
          {.width = 8, .heads = 2, .window = 128},
          {.width = 8, .heads = 2, .window = 150},
          {.width = 4, .heads = 1, .window = 1000}};
}

Layer layer_of(const AttentionConfig& config) {
  Layer layer(config);
  Random random(3);
  for_each_tensor([&](const TensorInfo&, auto& weight) { random.fill_normal(weight, 0.4); },
                  layer.parameters());
  return layer;
}

std::string described(const AttentionConfig& config) {
  return concat("heads ", config.heads, ", key_value_heads ", config.key_value_heads, ", window ",
                config.window);
}

constexpr double exact = 1e-12;

TEST(AttentionTest, EqualsTheTextbookInOnePieceAndInMany) {
  for (const AttentionConfig& config : configs()) {
    SCOPED_TRACE(described(config));
    const Layer layer = layer_of(config);
    Stream<Layer> stream = random_stream(layer, 0, 300, 4);
    const Textbook expected = textbook(layer, stream.x, stream.dy);
    for (const std::vector<Index>& pieces :
         std::vector<std::vector<Index>>{{300}, {1, 127, 128, 44}, {200, 0, 1, 1, 98}, {37, 263}}) {
      SCOPED_TRACE(concat("first piece ", pieces[0]));
      auto workspace = layer.workspace(1);
      std::vector<Layer::Cache> caches(pieces.size());
      auto state = layer.initial_state();
      Dense y = unwritten<double>(config.width, 300), dx = y;
      Index begin = 0;
      for (std::size_t i = 0; i < pieces.size(); begin += pieces[i++])
        layer.forward(stream.x.middleCols(begin, pieces[i]), state, y.middleCols(begin, pieces[i]),
                      workspace, caches[i]);
      auto grad = zeros_like(layer.parameters());
      set_zero(state);
      for (std::size_t i = pieces.size(); i-- > 0;) {
        begin -= pieces[i];
        layer.backward(stream.dy.middleCols(begin, pieces[i]), caches[i], state,
                       dx.middleCols(begin, pieces[i]), grad, workspace);
      }
      EXPECT_LE(relative_error(y, expected.y), exact);
      EXPECT_LE(relative_error(dx, expected.dx), exact);
      expect_close(grad, expected.grad, exact);
      EXPECT_EQ(state.length, 0);
    }
  }
}

TEST(AttentionTest, StepEqualsTheTextbook) {
  for (const AttentionConfig& config : configs()) {
    SCOPED_TRACE(described(config));
    const Layer layer = layer_of(config);
    const Stream<Layer> stream = random_stream(layer, 0, 300, 5);
    auto state = layer.initial_state();
    auto workspace = layer.workspace(1);
    Dense y = unwritten<double>(config.width, 300);
    for (Index t = 0; t < 300; ++t) layer.step(stream.x.col(t), state, y.col(t), workspace);
    EXPECT_LE(relative_error(y, textbook(layer, stream.x, stream.dy).y), exact);
  }
}

/// Scores of many thousands, far beyond what exp can take, in growing and in falling order.
/// Channels 1 and 3 are a pair that hardly turns; the largest key that a token sees outweighs the
/// next, which is smaller by 1, by exp(x_t / 2).
TEST(AttentionTest, LargeScoresDoNotOverflow) {
  Layer layer({.width = 4, .heads = 1, .rope_theta = 1e16});
  for_each_tensor([](const TensorInfo&, auto& weight) { weight.setIdentity(); },
                  layer.parameters());
  const Index T = 300;
  for (const bool rising : {true, false}) {
    Dense x = Dense::Zero(4, T), y = x;
    for (Index t = 0; t < T; ++t) x(1, t) = static_cast<double>(rising ? t + 1 : T - t);
    auto state = layer.initial_state();
    layer.forward(x, state, y);
    for (Index t = 20; t < T - 20; ++t)
      EXPECT_NEAR(y(1, t), rising ? x(1, t) : x(1, 0), 1e-4) << "token " << t;
  }
}

/// Noise and NaN in what a token does not see, ahead or behind its window, change no bit.
TEST(AttentionTest, TokensThatAreNotSeenLeaveNoTrace) {
  const Index T = 300;
  for (const AttentionConfig& config : configs()) {
    SCOPED_TRACE(described(config));
    const Layer layer = layer_of(config);
    const Stream<Layer> stream = random_stream(layer, 0, T, 6);
    const Dense y = infer(layer, stream).y;
    for (const Index place : {0, 1, 15, 16, 100, 127, 128, 129, 200, 299}) {
      Stream<Layer> other = stream;
      other.x.col(place).setConstant(std::numeric_limits<double>::quiet_NaN());
      const Dense changed = infer(layer, other).y;
      for (Index t = 0; t < T; ++t) {
        const bool seen = place <= t && (config.window == 0 || t - place < config.window);
        EXPECT_EQ(same_bits(changed.col(t), y.col(t)), !seen) << place << " seen from " << t;
      }
    }
  }
}

/// The same of gradients: a token that nothing in the loss depends on.
TEST(AttentionTest, GradientsOfEarlierTokensDoNotReadLaterOnes) {
  const Index T = 200, loss_ends = 77;
  const Layer layer = layer_of({.width = 8, .heads = 2, .window = 50});
  const auto gradient = [&](double future) {
    Stream<Layer> stream = random_stream(layer, 0, T, 7);
    stream.x.rightCols(T - loss_ends).array() *= future;
    stream.dy.rightCols(T - loss_ends).setZero();
    auto state = layer.initial_state();
    auto workspace = layer.workspace(T);
    Layer::Cache cache;
    Dense y(8, T), dx(8, T);
    layer.forward(stream.x, state, y, workspace, cache);
    auto grad = zeros_like(layer.parameters());
    set_zero(state);
    layer.backward(stream.dy, cache, state, dx, grad, workspace);
    return dx;
  };
  const Dense plain = gradient(1), other = gradient(-3);
  EXPECT_TRUE(same_bits(plain.leftCols(loss_ends), other.leftCols(loss_ends)));
  EXPECT_TRUE(plain.rightCols(T - loss_ends).isZero(0));
}

TEST(AttentionTest, CapacityIsAPowerOfTwoOrWhatWasReserved) {
  const Layer layer = layer_of({.width = 4, .heads = 1});
  const Stream<Layer> stream = random_stream(layer, 0, 9, 8);
  Dense y(4, 9);
  const auto capacity = [&](Index reserved, const std::vector<Index>& pieces) {
    auto state = layer.initial_state(reserved);
    EXPECT_EQ(state.keys.capacity(), reserved);
    Index begin = 0;
    for (std::size_t i = 0; i < pieces.size(); begin += pieces[i++])
      layer.forward(stream.x.middleCols(begin, pieces[i]), state, y.middleCols(begin, pieces[i]));
    EXPECT_EQ(state.length, begin);
    for (const auto* columns : {&state.keys, &state.values}) {
      EXPECT_FALSE(columns->matrix().leftCols(begin).isZero(0));
      EXPECT_TRUE(columns->matrix().rightCols(columns->capacity() - begin).isZero(0));
      EXPECT_EQ(columns->capacity(), state.keys.capacity());
    }
    return state.keys.capacity();
  };
  for (const std::vector<Index>& pieces :
       std::vector<std::vector<Index>>{{5}, {1, 1, 1, 1, 1}, {3, 2}, {4, 1}})
    EXPECT_EQ(capacity(0, pieces), 8);
  EXPECT_EQ(capacity(0, {9}), 16);
  EXPECT_EQ(capacity(7, {5}), 7);
  EXPECT_EQ(capacity(7, {6, 2}), 8);
  EXPECT_EQ(capacity(100, {9}), 100);
  auto state = layer.initial_state(3);
  reserve(state, 2);
  EXPECT_EQ(state.keys.capacity(), 3);
  reserve(state, 12);
  EXPECT_EQ(state.keys.capacity(), 12);
  EXPECT_EQ(state.values.capacity(), 12);
  expect_refused([&] { layer.initial_state(-1); }, {"capacity is -1"});
}

TEST(AttentionTest, AWindowsMemoryNeverGrows) {
  const Layer layer = layer_of({.width = 4, .heads = 1, .window = 6});
  auto state = layer.initial_state(50);
  reserve(state, 70);
  Dense y(4, 40);
  layer.forward(random_stream(layer, 0, 40, 9).x, state, y);
  EXPECT_EQ(state.length, 40);
  EXPECT_EQ(state.keys.capacity(), 6);
  EXPECT_EQ(state.values.capacity(), 6);
}

TEST(AttentionTest, PositionsHaveSixtyFourBits) {
  const Layer layer = layer_of({.width = 4, .heads = 1, .window = 6});
  const Stream<Layer> stream = random_stream(layer, 0, 9, 10);
  auto state = layer.initial_state();
  state.length = (std::int64_t{1} << 33) + 5;
  auto stepped = state;
  Dense y(4, 9);
  layer.forward(stream.x, state, y);
  Vector<double> y_t(4);
  for (Index t = 0; t < 9; ++t) {
    layer.step(stream.x.col(t), stepped, y_t);
    EXPECT_LE(relative_error(y_t, y.col(t)), exact);
  }
  EXPECT_EQ(state.length, (std::int64_t{1} << 33) + 14);
  expect_close(stepped, state, exact);
}

TEST(AttentionTest, CachesShareTheStatesMemoryAndKeepWhatTheySaw) {
  const Layer layer = layer_of({.width = 8, .heads = 2});
  const Stream<Layer> stream = random_stream(layer, 0, 30, 11);
  auto workspace = layer.workspace(30);
  Dense y(8, 10), dx(8, 10), other_y(8, 20);
  auto state = layer.initial_state(32);
  std::vector<Layer::Cache> caches(3);
  for (Index i = 0; i < 3; ++i)
    layer.forward(stream.x.middleCols(10 * i, 10), state, y, workspace,
                  caches[static_cast<std::size_t>(i)]);
  for (const auto& cache : caches)
    EXPECT_EQ(cache.sequences[0].keys->data(), state.keys.matrix().data()) << "a copy was made";

  const auto gradient = [&] {
    auto d_state = random_like(state, 12);
    auto grad = zeros_like(layer.parameters());
    layer.backward(stream.dy.leftCols(10), caches[2], d_state, dx, grad, workspace);
    return Outcome<Layer>{{y, layer.initial_state()}, dx, d_state, grad};
  };
  const Outcome<Layer> before = gradient();
  auto other = state;
  rewind(other, AttentionMark<double>{3, std::nullopt});  // of a copy: nobody's memory but its own
  rewind(state, AttentionMark<double>{5, std::nullopt});
  layer.forward(stream.dy.leftCols(20), state, other_y, workspace);
  state.length = 30;
  state.keys.mutable_matrix().setZero();
  expect_same_bits(gradient(), before);
}

TEST(AttentionTest, AMarkIsALengthOrARing) {
  const Layer full = layer_of({.width = 4, .heads = 1});
  const Layer windowed = layer_of({.width = 4, .heads = 1, .window = 3});
  const auto read = [](const Layer& layer, Index tokens) {
    return *random_stream(layer, tokens, 0, 13).start;
  };
  auto state = read(full, 5), ring = read(windowed, 5);
  EXPECT_FALSE(mark(state).ring.has_value());
  EXPECT_EQ(mark(state).length, 5);
  expect_same_bits(*mark(ring).ring, ring);
  rewind(state, mark(read(full, 2)));
  EXPECT_EQ(state.length, 2);
  EXPECT_TRUE(state.keys.matrix().rightCols(state.keys.capacity() - 2).isZero(0));
  expect_refused([&] { rewind(state, mark(read(full, 3))); }, {"token 3", "read 2"});
  expect_refused([&] { rewind(state, mark(ring)); }, {"not of this stream"});
  expect_refused([&] { rewind(ring, mark(state)); }, {"not of this stream"});
}

TEST(AttentionTest, RefusesStatesThatAreNotItsOwn) {
  const Layer full = layer_of({.width = 4, .heads = 1});
  const Layer windowed = layer_of({.width = 4, .heads = 1, .window = 3});
  auto state = full.initial_state(4);
  state.length = 5;
  expect_refused([&] { full.check(state); }, {"4 columns", "length 5"});
  state.length = -1;
  expect_refused([&] { full.check(state); }, {"length is -1"});
  expect_refused([&] { full.check(windowed.initial_state()); }, {"window is 3", "expected 0"});
  state = full.initial_state(4);
  state.values = GrowingColumns<double>(4, 3);
  expect_refused([&] { full.check(state); }, {"values", "4 x 3", "4 x 4"});
  state = windowed.initial_state();
  state.keys = GrowingColumns<double>(4, 4);
  expect_refused([&] { windowed.check(state); }, {"keys", "4 x 4", "4 x 3"});

  auto after = full.initial_state();
  auto workspace = full.workspace(3);
  auto grad = zeros_like(full.parameters());
  Dense x = Dense::Ones(4, 3), y(4, 3);
  Layer::Cache cache;
  full.forward(x, after, y, workspace, cache);
  auto before = full.initial_state();
  expect_refused([&] { full.backward(x, cache, before, y, grad, workspace); },
                 {"adjoint state's length is 0", "expected 3"});
}

TEST(AttentionTest, FirstNonFiniteNamesThePlace) {
  for (const Index window : {0, 5}) {
    const Layer layer = layer_of({.width = 8, .heads = 4, .key_value_heads = 2, .window = window});
    Stream<Layer> stream = random_stream(layer, 3, 7, 14);
    auto workspace = layer.workspace(7);
    const auto where = [&](const Layer& which) {
      Layer::Cache cache;
      auto state = *stream.start;
      Dense y(8, 7);
      which.forward(stream.x, state, y, workspace, cache);
      return which.first_non_finite(cache);
    };
    EXPECT_EQ(where(layer), "");
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Layer broken = layer;
    broken.parameters().q_proj.col(5).setConstant(nan);  // head 2 of 2 channels
    EXPECT_EQ(where(broken), "head 2, token 0 (query)");
    broken = layer;
    broken.parameters().v_proj.col(2).setConstant(nan);
    EXPECT_EQ(where(broken), "head 1, token 0 (value)");
    stream.x.col(4).setConstant(nan);
    EXPECT_EQ(where(layer), "head 0, token 4 (query)");
  }
}

TEST(AttentionTest, InvalidConfigurationsAreRefusedInWords) {
  const auto refused = [](const AttentionConfig& config, const std::vector<std::string>& parts) {
    expect_refused([&] { Layer layer(config); }, parts);
  };
  refused({.width = 0}, {"width is 0"});
  refused({.width = 8, .heads = 0}, {"heads is 0"});
  refused({.width = 8, .heads = 4, .key_value_heads = -2}, {"key_value_heads is -2"});
  refused({.width = 8, .heads = 4, .key_value_heads = 3}, {"heads 4", "key_value_heads 3"});
  refused({.width = 8, .heads = 4, .head_width = -4}, {"head_width is -4"});
  refused({.width = 8, .heads = 3}, {"width 8", "heads 3"});
  refused({.width = 9, .heads = 3}, {"3 wide", "even"});
  refused({.width = 8, .heads = 2, .head_width = 3}, {"3 wide", "even"});
  refused({.width = 8, .heads = 2, .window = -1}, {"window is -1"});
  refused({.width = 8, .heads = 2, .rope_theta = 0}, {"rope_theta is 0"});
  refused({.width = 8, .heads = 2, .rope_theta = std::numeric_limits<double>::infinity()},
          {"rope_theta is inf"});
}

TEST(AttentionTest, InitializationIsNormalWithTheNamesOfLlama) {
  const AttentionConfig config{.width = 96, .heads = 8, .key_value_heads = 2, .head_width = 16};
  Random random(1);
  const Layer layer(config, random);
  std::vector<std::string> names;
  std::vector<std::vector<Index>> shapes;
  for_each_tensor(
      [&](const TensorInfo& info, const auto& weight) {
        names.push_back(info.name);
        shapes.push_back(info.shape);
        EXPECT_NEAR(weight.norm() / std::sqrt(double(weight.size())), 0.02, 0.001) << info.name;
        EXPECT_NEAR(weight.mean(), 0, 0.002) << info.name;
      },
      layer.parameters());
  EXPECT_EQ(names, (std::vector<std::string>{"q_proj.weight", "k_proj.weight", "v_proj.weight",
                                             "o_proj.weight"}));
  EXPECT_EQ(shapes, (std::vector<std::vector<Index>>{{128, 96}, {32, 96}, {32, 96}, {96, 128}}));
  EXPECT_NE(Layer(config, random).parameters().q_proj, layer.parameters().q_proj);
  EXPECT_EQ(Layer(config, Random(1)).parameters().q_proj, layer.parameters().q_proj);
}

}  // namespace
}  // namespace ttt::test
