#include "libswitch/comm/trace.h"

#include <gtest/gtest.h>

#include <thread>

namespace sw {
namespace {

TEST(CommTrace, KeepsTheLatestCollectives) {
  CommTrace trace;
  EXPECT_EQ(trace.str(), "in no collective yet");
  EXPECT_TRUE(trace.events().empty());
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t ticket = trace.enter("expert", CommKind::all_to_all, i, i * 8);
    if (i < 999) trace.leave(ticket);
  }
  const std::vector<CommEvent> events = trace.events();
  ASSERT_EQ(std::ssize(events), CommTrace::kEvents);
  EXPECT_EQ(events.front().sequence, 1000 - CommTrace::kEvents);
  EXPECT_EQ(events.back().str(), "all_to_all #999 of group expert");
  EXPECT_EQ(events.back().bytes, 999 * 8);
  EXPECT_EQ(events.back().left, -1);
  EXPECT_GE(events.front().left, events.front().entered);
  EXPECT_EQ(trace.str(), "has begun all_to_all #999 of group expert");
  EXPECT_FALSE(trace.waiting());
  trace.set_waiting(999);
  ASSERT_TRUE(trace.waiting());
  EXPECT_EQ(trace.str(), "waiting in all_to_all #999 of group expert since 0 s");
}

TEST(CommTrace, ANameTooLongIsCut) {
  CommTrace trace;
  trace.enter("a name of more than sixteen characters", CommKind::barrier, 0, 0);
  EXPECT_EQ(trace.events().at(0).group, "a name of more t");
}

TEST(CommTrace, AReaderNeverSeesHalfAnEntry) {
  CommTrace trace;
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    // Every field of entry i tells i.
    for (int64_t i = 0; !stop; ++i) {
      trace.leave(trace.enter(std::to_string(i % 100), CommKind::barrier, i, i * 8));
    }
  });
  int64_t seen = 0;
  while (seen < 100'000) {
    for (const CommEvent& event : trace.events()) {
      ASSERT_EQ(event.bytes, event.sequence * 8);
      ASSERT_EQ(event.group, std::to_string(event.sequence % 100));
      ++seen;
    }
  }
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace sw
