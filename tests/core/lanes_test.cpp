// Loops over the rows of a token, a register at a time, against loops over single numbers.
#include "ttt/core/lanes.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ttt/core/fixed_matrix.hpp"
#include "ttt/core/random.hpp"

namespace ttt::test {
namespace {

template <class S>
class LanesTest : public ::testing::Test {
 protected:
  static Vector<S> numbers(Index count, std::uint64_t seed) {
    Vector<S> result(count);
    Random(seed).fill_normal(result, 1);
    return result;
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LanesTest, Scalars);

constexpr Index longest = 70;

TYPED_TEST(LanesTest, EveryNumberOnce) {
  using S = TypeParam;
  for (Index count = 0; count <= longest; ++count) {
    std::vector<int> visits(static_cast<std::size_t>(longest), 0);
    Index next = 0;
    each_lane<S>(count, [&]<int n>(LaneAt<S, n> at) {
      EXPECT_EQ(at.first, next);
      next += n;
      for (Index i = at.first; i < at.first + n; ++i) ++visits[static_cast<std::size_t>(i)];
    });
    for (Index i = 0; i < longest; ++i)
      EXPECT_EQ(visits[static_cast<std::size_t>(i)], i < count ? 1 : 0) << count << ", " << i;
  }
}

TYPED_TEST(LanesTest, SumsOfSeveralAtOnce) {
  using S = TypeParam;
  constexpr int n = lane_size<S>;
  using Registers = detail::Tile<S, n, std::make_integer_sequence<int, n>>;
  const Vector<S> numbers = this->numbers(n * n, 5);
  Registers registers;
  registers.load(numbers.data());
  Vector<S> sums(n);
  Lane<S, n>::sums(registers.lanes).store(sums.data());
  for (Index i = 0; i < n; ++i)
    EXPECT_NEAR(sums[i], numbers.segment(i * n, n).sum(), 100 * std::numeric_limits<S>::epsilon());
}

TYPED_TEST(LanesTest, Arithmetic) {
  using S = TypeParam;
  for (Index count : {1, 7, 16, 31, 64}) {
    const Vector<S> a = this->numbers(count, 1), b = this->numbers(count, 2);
    Vector<S> result = this->numbers(count + 1, 3), added = a;
    const S beyond = result[count];
    each_lane<S>(count, [&](auto at) {
      const auto x = at(a.data()), y = at(b.data());
      at.store(result.data(), (x + y) * x - S(3) * y);
      at.add(added.data(), tanh(y));
    });
    const S rounding = 16 * std::numeric_limits<S>::epsilon();
    for (Index i = 0; i < count; ++i) {
      EXPECT_NEAR(result[i], (a[i] + b[i]) * a[i] - S(3) * b[i], 10 * rounding);
      EXPECT_NEAR(added[i], a[i] + std::tanh(b[i]), rounding);
    }
    EXPECT_EQ(result[count], beyond);
  }
}

TYPED_TEST(LanesTest, SumsDependOnTheirNumbersAlone) {
  using S = TypeParam;
  for (Index count = 0; count <= longest; ++count) {
    const Vector<S> a = this->numbers(count, 4);
    const auto sum = [&](const S* memory) {
      Sum<S> total;
      each_lane<S>(count, [&](auto at) { total += at(memory); });
      return total.total();
    };
    EXPECT_NEAR(sum(a.data()), a.template cast<double>().sum(),
                64 * std::numeric_limits<S>::epsilon());
    std::vector<S> elsewhere(static_cast<std::size_t>(count) + 8);
    for (std::size_t shift = 0; shift < 8; ++shift) {
      std::copy_n(a.data(), count, elsewhere.data() + shift);
      EXPECT_EQ(sum(elsewhere.data() + shift), sum(a.data())) << count << ", " << shift;
    }
  }
}

TYPED_TEST(LanesTest, EntriesOfBlocks) {
  using S = TypeParam;
  Matrix<S> a(11, 9), result = Matrix<S>::Zero(13, 9);
  Random(5).fill_normal(a, 1);
  const auto from = a.block(2, 3, 9, 4);
  each_entry<S>(result.block(1, 2, 9, 4), [&](auto at) {
    auto to = result.block(1, 2, 9, 4);
    at.store(to, at(from) * S(at.column + 1));
  });
  Matrix<S> expected = Matrix<S>::Zero(13, 9);
  for (Index t = 0; t < 4; ++t) expected.block(1, 2, 9, 4).col(t) = from.col(t) * S(t + 1);
  EXPECT_EQ(result, expected);
}

TYPED_TEST(LanesTest, UsualCounts) {
  for (Index count : {0, 1, 31, 32, 33, 64, 65})
    with_usual_count(count, [&](Index f) { EXPECT_EQ(f, count); });
}

}  // namespace
}  // namespace ttt::test
