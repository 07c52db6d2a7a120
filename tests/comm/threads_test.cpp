// A world of threads ends when a rank fails or a watchdog gives up, and says why.
#include "libswitch/comm/local/threads.h"

#include <gtest/gtest.h>

#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/comm/abort.h"

namespace sw {
namespace {

TEST(Threads, AnErrorOfOneRankEndsTheOthersAndIsRethrown) {
  std::atomic<int> ended{0};
  try {
    run_ranks(4, [&](World& world) {
      if (world.rank() == 2) fail(ErrorKind::io, "disk full");
      try {
        world.group().barrier();
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::hang);
        EXPECT_NE(std::string(error.what()).find("barrier #0 of group world: rank 2 failed: disk"),
                  std::string::npos)
            << error.what();
        ++ended;
        throw;
      }
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::io);
    EXPECT_STREQ(error.what(), "disk full");
  }
  EXPECT_EQ(ended, 3);
}

TEST(Threads, AWatchdogEndsAWaitThatIsInVain) {
  const auto stuck = [](World& world) {
    if (world.rank() == 0) return;  // leaves the others waiting
    std::thread watchdog([&] {
      while (!world.trace().waiting()) std::this_thread::yield();
      EXPECT_NE(world.trace().str().find("waiting in all_reduce #0 of group world since 0 s"),
                std::string::npos)
          << world.trace().str();
      process_abort().set("no progress for 1 s");
    });
    struct Join {
      std::thread& thread;
      ~Join() { thread.join(); }
    } join{watchdog};
    Tensor x = Tensor::zeros({4}, DType::f32);
    world.group().all_reduce(x);
  };
  try {
    run_ranks(2, stuck);
    FAIL() << "no error";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.kind(), ErrorKind::hang);
    EXPECT_NE(text.find("rank 1 ("), std::string::npos) << text;
    EXPECT_NE(text.find("all_reduce #0 of group world: no progress for 1 s"), std::string::npos)
        << text;
  }
  process_abort().clear();
}

TEST(Threads, ARankMayLeaveAPendingReductionWhenItFails) {
  EXPECT_THROW(run_ranks(4,
                         [](World& world) {
                           Tensor x = Tensor::zeros({1000}, DType::f32);
                           auto pending = world.group().start_all_reduce({x});
                           if (world.rank() == 1) fail(ErrorKind::io, "disk full");
                           pending->finish();
                         }),
               Error);
}

TEST(Threads, RanksKnowTheirPlace) {
  const int before = num_threads();
  std::atomic<int64_t> sum{0};
  run_ranks(3, [&](World& world) {
    sum += world.rank() * 10 + world.size();
    EXPECT_EQ(world.local_rank(), world.rank());
    EXPECT_EQ(world.local_size(), 3);
    EXPECT_FALSE(world.host().empty());
    EXPECT_EQ(world.group().world_ranks(), (std::vector<int64_t>{0, 1, 2}));
  });
  EXPECT_EQ(sum, 39);
  EXPECT_EQ(num_threads(), before);
}

}  // namespace
}  // namespace sw
