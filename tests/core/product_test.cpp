// All forms against loops, in sizes around the borders of the blocks that threads share.
#include "ttt/core/product.hpp"

#include "core/product_cases.hpp"

namespace ttt::test {
namespace {

/// Products of 2^20 operations or more are shared by threads: in blocks of 96 rows or less where
/// the result is higher than wide and under 512 columns, else of 128 columns; 256 deep (double:
/// 128), and at most 1536 rows and 1024 deep (512) at a time. One column is a product of its own.
const std::vector<Sizes> all_sizes = {
    {1, 1, 1},      {7, 5, 3},      {3, 0, 4},       {0, 3, 4},       {4, 3, 0},
    {64, 127, 128}, {64, 128, 128}, {64, 128, 129},  {70, 66, 257},   {128, 300, 32},
    {128, 300, 33}, {90, 250, 97},  {97, 250, 90},   {500, 130, 20},  {16, 32, 2100},
    {16, 33, 512},  {33, 64, 513},  {3, 0, 1},       {0, 3, 1},       {1, 9, 1},
    {70, 66, 1},    {1100, 999, 1}, {1541, 1031, 3}, {21, 1031, 515}, {1541, 9, 513}};

template <class S>
class ProductTest : public ::testing::Test {};
TYPED_TEST_SUITE(ProductTest, Scalars);

TYPED_TEST(ProductTest, AB) {
  expect_equal<TypeParam>(Product<TypeParam>::ab, all_sizes, 0, 1, false, false);
}
TYPED_TEST(ProductTest, AddAB) {
  expect_equal<TypeParam>(Product<TypeParam>::add_ab, all_sizes, 1, 1, false, false);
}
TYPED_TEST(ProductTest, SubtractAB) {
  expect_equal<TypeParam>(Product<TypeParam>::subtract_ab, all_sizes, 1, -1, false, false);
}
TYPED_TEST(ProductTest, AtB) {
  expect_equal<TypeParam>(Product<TypeParam>::atb, all_sizes, 0, 1, true, false);
}
TYPED_TEST(ProductTest, AddAtB) {
  expect_equal<TypeParam>(Product<TypeParam>::add_atb, all_sizes, 1, 1, true, false);
}
TYPED_TEST(ProductTest, AddABt) {
  expect_equal<TypeParam>(Product<TypeParam>::add_abt, all_sizes, 1, 1, false, true);
}

TYPED_TEST(ProductTest, SubtractABt) {
  expect_equal<TypeParam>(Product<TypeParam>::subtract_abt, all_sizes, 1, -1, false, true);
}

TYPED_TEST(ProductTest, TakesBlocksOfLargerMatrices) {
  using S = TypeParam;
  const Matrix<S> A = random_matrix<S>(9, 8, 1), B = random_matrix<S>(8, 9, 2);
  const Matrix<S> a = A.block(2, 1, 5, 4), b = B.block(3, 2, 4, 6);
  Matrix<S> from_blocks(5, 6), from_copies(5, 6);
  Product<S>::ab(A.block(2, 1, 5, 4), B.block(3, 2, 4, 6), from_blocks);
  Product<S>::ab(a, b, from_copies);
  EXPECT_LE(relative_error(from_blocks, from_copies), tolerance::rounding<S>);
}

TYPED_TEST(ProductTest, HasTheSameBitsForAnyNumberOfThreads) {
  using S = TypeParam;
  for (const Sizes& s :
       {Sizes{64, 128, 129}, Sizes{90, 250, 97}, Sizes{500, 130, 20}, Sizes{16, 32, 2100},
        Sizes{1541, 1031, 3}, Sizes{21, 1031, 515}, Sizes{1100, 999, 1}})
    expect_same_bits_for_any_threads([&] {
      const Operands<S> plain(s, false, false), a(s, true, false), b(s, false, true);
      Results<S> r{{plain.C, plain.C, plain.C, plain.C, plain.C}};
      Product<S>::ab(plain.A, plain.B, r.tensors[0]);
      Product<S>::add_ab(plain.A, plain.B, r.tensors[1]);
      Product<S>::atb(a.A, a.B, r.tensors[2]);
      Product<S>::add_atb(a.A, a.B, r.tensors[3]);
      Product<S>::add_abt(b.A, b.B, r.tensors[4]);
      return r;
    });
}

/// Of unequal heights, one of them none, for as many tokens as make blocks of rows, of columns, and
/// one column.
template <class S>
struct Together {
  Matrix<S> A, b, c, B, C, d, e;

  Together(Index depth, Index cols)
      : A(random_matrix<S>(depth, 500, 1)),
        b(depth, 0),
        c(random_matrix<S>(depth, 97, 2)),
        B(random_matrix<S>(depth, cols, 3)),
        C(Matrix<S>::Constant(500, cols, std::numeric_limits<S>::quiet_NaN())),
        d(0, cols),
        e(Matrix<S>::Constant(97, cols, std::numeric_limits<S>::quiet_NaN())) {}
  void multiply() { Product<S>::atb_each({{A, C}, {b, d}, {c, e}}, B); }
};

TYPED_TEST(ProductTest, SeveralWithTheSameFactorEqualEachAlone) {
  using S = TypeParam;
  for (const Index depth : {0, 66, 1031})
    for (const Index cols : {0, 1, 2, 130, 515, 700}) {
      Together<S> together(depth, cols);
      together.multiply();
      Matrix<S> C(500, cols), e(97, cols);
      Product<S>::atb(together.A, together.B, C);
      Product<S>::atb(together.c, together.B, e);
      EXPECT_LE(relative_error(together.C, C), tolerance::rounding<S>) << depth << ", " << cols;
      EXPECT_LE(relative_error(together.e, e), tolerance::rounding<S>) << depth << ", " << cols;
    }
}

TYPED_TEST(ProductTest, SeveralHaveTheSameBitsForAnyNumberOfThreads) {
  using S = TypeParam;
  for (const Index cols : {1, 20, 515})
    expect_same_bits_for_any_threads([&] {
      Together<S> together(66, cols);
      together.multiply();
      return Results<S>{{together.C, together.e}};
    });
}

}  // namespace
}  // namespace ttt::test
