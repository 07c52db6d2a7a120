#include "libswitch/train/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <mutex>
#include <sstream>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/stack_trace.h"
#include "libswitch/comm/local/threads.h"

namespace sw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class WatchdogTest : public ::testing::Test {
 protected:
  WatchdogTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("sw_watchdog_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~WatchdogTest() override {
    std::filesystem::remove_all(folder_);
    process_abort().clear();
  }

  WatchdogConfig config_of(World& world, double limit) {
    WatchdogConfig config;
    config.rank = world.rank();
    config.ranks = world.size();
    config.host = "node" + std::to_string(world.rank());
    config.run = folder_;
    config.limit = limit;
    config.trace = &world.trace();
    config.abort = &process_abort();
    config.report = [this](const std::string& text) {
      const std::lock_guard lock(mutex_);
      reports_.push_back(text);
    };
    config.end_process = [this](int code) { exit_code_ = code; };
    return config;
  }

  // Runs four ranks until one of them throws; its message.
  std::string error_of(const std::function<void(World&)>& fn) {
    try {
      run_ranks(4, fn);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::hang) << error.what();
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
  std::mutex mutex_;
  std::vector<std::string> reports_;
  std::atomic<int> exit_code_{-1};
};

void wait_until(const std::function<bool()>& holds) {
  while (!holds()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

void train_a_little(World& world, Watchdog& watchdog, int64_t steps) {
  for (int64_t step = 1; step <= steps; ++step) {
    watchdog.announce(TrainPhase::step, step);
    world.group().barrier();
    watchdog.took(TrainPhase::step, 0.01);
  }
}

TEST_F(WatchdogTest, NamesTheRankThatEntersNoCollectiveAndEndsAll) {
  const std::string error = error_of([&](World& world) {
    WatchdogConfig config = config_of(world, 1);
    config.leave_seconds = 0.3;
    Watchdog watchdog(std::move(config));
    train_a_little(world, watchdog, 3);
    if (world.rank() == 2) {
      wait_until([&] { return exit_code_ >= 0; });  // computes until its process would be ended
      return;
    }
    world.group().all_reduce_value(1, ReduceOp::sum);
  });
  EXPECT_THAT(error, HasSubstr("rank 2 (node2) in no collective (step) for"));
  EXPECT_THAT(error, Not(HasSubstr("rank 1 (node1) ")));
  EXPECT_EQ(exit_code_, 82);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(
      reports_[0],
      AllOf(HasSubstr("rank  host"), HasSubstr("waits in all_gather #3 of group world for 1 s"),
            HasSubstr("in no collective (step)"), HasSubstr("last collective barrier #2")));
  // A thread that waits, and the one that computes, tell where they are.
  for (const int rank : {0, 1, 2, 3}) {
    const std::string stack = read_file(folder_ / ("stack-rank-" + std::to_string(rank) + ".txt"));
    EXPECT_THAT(stack, AllOf(HasSubstr("rank " + std::to_string(rank) + " on node"),
                             HasSubstr("step 3"), HasSubstr("#3 ")));
  }
}

TEST_F(WatchdogTest, ARankThatGivesNoSignOfLifeIsSilent) {
  const std::string error = error_of([&](World& world) {
    if (world.rank() == 1) {
      {
        Watchdog watchdog(config_of(world, 1));
        world.group().barrier();
      }  // no heartbeat from here on, as in a stopped process
      wait_until([] { return process_abort().is_set(); });
      return;
    }
    Watchdog watchdog(config_of(world, 1));
    watchdog.announce(TrainPhase::step, 1);
    world.group().barrier();
    world.group().barrier();
  });
  EXPECT_THAT(error, HasSubstr("rank 1 (node1) silent for"));
  ASSERT_EQ(reports_.size(), 1u);
}

TEST_F(WatchdogTest, ARankWithoutDataIsNamedThoughAllRanksTalk) {
  const std::string error = error_of([&](World& world) {
    Watchdog watchdog(config_of(world, 1));
    watchdog.announce(world.rank() == 3 ? TrainPhase::data : TrainPhase::data_of_others, 7);
    for (;;) {
      world.group().all_reduce_value(0, ReduceOp::max);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  EXPECT_THAT(error, HasSubstr("rank 3 (node3) has no data for"));
}

TEST_F(WatchdogTest, LetsSlowWorkGoOn) {
  run_ranks(4, [&](World& world) {
    Watchdog watchdog(config_of(world, 1.5));
    for (int64_t step = 1; step <= 4; ++step) {
      watchdog.announce(TrainPhase::step, step);
      if (world.rank() == step % 4) std::this_thread::sleep_for(std::chrono::milliseconds(700));
      world.group().barrier();
    }
    // Longer than the limit, but nobody waits for anybody.
    std::this_thread::sleep_for(std::chrono::milliseconds(1800));
  });
  EXPECT_TRUE(reports_.empty());
  EXPECT_FALSE(process_abort().is_set());
}

TEST_F(WatchdogTest, WithALimitOfNeverOrOneRankThereIsNone) {
  run_ranks(2, [&](World& world) { Watchdog watchdog(config_of(world, 0)); });
  run_ranks(1, [&](World& world) { Watchdog watchdog(config_of(world, 1)); });
  EXPECT_FALSE(std::filesystem::exists(folder_ / ".ranks"));
}

TEST_F(WatchdogTest, TheBoardIsReadByLineAndSurvivesTornRecords) {
  const RankBoard first(folder_, 0, 3), third(folder_, 2, 3);
  RankState state;
  state.host = std::string(300, 'h');  // longer than the record has room for
  state.step = 12;
  state.phase = TrainPhase::data_of_others;
  state.collective = "all_to_all #1234 of group expert";
  first.write(state);
  third.write(state);
  std::vector<RankState> read = first.read();
  ASSERT_EQ(read.size(), 3u);
  EXPECT_EQ(read[2].step, 12);
  EXPECT_EQ(read[2].phase, TrainPhase::data_of_others);
  EXPECT_EQ(read[2].collective, state.collective);
  EXPECT_EQ(read[1].heartbeat, 0);
  EXPECT_EQ(describe_state(read[1], "", 1), "never reported");
  std::filesystem::resize_file(folder_ / ".ranks", 2 * RankBoard::kRecordBytes + 17);
  read = first.read();
  EXPECT_GT(read[0].heartbeat, 0);
  EXPECT_EQ(read[2].heartbeat, 0);
}

TEST(StackTraceTest, NamesTheFunctionsOfAThread) {
  std::atomic<bool> done{false};
  std::thread thread([&] { wait_until([&] { return done.load(); }); });
  const std::string stack = stack_of(thread.native_handle());
  done = true;
  thread.join();
  EXPECT_THAT(stack, AllOf(HasSubstr("#0 0x"), HasSubstr("libc")));
}

}  // namespace
}  // namespace sw
