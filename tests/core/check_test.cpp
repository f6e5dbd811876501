#include "ttt/core/check.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"

namespace ttt {
namespace {

using testing::message_of;

TEST(CheckTest, ConcatJoinsTextAndNumbers) {
  EXPECT_EQ(concat("width is ", 7, ", expected ", 2.5, std::string("!"), 'c'),
            "width is 7, expected 2.5!c");
}

TEST(CheckTest, RequireThrowsOnlyWhereTheConditionFails) {
  EXPECT_NO_THROW(require(true, "never"));
  EXPECT_THROW(require(false, "x"), std::invalid_argument);
  EXPECT_EQ(message_of([] { require(1 > 2, "Linear.forward: width is ", 3, ", expected ", 4); }),
            "Linear.forward: width is 3, expected 4");
}

TEST(CheckTest, RaiseThrowsTheErrorAskedFor) {
  EXPECT_THROW(raise<std::runtime_error>("gone"), std::runtime_error);
  EXPECT_THROW(raise<std::out_of_range>("far"), std::out_of_range);
  EXPECT_EQ(message_of([] { raise<std::runtime_error>("cannot read a.txt"); }),
            "cannot read a.txt");
}

TEST(CheckTest, RequireShapeNamesBothShapes) {
  const Matrix<float> matrix(2, 3);
  EXPECT_NO_THROW(require_shape("f: x", matrix, 2, 3));
  EXPECT_EQ(message_of([&] { require_shape("f: x", matrix, 2, 4); }),
            "f: x has shape 2 x 3, expected 2 x 4");
  EXPECT_EQ(message_of([&] { require_shape("f: x", matrix, 1, 3); }),
            "f: x has shape 2 x 3, expected 1 x 3");
  EXPECT_THROW(require_shape("f: x", matrix.transpose(), 2, 3), std::invalid_argument);
  EXPECT_NO_THROW(require_shape("f: v", Vector<double>(5), 5, 1));
}

TEST(CheckTest, EnsureShapeKeepsMemoryThatFits) {
  Matrix<float> scratch = Matrix<float>::Constant(3, 4, 2);
  const float* const data = scratch.data();
  ensure_shape(scratch, 3, 4);
  EXPECT_EQ(scratch.data(), data);
  EXPECT_EQ(scratch, Matrix<float>::Constant(3, 4, 2));
  ensure_shape(scratch, 3, 5);
  EXPECT_EQ(scratch.rows(), 3);
  EXPECT_EQ(scratch.cols(), 5);
}

}  // namespace
}  // namespace ttt
