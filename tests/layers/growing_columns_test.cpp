// A matrix that grows by columns: copies are independent, and what was shared never changes.
#include "ttt/layers/growing_columns.hpp"

#include <gtest/gtest.h>

#include "support/layer_runs.hpp"

namespace ttt::test {
namespace {

using Columns = GrowingColumns<double>;

Columns filled(Index rows, Index columns, Index capacity, std::uint64_t seed) {
  Random random(seed);
  Columns result(rows, capacity);
  result.write(0, columns) = random_matrix<double>(rows, columns, random);
  return result;
}

TEST(GrowingColumnsTest, BeginsWithZeros) {
  const Columns none, some(3, 4);
  EXPECT_EQ(none.matrix().size(), 0);
  EXPECT_EQ(some.rows(), 3);
  EXPECT_EQ(some.capacity(), 4);
  EXPECT_TRUE(some.matrix().isZero(0));
}

TEST(GrowingColumnsTest, CopiesAreIndependent) {
  Columns original = filled(2, 3, 4, 1), copy = original, assigned;
  assigned = original;
  const Matrix<double> before = original.matrix();
  original.write(0, 4).setConstant(7);
  EXPECT_EQ(copy.matrix(), before);
  EXPECT_EQ(assigned.matrix(), before);
  copy.mutable_matrix().setZero();
  EXPECT_EQ(assigned.matrix(), before);
  EXPECT_EQ(original.matrix(), Matrix<double>::Constant(2, 4, 7));
}

TEST(GrowingColumnsTest, MovingTakesTheMemoryAlong) {
  Columns original = filled(2, 3, 4, 1);
  const double* memory = original.matrix().data();
  Columns moved = std::move(original);
  EXPECT_EQ(moved.matrix().data(), memory);
  original = filled(2, 1, 1, 2);  // may be assigned to again
  EXPECT_EQ(original.capacity(), 1);
  EXPECT_EQ(moved.matrix().data(), memory);
}

TEST(GrowingColumnsTest, AppendingLeavesWhatIsSharedInPlace) {
  Columns columns = filled(2, 3, 6, 1);
  const auto shared = columns.share(3);
  const Matrix<double> before = shared->leftCols(3);
  columns.write(3, 2).setOnes();
  EXPECT_EQ(columns.matrix().data(), shared->data()) << "appending has copied";
  EXPECT_EQ(shared->leftCols(3), before);
}

TEST(GrowingColumnsTest, WritingBelowWhatIsSharedTakesACopyOnce) {
  Columns columns = filled(2, 3, 6, 1);
  const auto longer = columns.share(3), shorter = columns.share(1);
  const Matrix<double> before = *longer;
  columns.write(2, 1).setOnes();
  EXPECT_EQ(*longer, before);
  EXPECT_EQ(columns.matrix().leftCols(2), before.leftCols(2));
  EXPECT_EQ(columns.matrix().col(2), Vector<double>::Ones(2));
  const double* memory = columns.matrix().data();
  columns.write(0, 1).setOnes();
  EXPECT_EQ(columns.matrix().data(), memory) << "nothing is shared any more";
  EXPECT_EQ(*shorter, before);
}

TEST(GrowingColumnsTest, ChangingEverythingLeavesWhatIsShared) {
  Columns columns = filled(2, 3, 3, 1);
  const auto shared = columns.share(3);
  const Matrix<double> before = *shared;
  columns.mutable_matrix().resize(2, 5);
  EXPECT_EQ(columns.capacity(), 5);
  set_zero(columns);
  EXPECT_EQ(*shared, before);
}

TEST(GrowingColumnsTest, ResizingKeepsWhatItIsToldAndClearsTheRest) {
  for (const Index capacity : {2, 4, 9}) {
    Columns columns = filled(2, 4, 4, 1);
    const auto shared = columns.share(4);
    const Matrix<double> before = *shared;
    columns.resize(2, capacity);
    EXPECT_EQ(columns.capacity(), capacity);
    EXPECT_EQ(columns.matrix().leftCols(2), before.leftCols(2));
    EXPECT_TRUE(columns.matrix().rightCols(capacity - 2).isZero(0));
    EXPECT_EQ(*shared, before);
  }
}

TEST(GrowingColumnsTest, ResizingToTheSameCapacityKeepsItsPlace) {
  Columns columns = filled(2, 4, 4, 1);
  const double* memory = columns.matrix().data();
  const auto shared = columns.share(2);
  columns.resize(2, 4);
  EXPECT_EQ(columns.matrix().data(), memory);
  EXPECT_TRUE(columns.matrix().rightCols(2).isZero(0));
}

struct Memory {
  Columns keys;
  static auto fields(auto& self) { return std::tuple(field("keys", self.keys)); }
};

TEST(GrowingColumnsTest, IsOneTensorWithoutANameOfItsOwn) {
  Memory memory{filled(2, 3, 4, 1)};
  Index seen = 0;
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor) {
        EXPECT_EQ(info.name, "keys");
        EXPECT_EQ(info.shape, (std::vector<Index>{4, 2}));
        EXPECT_EQ(tensor.data(), memory.keys.matrix().data());
        ++seen;
      },
      std::as_const(memory));
  EXPECT_EQ(seen, 1);
  EXPECT_TRUE(zeros_like(memory).keys.matrix().isZero(0));
  EXPECT_FALSE(memory.keys.matrix().isZero(0));
}

}  // namespace
}  // namespace ttt::test
