#include "ttt/nn/embedding.hpp"

#include "nn/operation_test.hpp"

namespace ttt::test {
namespace {

constexpr Index D = 130, V = 9;  // more rows than a thread takes at once

template <class S>
class EmbeddingTest : public ::testing::Test {};
TYPED_TEST_SUITE(EmbeddingTest, Scalars);

TYPED_TEST(EmbeddingTest, ForwardAndStepCopyColumns) {
  using S = TypeParam;
  const auto table = random_matrix<S>(D, V, 1);
  for (const Index T : lengths) {
    const auto ids = random_ids(T, V, 2);
    Matrix<S> y(D, T), by_step(D, T);
    Embedding<S>::forward(ids, table, y);
    for (Index t = 0; t < T; ++t) {
      Embedding<S>::step(ids[static_cast<std::size_t>(t)], table, by_step.col(t));
      for (Index d = 0; d < D; ++d)
        ASSERT_EQ(y(d, t), table(d, ids[static_cast<std::size_t>(t)])) << "token " << t;
    }
    EXPECT_EQ(by_step, y);
  }
}

TYPED_TEST(EmbeddingTest, BackwardAddsRepeatedIdsInTheOrderOfTokens) {
  using S = TypeParam;
  for (const Index T : lengths) {
    const auto ids = random_ids(T, V, 2);
    const auto dy = random_matrix<S>(D, T, 3);
    Matrix<S> d_table = random_matrix<S>(D, V, 4), expected = d_table;
    for (Index t = 0; t < T; ++t)
      for (Index d = 0; d < D; ++d) expected(d, ids[static_cast<std::size_t>(t)]) += dy(d, t);
    Embedding<S>::backward(dy, ids, d_table);
    EXPECT_EQ(d_table, expected);
  }
}

TEST(EmbeddingDoubleTest, BackwardEqualsDifferences) {
  const auto ids = random_ids(5, 4, 1);
  auto table = random_matrix<double>(3, 4, 2);
  const auto c = random_matrix<double>(3, 5, 3);
  Matrix<double> y(3, 5), d_table = Matrix<double>::Zero(3, 4);
  Embedding<double>::forward(ids, table, y);
  Embedding<double>::backward(c.cwiseProduct(y), ids, d_table);
  EXPECT_TRUE(check_gradient(table, d_table, [&] {
    Embedding<double>::forward(ids, table, y);
    return 0.5 * c.cwiseProduct(y.cwiseAbs2()).sum();
  }));
}

TEST(EmbeddingDoubleTest, BackwardHasTheSameBitsForAnyNumberOfThreads) {
  const auto ids = random_ids(300, V, 1);
  const auto dy = random_matrix<float>(700, 300, 2);
  expect_same_bits_for_any_threads([&] {
    Matrix<float> d_table = Matrix<float>::Zero(700, V);
    Embedding<float>::backward(dy, ids, d_table);
    return d_table;
  });
}

TEST(EmbeddingDoubleTest, NamesTheIdThatIsOutOfRange) {
  Matrix<double> table(2, V), y(2, 3);
  Vector<double> y_t(2);
  for (const std::int32_t wrong : {-1, 9}) {
    const std::vector<std::int32_t> ids = {0, 8, wrong};
    try {
      Embedding<double>::forward(ids, table, y);
      FAIL() << "accepted the id " << wrong;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(error.what(), concat("Embedding.forward: the id at position 2 is ", wrong,
                                     ", expected 0 to V - 1 with V = 9"));
    }
    EXPECT_THROW(Embedding<double>::backward(y, ids, table), std::invalid_argument);
    EXPECT_THROW(Embedding<double>::step(wrong, table, y_t), std::invalid_argument);
  }
  const std::vector<std::int32_t> ids = {0, 1};
  EXPECT_THROW(Embedding<double>::forward(ids, table, y), std::invalid_argument);
  EXPECT_THROW(Embedding<double>::backward(y, ids, table), std::invalid_argument);
}

}  // namespace
}  // namespace ttt::test
