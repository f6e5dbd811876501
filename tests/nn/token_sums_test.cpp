#include "ttt/nn/token_sums.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index rows = 3, cols = 2;

TEST(TokenSumsTest, EveryBlockHasZeroedMemoryOfItsOwn) {
  const Index T = 4 * token_block + 1, blocks = 5;
  // A slot a block, so that threads need no lock.
  std::vector<const float*> memory(blocks);
  std::vector<char> zeroed(blocks);
  sum_over_tokens<float>(T, rows, cols, [&](Index begin, Index size, MatrixOut<float> sums) {
    const auto block = static_cast<std::size_t>(begin / token_block);
    EXPECT_EQ(size, std::min(token_block, T - begin));
    memory[block] = sums.data();
    zeroed[block] = sums.rows() == rows && sums.cols() == cols && sums.isZero(0);
    sums.setOnes();
  });
  EXPECT_EQ(std::set<const float*>(memory.begin(), memory.end()).size(), memory.size());
  EXPECT_EQ(std::count(zeroed.begin(), zeroed.end(), 1), blocks);
}

TEST(TokenSumsTest, AddsTokensWithinBlocksAndBlocksInTheirOrder) {
  for (const Index T : lengths) {
    const auto terms = random_matrix<float>(rows * cols, T, 1);
    Vector<float> expected = Vector<float>::Zero(rows * cols);
    for (Index begin = 0; begin < T; begin += token_block) {
      Vector<float> block = Vector<float>::Zero(rows * cols);
      for (Index t = begin; t < std::min(T, begin + token_block); ++t) block += terms.col(t);
      expected += block;
    }
    const Matrix<float> total =
        sum_over_tokens<float>(T, rows, cols, [&](Index begin, Index size, MatrixOut<float> sums) {
          for (Index t = begin; t < begin + size; ++t) sums += terms.col(t).reshaped(rows, cols);
        });
    ASSERT_EQ(total.rows(), rows);
    ASSERT_EQ(total.cols(), cols);
    EXPECT_TRUE(total.reshaped() == expected) << T << " tokens";
  }
}

TEST(SumOfTokensTest, AddsUpColumns) {
  Matrix<double> tokens(2, 3 * token_block + 1);
  for (Index t = 0; t < tokens.cols(); ++t) tokens.col(t) << static_cast<double>(t), 1.0;
  const auto n = static_cast<double>(tokens.cols());
  EXPECT_EQ(sum_of_tokens<double>(tokens),
            Vector<double>((Vector<double>(2) << n * (n - 1) / 2, n).finished()));
  EXPECT_EQ(sum_of_tokens<double>(tokens.leftCols(0)), Vector<double>::Zero(2));
}

}  // namespace
}  // namespace ttt::test
