#include "libswitch/comm/agree.h"

#include <gmock/gmock.h>

#include "libswitch/comm/local/threads.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string error_of(const std::function<void()>& fn, ErrorKind kind) {
  const std::optional<Failure> failure = failure_of(fn);
  EXPECT_TRUE(failure.has_value());
  if (!failure) return {};
  EXPECT_EQ(static_cast<int>(failure->kind), static_cast<int>(kind));
  return failure->message;
}

TEST(Agreement, GoesOnWhenAllAreWell) {
  run_ranks(3, [](World& world) {
    int ran = 0;
    agree_on(world.group(), [&] { ++ran; });
    EXPECT_EQ(ran, 1);
  });
}

TEST(Agreement, FailsOnAllRanksWithTheErrorOfTheFirst) {
  run_ranks(4, [](World& world) {
    const auto message = error_of(
        [&] {
          agree_on(world.group(), [&] {
            if (world.rank() == 1) fail(ErrorKind::usage, "first");
            if (world.rank() == 3) fail(ErrorKind::io, "second");
          });
        },
        ErrorKind::usage);
    EXPECT_THAT(message, StartsWith("rank 1 ("));
    EXPECT_THAT(message, HasSubstr("): first"));
    world.group().barrier();  // nobody is a collective ahead
  });
}

TEST(Agreement, TakesForeignExceptionsForMistakesOfOurs) {
  run_ranks(2, [](World& world) {
    const auto message = error_of(
        [&] {
          agree_on(world.group(), [&] {
            if (world.rank() == 1) throw std::runtime_error("foreign");
          });
        },
        ErrorKind::internal);
    EXPECT_THAT(message, HasSubstr("foreign"));
  });
}

TEST(Agreement, OfOneRankKeepsTheMessage) {
  EXPECT_EQ(error_of([] { agree_on(single_group(), [] { fail(ErrorKind::io, "as it was"); }); },
                     ErrorKind::io),
            "as it was");
}

}  // namespace
}  // namespace sw
