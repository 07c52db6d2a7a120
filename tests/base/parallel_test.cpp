#include "libswitch/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace sw {
namespace {

class Parallel : public ::testing::TestWithParam<int> {
 protected:
  Parallel() : before_(num_threads()) { set_threads(GetParam()); }
  ~Parallel() override { set_threads(before_); }

 private:
  int before_;
};
INSTANTIATE_TEST_SUITE_P(Threads, Parallel, ::testing::Values(1, 2, 7));

TEST_P(Parallel, EveryElementIsVisitedOnceInChunksOfTheGrain) {
  for (const int64_t n : {0, 1, 2, 63, 64, 65, 1000}) {
    for (const int64_t grain : {0, 1, 7, 64, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        EXPECT_EQ(begin % std::max<int64_t>(grain, 1), 0);
        EXPECT_LE(end - begin, std::max<int64_t>(grain, 1));
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      });
      for (const auto& count : visits) EXPECT_EQ(count, 1);
    }
  }
}

TEST_P(Parallel, WhatALoopWroteIsSeenByTheNext) {
  std::vector<int64_t> values(101);
  for (int64_t round = 0; round < 5000; ++round) {
    parallel_for(101, 10, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        ASSERT_EQ(values[static_cast<size_t>(i)], round);
        ++values[static_cast<size_t>(i)];
      }
    });
  }
  for (const int64_t value : values) EXPECT_EQ(value, 5000);
}

TEST_P(Parallel, AnExceptionReachesTheCallerAndTheNextLoopRuns) {
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(parallel_for(100, 1,
                              [](int64_t i, int64_t) {
                                if (i % 30 == 7) throw std::runtime_error("chunk");
                              }),
                 std::runtime_error);
    std::atomic<int> chunks{0};
    parallel_for(100, 1, [&](int64_t, int64_t) { ++chunks; });
    EXPECT_EQ(chunks, 100);
  }
}

TEST_P(Parallel, NestedLoopsRunInTheirChunksThread) {
  std::atomic<int> inner{0};
  parallel_for(20, 1, [&](int64_t, int64_t) {
    const auto self = std::this_thread::get_id();
    parallel_for(20, 1, [&](int64_t, int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), self);
      ++inner;
    });
  });
  EXPECT_EQ(inner, 400);
}

TEST_P(Parallel, SeveralThreadsMayRunLoopsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        parallel_for(50, 3, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, int64_t{3} * 500 * 49 * 25);
}

TEST_P(Parallel, ASerialScopeKeepsLoopsInTheirThread) {
  const SerialScope serial;
  const auto self = std::this_thread::get_id();
  parallel_for(50, 1, [&](int64_t, int64_t) { EXPECT_EQ(std::this_thread::get_id(), self); });
}

}  // namespace
}  // namespace sw
