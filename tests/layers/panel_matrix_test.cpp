// Products against sums written out, and the promise that columns do not mix.
#include "ttt/layers/panel_matrix.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/layer_runs.hpp"

namespace ttt::test {
namespace {

template <class S>
class PanelMatrixTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(PanelMatrixTest, Scalars);

/// A panel has 4 to 32 rows, a tile of the copy 64 columns, a product up to 8 columns at once.
TYPED_TEST(PanelMatrixTest, AddsTheProductWhateverTheShapes) {
  using S = TypeParam;
  Random random(1);
  PanelMatrix<S> panels;  // one object: later shapes meet the memory of earlier ones
  for (const Index rows : {70, 1, 5, 32, 33}) {
    for (const Index depth : {150, 1, 64, 7}) {
      for (const Index cols : {15, 8, 3, 1, 0}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << depth << " x " << cols);
        const auto A = random_matrix<S>(rows, depth, random);
        const auto B = random_matrix<S>(depth, cols, random),
                   C = random_matrix<S>(rows, cols, random);
        Matrix<S> expected = C, packed = C, transposed = C;
        for (Index j = 0; j < cols; ++j)
          for (Index i = 0; i < rows; ++i)
            for (Index k = 0; k < depth; ++k) expected(i, j) += A(i, k) * B(k, j);
        panels.pack(A);
        panels.add_product(B, packed);
        EXPECT_LE(relative_error(packed, expected), tolerance::rounding<S>);
        panels.pack_transposed(A.transpose().eval());
        panels.add_product(B, transposed);
        EXPECT_TRUE(same_bits(transposed, packed));
      }
    }
  }
}

TYPED_TEST(PanelMatrixTest, TakesBlocksOfLargerMatricesAndWritesNothingElse) {
  using S = TypeParam;
  Random random(2);
  const auto A = random_matrix<S>(9, 6, random), B = random_matrix<S>(8, 5, random);
  PanelMatrix<S> panels;
  panels.pack(A);
  Matrix<S> C = Matrix<S>::Zero(12, 5), expected = C;
  panels.add_product(B.block(1, 1, 6, 3), C.block(2, 1, 9, 3));
  expected.block(2, 1, 9, 3) = A * B.block(1, 1, 6, 3);
  EXPECT_LE(relative_error(C, expected), tolerance::rounding<S>);
  C.block(2, 1, 9, 3).setZero();
  EXPECT_TRUE(C.isZero(0));
}

TYPED_TEST(PanelMatrixTest, AColumnThatIsNotFiniteLeavesTheOthersBitEqual) {
  using S = TypeParam;
  Random random(3);
  const auto A = random_matrix<S>(11, 9, random);
  auto B = random_matrix<S>(9, 8, random);
  PanelMatrix<S> panels;
  panels.pack(A);
  Matrix<S> clean = Matrix<S>::Zero(11, 8), poisoned = clean;
  panels.add_product(B, clean);
  B.col(3).setConstant(std::numeric_limits<S>::quiet_NaN());
  panels.add_product(B, poisoned);
  EXPECT_TRUE(same_bits(poisoned.leftCols(3), clean.leftCols(3)));
  EXPECT_TRUE(same_bits(poisoned.rightCols(4), clean.rightCols(4)));
  EXPECT_TRUE(poisoned.col(3).array().isNaN().all());
}

}  // namespace
}  // namespace ttt::test
