#include "ttt/nn/packed_matrix.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "support/tolerances.hpp"
#include "ttt/core/random.hpp"

namespace ttt::test {
namespace {

constexpr WeightFormat formats[] = {WeightFormat::float32, WeightFormat::bfloat16,
                                    WeightFormat::int8};
/// Around the inputs of a word and of a group, and the outputs of a panel.
constexpr Index inputs[] = {1, 2, 3, 4, 5, 6, 7, 8, 37, 96},
                outputs[] = {1, 7, 8, 9, 31, 32, 33, 70};

Matrix<float> random_weight(Index in, Index out) {
  Matrix<float> weight(in, out);
  Random random(static_cast<std::uint64_t>(100 * in + out));
  random.fill_normal(weight, 0.02);
  return weight;
}

/// A matrix with its memory.
struct Packed {
  std::vector<std::uint32_t> memory;
  PackedMatrix matrix;
  Packed(WeightFormat format, const Matrix<float>& weight)
      : memory(static_cast<std::size_t>(PackedMatrix::words(format, weight.rows(), weight.cols())),
               0xffffffffu),
        matrix(format, weight, memory.data()) {}

  Matrix<float> values() const {
    Matrix<float> result(matrix.in(), matrix.out());
    for (Index j = 0; j < result.cols(); ++j)
      for (Index i = 0; i < result.rows(); ++i) result(i, j) = matrix.value(i, j);
    return result;
  }
};

TEST(PackedMatrixTest, FloatKeepsEveryBit) {
  for (const Index in : inputs)
    for (const Index out : outputs) {
      const auto weight = random_weight(in, out);
      EXPECT_EQ(Packed(WeightFormat::float32, weight).values(), weight);
    }
}

TEST(PackedMatrixTest, BfloatRoundsToTheNearestAndTiesToEven) {
  for (const Index in : inputs)
    for (const Index out : outputs) {
      const auto weight = random_weight(in, out);
      EXPECT_EQ(Packed(WeightFormat::bfloat16, weight).values(),
                weight.cast<Eigen::bfloat16>().cast<float>());
    }
  // Eight bits of precision: halves of the last place, and a little beside them.
  Matrix<float> weight(6, 1), expected(6, 1);
  weight << 1 + 1 / 256.0f, 1 + 3 / 256.0f, 1.00391f, -1 - 1 / 256.0f, 0, -0.0f;
  expected << 1, 1 + 4 / 256.0f, 1 + 2 / 256.0f, -1, 0, -0.0f;
  EXPECT_EQ(Packed(WeightFormat::bfloat16, weight).values(), expected);
}

TEST(PackedMatrixTest, Int8IsWithinHalfAStepOfTheWeight) {
  for (const Index in : inputs)
    for (const Index out : outputs) {
      const auto weight = random_weight(in, out);
      const auto values = Packed(WeightFormat::int8, weight).values();
      for (Index j = 0; j < out; ++j) {
        const float largest = weight.col(j).lpNorm<Eigen::Infinity>(), step = largest / 127;
        EXPECT_LE((values.col(j) - weight.col(j)).lpNorm<Eigen::Infinity>(), 0.5001f * step);
        EXPECT_NEAR(values.col(j).lpNorm<Eigen::Infinity>(), largest, 1e-6f * largest);
      }
    }
}

TEST(PackedMatrixTest, Int8OfZerosAndOfTheSmallestNumbersIsZero) {
  Matrix<float> weight = random_weight(9, 3);
  weight.col(1).setZero();
  weight.col(2).setConstant(1e-40f);
  const auto values = Packed(WeightFormat::int8, weight).values();
  EXPECT_FALSE(values.col(0).isZero(0));
  EXPECT_TRUE(values.rightCols(2).isZero(0));
}

TEST(PackedMatrixTest, ProductEqualsThatOfTheValues) {
  for (const WeightFormat format : formats) {
    for (const Index in : inputs) {
      for (const Index out : outputs) {
        const Packed packed(format, random_weight(in, out));
        const Vector<float> x = random_weight(in, 1);
        Vector<float> y = Vector<float>::Constant(out + 1, 5);
        packed.matrix.multiply(x.data(), y.data(), 0, packed.matrix.panels());
        const Vector<double> expected =
            packed.values().cast<double>().transpose() * x.cast<double>();
        EXPECT_LE(relative_error(y.head(out), expected), tolerance::rounding<float>)
            << in << " x " << out;
        EXPECT_EQ(y[out], 5) << "wrote past the last output";
      }
    }
  }
}

TEST(PackedMatrixTest, PanelsAloneGiveTheSameBits) {
  for (const WeightFormat format : formats) {
    const Packed packed(format, random_weight(37, 150));
    const Vector<float> x = random_weight(37, 1);
    Vector<float> whole(150), parts(150);
    packed.matrix.multiply(x.data(), whole.data(), 0, packed.matrix.panels());
    ASSERT_GT(packed.matrix.panels(), 1);
    for (Index p = packed.matrix.panels(); p-- > 0;)
      packed.matrix.multiply(x.data(), parts.data(), p, 1);
    EXPECT_EQ(parts, whole);
  }
}

TEST(PackedMatrixTest, SmallFormatsReadHalfAndAQuarterOfTheBytes) {
  const auto weight = random_weight(768, 256);
  EXPECT_EQ(Packed(WeightFormat::float32, weight).matrix.bytes(), 4 * weight.size());
  EXPECT_EQ(Packed(WeightFormat::bfloat16, weight).matrix.bytes(), 2 * weight.size());
  EXPECT_EQ(Packed(WeightFormat::int8, weight).matrix.bytes(), weight.size() + 4 * 256);
}

}  // namespace
}  // namespace ttt::test
