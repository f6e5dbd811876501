// All forms against loops, in sizes around the borders of packets, tiles and panels.
#include "ttt/core/small_product.hpp"

#include "core/product_cases.hpp"

namespace ttt::test {
namespace {

/// Tiles have 1 to 64 rows and 1 to 8 columns, panels a depth of 128; from 2^16 elements of A on a
/// general product takes over.
const std::vector<Sizes> all_sizes = {{1, 1, 1},     {3, 0, 4},      {67, 0, 7},    {0, 3, 4},
                                      {4, 3, 0},     {5, 3, 2},      {37, 19, 7},   {16, 64, 16},
                                      {64, 64, 1},   {64, 64, 16},   {65, 16, 17},  {71, 127, 9},
                                      {64, 128, 4},  {64, 129, 12},  {256, 64, 16}, {64, 256, 16},
                                      {100, 300, 5}, {260, 256, 20}, {260, 256, 2}};

template <class S>
class SmallProductTest : public ::testing::Test {};
TYPED_TEST_SUITE(SmallProductTest, Scalars);

TYPED_TEST(SmallProductTest, EqualsLoops) {
  using Small = SmallProduct<TypeParam>;
  expect_equal<TypeParam>(Small::add_ab, all_sizes, 1, 1, false, false);
  expect_equal<TypeParam>(Small::subtract_ab, all_sizes, 1, -1, false, false);
  expect_equal<TypeParam>(Small::atb, all_sizes, 0, 1, true, false);
  expect_equal<TypeParam>(Small::add_atb, all_sizes, 1, 1, true, false);
  expect_equal<TypeParam>(Small::add_abt, all_sizes, 1, 1, false, true);
  expect_equal<TypeParam>(Small::subtract_abt, all_sizes, 1, -1, false, true);
}

TYPED_TEST(SmallProductTest, AffineAddsItsConstantToEveryColumn) {
  using S = TypeParam;
  for (const Sizes& s : all_sizes) {
    const Operands<S> o(s, false, false);
    const Vector<S> c = random_matrix<S>(s.rows, 1, 4);
    const S unread = std::numeric_limits<S>::quiet_NaN();  // what stood there must not be read
    Matrix<S> with = Matrix<S>::Constant(s.rows, s.cols, unread), without = with;
    SmallProduct<S>::affine(o.A, o.B, c, with);
    SmallProduct<S>::affine(o.A, o.B, Vector<S>(), without);
    const Matrix<double> product = o.by_loops(0, 1, false, false);
    EXPECT_LE(relative_error(without, product), tolerance::rounding<S>);
    EXPECT_LE(relative_error(with, product.colwise() + c.template cast<double>()),
              tolerance::rounding<S>);
  }
}

/// What streams rely on: the bits of a column do not depend on the columns beside it.
TYPED_TEST(SmallProductTest, EveryColumnStandsAlone) {
  using S = TypeParam;
  const Operands<S> o({65, 40, 13}, false, false);
  Matrix<S> all(65, 13), changed(65, 13);
  SmallProduct<S>::affine(o.A, o.B, Vector<S>(), all);
  Matrix<S> B = o.B;
  B.col(6).setConstant(std::numeric_limits<S>::quiet_NaN());
  SmallProduct<S>::affine(o.A, B, Vector<S>(), changed);
  EXPECT_EQ(all.leftCols(6), changed.leftCols(6));
  EXPECT_EQ(all.rightCols(6), changed.rightCols(6));
}

}  // namespace
}  // namespace ttt::test
