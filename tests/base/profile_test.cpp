#include "libswitch/base/profile.h"

#include <gtest/gtest.h>

#include <thread>

#include "libswitch/base/timer.h"

namespace sw {
namespace {

void spend(double seconds) {
  for (const Timer timer; timer.seconds() < seconds;) {
  }
}

const ProfileEntry* find(const std::vector<ProfileEntry>& entries, const std::string& name) {
  for (const ProfileEntry& entry : entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

TEST(Profile, AddsUpCallsTimeOperationsAndBytesByName) {
  Profile profile;
  {
    const ProfileRecording recording(profile);
    for (int i = 0; i < 3; ++i) {
      ProfileRegion region("product", 10, 4);
      region.add(1, 2);
      spend(1e-3);
    }
  }
  const auto entries = profile.entries();
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].name, "product");
  EXPECT_EQ(entries[0].calls, 3);
  EXPECT_EQ(entries[0].flops, 33);
  EXPECT_EQ(entries[0].bytes, 18);
  EXPECT_GE(entries[0].seconds, 3e-3);
}

TEST(Profile, RecordsNothingWithoutRecording) {
  Profile profile;
  { const ProfileRegion region("before"); }
  { const ProfileRecording recording(profile); }
  { const ProfileRegion region("after"); }
  EXPECT_TRUE(profile.entries().empty());
}

TEST(Profile, ScopesNameRegionsAndEndWithTheirBlock) {
  Profile profile;
  const ProfileRecording recording(profile);
  NotedScope noted = kNoScope;
  {
    const ProfileScope scope("ffn.wi");
    noted = profile_scope();
    const ProfileRegion region("forward");
  }
  { const ProfileRegion region("forward"); }
  { const ProfileRegion region(noted, "backward"); }
  const auto entries = profile.entries();
  EXPECT_EQ(entries.size(), 3u);
  EXPECT_NE(find(entries, "ffn.wi forward"), nullptr);
  EXPECT_NE(find(entries, "forward"), nullptr);
  EXPECT_NE(find(entries, "ffn.wi backward"), nullptr);
}

TEST(Profile, TimeOfInnerRegionsIsNotCountedTwice) {
  Profile profile;
  const Timer timer;
  {
    const ProfileRecording recording(profile);
    const ProfileRegion outer("outer");
    const ProfileRegion inner("inner");
    spend(5e-3);
  }
  const double elapsed = timer.seconds();
  const auto entries = profile.entries();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "inner");  // the longest first
  EXPECT_GE(entries[0].seconds, 5e-3);
  EXPECT_GE(entries[1].seconds, 0);
  EXPECT_LE(profile.seconds(), elapsed);
}

TEST(Profile, TheInnermostRecordingReceivesAndOtherThreadsDoNot) {
  Profile outer, inner;
  const ProfileRecording recording(outer);
  {
    const ProfileRecording nested(inner);
    const ProfileRegion region("nested");
  }
  std::thread([] { const ProfileRegion region("elsewhere"); }).join();
  EXPECT_EQ(inner.entries().size(), 1u);
  EXPECT_TRUE(outer.entries().empty());
}

}  // namespace
}  // namespace sw
