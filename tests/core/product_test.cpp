// All forms against loops, in sizes around the borders of the blocks that threads share.
#include "ttt/core/product.hpp"

#include <functional>

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

struct Sizes {
  Index rows, depth, cols;
};

/// A product of 2^20 operations or more is cut into blocks of 32 columns or more where the depth is
/// above the number of columns, else of 128 to 512.
const std::vector<Sizes> all_sizes = {
    {1, 1, 1},      {7, 5, 3},      {3, 0, 4},      {0, 3, 4},     {4, 3, 0},
    {64, 127, 128}, {64, 128, 128}, {64, 128, 129}, {70, 66, 257}, {128, 300, 32},
    {128, 300, 33}, {90, 250, 97},  {16, 32, 2100}, {16, 33, 512}, {33, 64, 513}};

template <class S>
struct Operands {
  Matrix<S> A, B, C;

  Operands(const Sizes& s, bool transpose_a, bool transpose_b)
      : A(transpose_a ? random_matrix<S>(s.depth, s.rows, 1)
                      : random_matrix<S>(s.rows, s.depth, 1)),
        B(transpose_b ? random_matrix<S>(s.cols, s.depth, 2)
                      : random_matrix<S>(s.depth, s.cols, 2)),
        C(random_matrix<S>(s.rows, s.cols, 3)) {}

  /// C + A B (transposed where the constructor said so) or A B, in loops and in double.
  Matrix<double> by_loops(bool add, bool transpose_a, bool transpose_b) const {
    Matrix<double> result = Matrix<double>::Zero(C.rows(), C.cols());
    if (add) result = C.template cast<double>();
    const Index depth = transpose_a ? A.rows() : A.cols();
    for (Index j = 0; j < C.cols(); ++j)
      for (Index k = 0; k < depth; ++k) {
        const auto b = static_cast<double>(transpose_b ? B(j, k) : B(k, j));
        for (Index i = 0; i < C.rows(); ++i)
          result(i, j) += static_cast<double>(transpose_a ? A(k, i) : A(i, k)) * b;
      }
    return result;
  }
};

/// Outputs inside a larger matrix, whose other elements must stay.
template <class S>
void expect_equal(const std::function<void(MatrixIn<S>, MatrixIn<S>, MatrixOut<S>)>& form, bool add,
                  bool transpose_a, bool transpose_b) {
  for (const Sizes& s : all_sizes) {
    const Operands<S> o(s, transpose_a, transpose_b);
    Matrix<S> C = o.C, frame = Matrix<S>::Constant(s.rows + 3, s.cols + 2, 5);
    form(o.A, o.B, C);
    EXPECT_LE(relative_error(C, o.by_loops(add, transpose_a, transpose_b)), tolerance::rounding<S>)
        << s.rows << " x " << s.depth << " x " << s.cols;

    auto inside = frame.block(1, 1, s.rows, s.cols);
    inside = o.C;
    form(o.A, o.B, inside);
    EXPECT_EQ(Matrix<S>(inside), C);
    EXPECT_TRUE((frame.topRows(1).array() == 5).all() && (frame.bottomRows(2).array() == 5).all());
    EXPECT_TRUE((frame.leftCols(1).array() == 5).all() && (frame.rightCols(1).array() == 5).all());
  }
}

template <class S>
class ProductTest : public ::testing::Test {};
TYPED_TEST_SUITE(ProductTest, Scalars);

TYPED_TEST(ProductTest, AB) {
  expect_equal<TypeParam>(Product<TypeParam>::ab, false, false, false);
}
TYPED_TEST(ProductTest, AddAB) {
  expect_equal<TypeParam>(Product<TypeParam>::add_ab, true, false, false);
}
TYPED_TEST(ProductTest, AtB) {
  expect_equal<TypeParam>(Product<TypeParam>::atb, false, true, false);
}
TYPED_TEST(ProductTest, AddAtB) {
  expect_equal<TypeParam>(Product<TypeParam>::add_atb, true, true, false);
}
TYPED_TEST(ProductTest, AddABt) {
  expect_equal<TypeParam>(Product<TypeParam>::add_abt, true, false, true);
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
  for (const Sizes& s : {Sizes{64, 128, 129}, Sizes{90, 250, 97}, Sizes{16, 32, 2100}})
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
