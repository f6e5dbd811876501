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

}  // namespace
}  // namespace ttt::test
