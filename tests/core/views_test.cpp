#include "ttt/core/views.hpp"

#include <gtest/gtest.h>

#include <array>
#include <type_traits>

namespace ttt {
namespace {

using Strided = Eigen::Map<Matrix<float>, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix<float> numbers(Index rows, Index cols) {
  return Matrix<float>::NullaryExpr(
      rows, cols, [](Index i, Index j) { return static_cast<float>(10 * i + j); });
}

/// What a function sees of its argument while it is called.
struct Seen {
  const float* data;
  Matrix<float> values;
};
Seen matrix(MatrixIn<float> x) { return {x.data(), x}; }
Seen vector(VectorIn<float> x) { return {x.data(), x}; }
void double_matrix(MatrixOut<float> y) { y *= 2; }
void double_vector(VectorOut<float> y) { y *= 2; }

TEST(ViewsTest, WhatLiesInColumnsBindsWithoutACopy) {
  Matrix<float> x = numbers(4, 5);
  const Matrix<float>& constant = x;
  EXPECT_EQ(matrix(x).data, x.data());
  EXPECT_EQ(matrix(constant).data, x.data());
  EXPECT_EQ(matrix(constant.middleCols(1, 2)).data, x.data() + 4);
  EXPECT_EQ(matrix(x.col(3)).data, x.data() + 12);
  EXPECT_EQ(matrix(MatrixOut<float>(x)).data, x.data());
  EXPECT_EQ(matrix(Eigen::Ref<Matrix<float>>(x)).data, x.data());
  EXPECT_EQ(matrix(Eigen::Map<const Matrix<float>>(x.data(), 10, 2)).data, x.data());

  const Seen rows = matrix(x.middleRows(1, 2));
  EXPECT_EQ(rows.data, x.data() + 1);
  EXPECT_EQ(rows.values, Matrix<float>(x.middleRows(1, 2)));

  const Eigen::Matrix<float, 3, 2> fixed = numbers(3, 2);
  EXPECT_EQ(matrix(fixed).data, fixed.data());
  EXPECT_EQ(matrix(fixed.topRows<2>()).values, numbers(2, 2));
}

TEST(ViewsTest, AnythingElseIsEvaluatedForTheCall) {
  const Matrix<float> x = numbers(4, 5);
  EXPECT_EQ(matrix(x.transpose()).values, Matrix<float>(x.transpose()));
  EXPECT_EQ(matrix(2 * x).values, Matrix<float>(2 * x));
  EXPECT_EQ(matrix(RowMajor(x)).values, x);
  EXPECT_EQ(matrix(x.row(2)).values, Matrix<float>(x.row(2)));
  EXPECT_EQ(matrix(Matrix<float>::Ones(2, 3)).values, Matrix<float>::Ones(2, 3));

  Matrix<float> memory = x;
  const Strided every_second(memory.data(), 2, 5, {4, 2});
  EXPECT_EQ(matrix(every_second).values, Matrix<float>(every_second));
  EXPECT_NE(matrix(every_second).data, memory.data());
}

TEST(ViewsTest, VectorsBindAlikeAndRowsThatLieLikeColumns) {
  const Matrix<float> x = numbers(4, 5);
  const Vector<float> v = x.col(2);
  const Eigen::RowVectorXf row = x.row(1);
  EXPECT_EQ(vector(v).data, v.data());
  EXPECT_EQ(vector(v.segment(1, 2)).data, v.data() + 1);
  EXPECT_EQ(vector(x.col(2)).data, x.data() + 8);
  EXPECT_EQ(vector(row).data, row.data());
  EXPECT_EQ(vector(x.row(1).transpose()).values, Matrix<float>(x.row(1).transpose()));
  EXPECT_EQ(vector(2 * v).values, Matrix<float>(2 * v));
}

TEST(ViewsTest, ResultsAreWrittenInPlace) {
  Matrix<float> x = numbers(4, 5);
  double_matrix(x.block(1, 1, 2, 3));
  Matrix<float> expected = numbers(4, 5);
  expected.block(1, 1, 2, 3) *= 2;
  EXPECT_EQ(x, expected);

  double_vector(x.col(4));
  expected.col(4) *= 2;
  EXPECT_EQ(x, expected);

  std::array<float, 3> memory{1, 2, 3};
  double_vector(Eigen::Map<Vector<float>>(memory.data(), 3));
  EXPECT_EQ(memory, (std::array<float, 3>{2, 4, 6}));
}

TEST(ViewsTest, AssignmentCopiesNumbers) {
  Matrix<float> a = numbers(2, 2), b = Matrix<float>::Zero(2, 2);
  MatrixOut<float> to = b;
  const MatrixOut<float> from = a;
  to = from;
  EXPECT_EQ(b, a);
  EXPECT_EQ(to.data(), b.data());
}

template <class View, class Argument>
constexpr bool binds = std::is_convertible_v<Argument, View>;

// Of results: no constants, no copies, nothing that lies otherwise.
static_assert(binds<MatrixOut<float>, Matrix<float>&>);
static_assert(!binds<MatrixOut<float>, const Matrix<float>&>);
static_assert(!binds<MatrixOut<float>, Matrix<float>&&>);
static_assert(!binds<MatrixOut<float>, RowMajor&>);
static_assert(!binds<MatrixOut<float>, MatrixView<float>>);
static_assert(!binds<MatrixOut<float>, Strided&>);
static_assert(!binds<MatrixOut<float>, Matrix<double>&>);
static_assert(!binds<MatrixOut<float>, decltype(std::declval<const Matrix<float>&>().col(0))>);
static_assert(!binds<VectorOut<float>, decltype(std::declval<Matrix<float>&>().row(0))>);
static_assert(!binds<VectorOut<float>, const Vector<float>&>);
// Of arguments: no other number type.
static_assert(!binds<MatrixView<float>, const Matrix<double>&>);
static_assert(!binds<VectorView<double>, const Vector<float>&>);
// A view is an address and a shape.
static_assert(std::is_trivially_destructible_v<MatrixView<float>>);
static_assert(std::is_trivially_destructible_v<VectorOut<float>>);

}  // namespace
}  // namespace ttt
