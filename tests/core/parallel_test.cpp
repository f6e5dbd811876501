#include "ttt/core/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace ttt {
namespace {

/// Runs the test body with `threads` threads, where the build has them.
template <class Body>
void with_threads([[maybe_unused]] int threads, Body&& body) {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  body();
  omp_set_num_threads(before);
#else
  body();
#endif
}

TEST(ParallelTest, KnowsItsThreads) {
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
  with_threads(3, [] { EXPECT_EQ(available_threads(), 3); });
#else
  EXPECT_EQ(available_threads(), 1);
#endif
}

TEST(ParallelTest, CallsEveryIndexOnce) {
  for (const int threads : {1, 2, 3})
    for (const Index count : {0, 1, 2, 7, 1000})
      with_threads(threads, [&] {
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
        parallel_for(count, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
        for (const auto& number : calls) EXPECT_EQ(number, 1);
      });
}

TEST(ParallelTest, CallsAtTheSameTimeHaveDifferentSlots) {
  for (const Index slots : {1, 2, 3})
    with_threads(4, [&] {
      std::vector<std::atomic<bool>> busy(static_cast<std::size_t>(slots));
      std::atomic<int> calls = 0, shared = 0, outside = 0;
      std::atomic<unsigned> used = 0;
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
      const unsigned all = (1U << slots) - 1;
#else
      const unsigned all = 1;
#endif
      // A busy machine may wake a thread late: the others wait for it, but not for ever.
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      parallel_for(40, slots, [&](Index, Index slot) {
        ++calls;
        if (slot < 0 || slot >= slots) {
          ++outside;
          return;
        }
        used |= 1U << slot;
        auto& mine = busy[static_cast<std::size_t>(slot)];
        if (mine.exchange(true)) ++shared;
        while (used != all && std::chrono::steady_clock::now() < deadline)
          std::this_thread::yield();
        mine = false;
      });
      EXPECT_EQ(calls, 40);
      EXPECT_EQ(shared, 0);
      EXPECT_EQ(outside, 0);
      EXPECT_EQ(used, all);
    });
}

TEST(ParallelTest, PassesAnExceptionOn) {
  for (const int threads : {1, 2, 3})
    with_threads(threads, [] {
      std::atomic<int> calls = 0;
      try {
        parallel_for(20, [&](Index i) {
          ++calls;
          if (i == 3 || i == 11) throw std::runtime_error("index " + std::to_string(i));
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_TRUE(std::set<std::string>({"index 3", "index 11"}).contains(error.what()))
            << error.what();
      }
      EXPECT_GE(calls, 4);
      // The next loop is not harmed.
      calls = 0;
      parallel_for(20, [&](Index) { ++calls; });
      EXPECT_EQ(calls, 20);
    });
}

TEST(ParallelTest, LoopsInsideLoopsAreSerial) {
  with_threads(3, [] {
    std::vector<std::atomic<int>> calls(12);
    std::atomic<int> failures = 0;
    parallel_for(3, [&](Index i) {
      const auto outer = std::this_thread::get_id();
#if defined(TTT_USE_OPENMP) && TTT_USE_OPENMP
      if (available_threads() != 1) ++failures;
#endif
      parallel_for(4, [&](Index j) {
        ++calls[static_cast<std::size_t>(4 * i + j)];
        if (std::this_thread::get_id() != outer) ++failures;
      });
    });
    for (const auto& number : calls) EXPECT_EQ(number, 1);
    EXPECT_EQ(failures, 0);
  });
}

TEST(ParallelTest, ASerialScopeKeepsItsThread) {
  with_threads(3, [] {
    const Index before = available_threads();
    {
      const SerialScope outer;
      { const SerialScope inner; }
      EXPECT_EQ(available_threads(), 1);
      const auto caller = std::this_thread::get_id();
      parallel_for(8, [&](Index) { EXPECT_EQ(std::this_thread::get_id(), caller); });
    }
    EXPECT_EQ(available_threads(), before);
  });
}

TEST(ParallelTest, BlocksCoverTheRangeAndDoNotDependOnThreads) {
  for (const Index count : {0, 1, 63, 64, 65, 200})
    for (const int threads : {1, 2, 3})
      with_threads(threads, [&] {
        std::vector<std::atomic<Index>> sizes(static_cast<std::size_t>(count));
        parallel_blocks(count, 64, [&](Index begin, Index size) {
          sizes[static_cast<std::size_t>(begin)] += size;
        });
        for (Index i = 0; i < count; ++i)
          EXPECT_EQ(sizes[static_cast<std::size_t>(i)],
                    i % 64 == 0 ? std::min<Index>(64, count - i) : 0);
      });
}

}  // namespace
}  // namespace ttt
