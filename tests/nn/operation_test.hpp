/// @file
/// What the tests of single operations share: random tensors, conversions and thread counts.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "support/gradient_check.hpp"
#include "support/tolerances.hpp"
#include "ttt/core/fields.hpp"
#include "ttt/core/parallel.hpp"
#include "ttt/core/random.hpp"
#include "ttt/core/types.hpp"

namespace ttt::test {

using Scalars = ::testing::Types<float, double>;

/// Lengths around the borders of one and two blocks of tokens, and no token at all.
inline const std::vector<Index> lengths = {
    0, 1, 3, token_block, token_block + 1, 2 * token_block + 5};

template <class S>
Matrix<S> random_matrix(Index rows, Index cols, std::uint64_t seed) {
  Matrix<S> matrix(rows, cols);
  Random random(seed);
  random.fill_normal(matrix, 1);
  return matrix;
}

template <class S>
Vector<S> random_vector(Index size, std::uint64_t seed) {
  return random_matrix<S>(size, 1, seed);
}

inline std::vector<std::int32_t> random_ids(Index count, Index vocabulary, std::uint64_t seed) {
  std::vector<std::int32_t> ids;
  Random random(seed);
  for (Index t = 0; t < count; ++t)
    ids.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
  return ids;
}

/// The results of one operation, named by their place.
template <class S>
struct Results {
  std::vector<Matrix<S>> tensors;
  static auto fields(auto& self) { return std::tuple(field("", self.tensors)); }
};

inline void expect_close(const Results<float>& actual, const Results<double>& expected,
                         double tolerance) {
  for_each_tensor(
      [&](const TensorInfo& info, const auto& a, const auto& b) {
        EXPECT_LE(relative_error(a, b), tolerance) << "result " << info.name;
      },
      actual, expected);
}

/// Results of `make()`, a struct with fields or a tensor, must have the same bits with 1, 2 and 3
/// threads. (A serial build runs it three times alike.)
template <class Make>
void expect_same_bits_for_any_threads(Make&& make) {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  const int threads_before = omp_get_max_threads();
  const auto set_threads = [](int threads) { omp_set_num_threads(threads); };
#else
  const int threads_before = 1;
  const auto set_threads = [](int) {};
#endif
  set_threads(1);
  const auto serial = make();
  for (const int threads : {2, 3}) {
    set_threads(threads);
    const auto parallel = make();
    for_each_tensor(
        [&](const TensorInfo& info, const auto& a, const auto& b) {
          EXPECT_TRUE(a == b) << info.name << " differs with " << threads << " threads";
        },
        serial, parallel);
  }
  set_threads(threads_before);
}

}  // namespace ttt::test
