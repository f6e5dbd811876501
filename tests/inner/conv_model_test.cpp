// Convolutional inner models: f against sums written out, its gradient and the chunk's adjoint
// against differences, for one and two dimensions, one and two layers.
#include "ttt/inner/conv_model.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

#include "inner/chunk_laws.hpp"
#include "support/tolerances.hpp"

namespace ttt::test {
namespace {

using Plain = Matrix<double>;
template <class M>
using Weights = ModelWeights<Plain, M::weight_count>;
template <class M>
using Saved = typename M::template Saved<Plain>;

constexpr Index f = 24;  // 12 frames of 2 channels, or images of 3 x 4 pixels
using Signal = Conv1D<2, 5>;
using Picture = Conv2D<2, 3, 3, 4>;

template <class M>
Weights<M> random_weights(std::uint64_t seed) {
  Weights<M> w;
  Random random(seed);
  for (std::size_t l = 0; l < M::weight_count; ++l) {
    const WeightShape shape = M::weight_shape(l, f);
    w.W[l].resize(shape.rows, shape.cols);
    w.b[l].resize(shape.rows, 1);
    random.fill_normal(w.W[l], 0.5);
    random.fill_normal(w.b[l], 0.5);
  }
  return w;
}

Plain random_tokens(Index count, std::uint64_t seed) {
  Plain tokens(f, count);
  Random(seed).fill_normal(tokens, 1.0);
  return tokens;
}

/// One convolution of one token by its definition, for any odd kernel.
Vector<double> convolution(const Plain& W, const Plain& b, const Vector<double>& x, Index rows,
                           Index cols, Index kernel_rows, Index kernel_cols) {
  const Index in = x.size() / (rows * cols), out = W.rows();
  Vector<double> y(rows * cols * out);
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) {
      for (Index o = 0; o < out; ++o) {
        double sum = b(o, 0);
        for (Index p = 0; p < kernel_rows; ++p) {
          for (Index q = 0; q < kernel_cols; ++q) {
            const Index row = i + p - kernel_rows / 2, col = j + q - kernel_cols / 2;
            if (row < 0 || row >= rows || col < 0 || col >= cols) continue;
            for (Index c = 0; c < in; ++c)
              sum += W(o, (p * kernel_cols + q) * in + c) * x((row * cols + col) * in + c);
          }
        }
        y((i * cols + j) * out + o) = sum;
      }
    }
  }
  return y;
}

TEST(ConvModelTest, OneLayerIsTheSumWrittenOut) {
  using M1 = ConvModel<Signal>;
  using M2 = ConvModel<Picture>;
  const Plain x = random_tokens(2, 1);
  const auto w1 = random_weights<M1>(2);
  const auto w2 = random_weights<M2>(3);
  Saved<M1> saved1;
  Saved<M2> saved2;
  const Plain y1 = M1::predict(w1, x, saved1), y2 = M2::predict(w2, x, saved2);
  for (Index t = 0; t < 2; ++t) {
    EXPECT_LE(relative_error(y1.col(t), convolution(w1.W[0], w1.b[0], x.col(t), 1, 12, 1, 5)),
              1e-14);
    EXPECT_LE(relative_error(y2.col(t), convolution(w2.W[0], w2.b[0], x.col(t), 3, 4, 3, 3)),
              1e-14);
  }
}

TEST(ConvModelTest, TwoLayersAreTheSumsWrittenOut) {
  using M = ConvModel<Picture, 3, Tanh>;
  const Plain x = random_tokens(1, 1);
  const auto w = random_weights<M>(2);
  Saved<M> saved;
  const Vector<double> hidden = convolution(w.W[0], w.b[0], x.col(0), 3, 4, 3, 3).array().tanh();
  EXPECT_LE(
      relative_error(M::predict(w, x, saved), convolution(w.W[1], w.b[1], hidden, 3, 4, 3, 3)),
      1e-14);
}

TEST(ConvModelTest, AnImageOfOneRowIsASignal) {
  using M1 = ConvModel<Conv1D<2, 3>, 3>;
  using M2 = ConvModel<Conv2D<2, 3, 1, 12>, 3>;
  auto w2 = random_weights<M2>(2);
  Weights<M1> w1 = {{}, w2.b};
  for (std::size_t l = 0; l < 2; ++l)
    w1.W[l] = w2.W[l].middleCols(w2.W[l].cols() / 3, w2.W[l].cols() / 3);
  Saved<M1> saved1;
  Saved<M2> saved2;
  const Plain x = random_tokens(3, 1);
  EXPECT_LE(relative_error(M1::predict(w1, x, saved1), M2::predict(w2, x, saved2)), 1e-14);
}

TEST(ConvModelTest, HeadWidthThatDoesNotFitIsAnError) {
  EXPECT_THROW(ConvModel<Signal>::weight_shape(0, 25), std::invalid_argument);
  EXPECT_THROW(ConvModel<Picture>::weight_shape(0, 26), std::invalid_argument);
  const WeightShape shape = ConvModel<Picture, 5>::weight_shape(0, f);
  EXPECT_EQ(shape.rows, 5);
  EXPECT_EQ(shape.cols, 9 * 2);
}

template <class M>
class ConvModelsTest : public ::testing::Test {};
using Models = ::testing::Types<ConvModel<Signal>, ConvModel<Signal, 3>, ConvModel<Picture>,
                                ConvModel<Picture, 3>, ConvModel<Signal, 3, SiLU, PlainOutput>,
                                ConvModel<Picture, 0, Identity, PlainOutput>>;
TYPED_TEST_SUITE(ConvModelsTest, Models);

TYPED_TEST(ConvModelsTest, GradientEqualsDifferencesAndIsASumOverTokens) {
  using M = TypeParam;
  auto w = random_weights<M>(2);
  Plain x = random_tokens(3, 1);
  const Plain dy = random_tokens(3, 4);
  Saved<M> saved;
  Weights<M> dw;
  Plain dx;
  M::predict(w, x, saved);
  M::gradient(w, std::as_const(saved), dy, dw, dx);
  const auto expect_gradient = [&](Plain& of, const Plain& gradient) {
    ASSERT_EQ(of.size(), gradient.size());
    for (Index i = 0; i < of.size(); ++i) {
      const double expected = slope([&, centre = of.data()[i]](double step) {
        of.data()[i] = centre + step;
        const double value = M::predict(w, x, saved).cwiseProduct(dy).sum();
        of.data()[i] = centre;
        return value;
      });
      EXPECT_NEAR(gradient.data()[i], expected, 1e-9);
    }
  };
  expect_gradient(x, dx);
  for (std::size_t l = 0; l < M::weight_count; ++l) {
    expect_gradient(w.W[l], dw.W[l]);
    expect_gradient(w.b[l], dw.b[l]);
  }
}

TYPED_TEST(ConvModelsTest, AdjointOfAChunkEqualsDifferences) {
  for (const bool reads_anchor : {true, false})
    expect_adjoint_equals_differences<TypeParam>(f, 4, reads_anchor);
}

// Of any head width, so all laws are for them.
using Signals = ::testing::Types<ConvModel<Conv1D<2, 3>, 4, Tanh>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Signals, ChunkLaws, Signals);

}  // namespace
}  // namespace ttt::test
