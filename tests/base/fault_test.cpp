#include "libswitch/base/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <set>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using ::testing::HasSubstr;

constexpr auto kAny = FaultSpec::kAny;

std::string usage_of(const std::string& text, int64_t ranks = 4) {
  try {
    parse_faults(text, ranks);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    return error.what();
  }
  return "no error";
}

TEST(FaultTest, ReadsRankStepKindAndSite) {
  const auto specs = parse_faults("2:7:kill,*:3:nan:backward,0:*:enospc:ckpt.fsync", 4);
  ASSERT_EQ(specs.size(), 3u);
  EXPECT_EQ(specs[0].rank, 2);
  EXPECT_EQ(specs[0].step, 7);
  EXPECT_EQ(specs[0].kind, FaultKind::kill);
  EXPECT_EQ(specs[0].site, FaultSite::step);
  EXPECT_EQ(specs[1].rank, kAny);
  EXPECT_EQ(specs[1].site, FaultSite::backward);
  EXPECT_EQ(specs[2].step, kAny);
  EXPECT_EQ(specs[2].site, FaultSite::ckpt_fsync);
  EXPECT_EQ(parse_faults("0:1:eio", 1)[0].site, FaultSite::ckpt_write);
}

TEST(FaultTest, MistakesSayWhatIsExpected) {
  EXPECT_THAT(usage_of("kill"), HasSubstr("expected RANK:STEP:KIND[:SITE]"));
  EXPECT_THAT(usage_of("x:1:kill"), HasSubstr("rank 'x' is neither a number nor *"));
  EXPECT_THAT(usage_of("0:-1:kill"), HasSubstr("step '-1'"));
  EXPECT_THAT(usage_of("0:1:kil"), HasSubstr("unknown kind 'kil'; did you mean 'kill'?"));
  EXPECT_THAT(usage_of("0:1:kill:ckpt.wirte"), HasSubstr("did you mean 'ckpt.write'?"));
  EXPECT_THAT(usage_of("4:1:kill"), HasSubstr("rank 4 of a job of 4 ranks"));
  EXPECT_THAT(usage_of("0:1:nan:eval"),
              HasSubstr("nan cannot happen at eval; expected one of step, backward"));
  EXPECT_THAT(usage_of("random:x:kill"), HasSubstr("the seed 'x' is no number"));
  EXPECT_THAT(usage_of(""), HasSubstr("expected RANK"));
}

TEST(FaultTest, ComesAtItsRankStepAndSiteOnly) {
  FaultPlan plan(parse_faults("1:3:nan", 2), 1), other(parse_faults("1:3:nan", 2), 0);
  for (int64_t step = 1; step <= 5; ++step) {
    plan.set_step(step);
    other.set_step(step);
    EXPECT_EQ(plan.visit(FaultSite::backward), FaultEffect::none);
    EXPECT_EQ(plan.visit(FaultSite::step), step == 3 ? FaultEffect::nan : FaultEffect::none);
    EXPECT_EQ(other.visit(FaultSite::step), FaultEffect::none);
  }
  EXPECT_EQ(plan.visit(FaultSite::step, 3), FaultEffect::nan);
}

TEST(FaultTest, ABitFlipsOnceAndSystemCallsFailAtEveryVisit) {
  FaultPlan plan(parse_faults("0:2:bitflip-weight,0:2:enospc", 1), 0);
  plan.set_step(2);
  EXPECT_EQ(plan.visit(FaultSite::step), FaultEffect::bitflip_weight);
  EXPECT_EQ(plan.visit(FaultSite::step), FaultEffect::none);
  EXPECT_EQ(fault_errno(plan.visit(FaultSite::ckpt_write)), ENOSPC);
  EXPECT_EQ(fault_errno(plan.visit(FaultSite::ckpt_write)), ENOSPC);
  EXPECT_EQ(fault_errno(plan.visit(FaultSite::ckpt_fsync)), 0);
}

TEST(FaultTest, ASlowRankStaysSlow) {
  FaultPlan plan(parse_faults("0:3:slow-x2", 1), 0);
  plan.set_step(2);
  EXPECT_FALSE(plan.slow());
  plan.set_step(3);
  EXPECT_TRUE(plan.slow());
  plan.set_step(40);
  EXPECT_TRUE(plan.slow());
}

TEST(FaultTest, ARandomFaultFollowsFromItsSeedAndReachesEveryRankAndSite) {
  std::set<int64_t> ranks;
  std::set<FaultSite> sites;
  for (int seed = 0; seed < 200; ++seed) {
    const std::string text = "random:" + std::to_string(seed) + ":kill";
    const FaultSpec a = parse_faults(text, 4)[0], b = parse_faults(text, 4)[0];
    EXPECT_EQ(a.rank, b.rank);
    EXPECT_EQ(a.site, b.site);
    EXPECT_EQ(a.first_step, b.first_step);
    EXPECT_EQ(a.visit, b.visit);
    ranks.insert(a.rank);
    sites.insert(a.site);
  }
  EXPECT_EQ(ranks, (std::set<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(sites.size(), 9u);
}

TEST(FaultTest, ARandomFaultComesOnceWithinAFewStepsOfTheStart) {
  for (int seed = 0; seed < 20; ++seed) {
    FaultPlan plan(parse_faults("random:" + std::to_string(seed) + ":nan:step", 1), 0);
    int came = 0;
    for (int64_t step = 100; step < 120; ++step) {
      plan.set_step(step);
      if (plan.visit(FaultSite::step) == FaultEffect::nan) ++came;
    }
    EXPECT_EQ(came, 1) << seed;
  }
}

TEST(FaultTest, ARandomFaultComesElsewhereWhenItsSiteIsNotReached) {
  for (int seed = 0; seed < 20; ++seed) {
    FaultPlan plan(parse_faults("random:" + std::to_string(seed) + ":nan", 1), 0);
    int came = 0;
    for (int64_t step = 1; step < 20; ++step) {
      plan.set_step(step);
      if (plan.visit(FaultSite::backward) == FaultEffect::nan) ++came;
      EXPECT_EQ(plan.visit(FaultSite::eval), FaultEffect::none);  // no site of that kind
    }
    EXPECT_EQ(came, 1) << seed;
  }
}

TEST(FaultTest, KillsTheProcess) {
  EXPECT_EXIT(
      {
        FaultPlan plan(parse_faults("0:1:kill", 1), 0);
        plan.set_step(1);
        plan.visit(FaultSite::step);
      },
      ::testing::KilledBySignal(SIGKILL), "SW_FAULT: kill at step of step 1");
  EXPECT_EXIT(
      {
        FaultPlan plan(parse_faults("0:1:segv", 1), 0);
        plan.set_step(1);
        plan.visit(FaultSite::step);
      },
      ::testing::KilledBySignal(SIGSEGV), "segv");
}

TEST(FaultTest, TheVariableDecidesWhetherThereAreFaults) {
  ::unsetenv("SW_FAULT");
  configure_faults(0, 1);
  EXPECT_EQ(active_faults(), nullptr);
  EXPECT_EQ(fault_at(FaultSite::step), FaultEffect::none);
  ::setenv("SW_FAULT", "0:1:nan", 1);
  configure_faults(0, 1);
  set_fault_step(1);
  EXPECT_EQ(fault_at(FaultSite::step), FaultEffect::nan);
  ::unsetenv("SW_FAULT");
  configure_faults(0, 1);
  EXPECT_EQ(active_faults(), nullptr);
}

}  // namespace
}  // namespace sw
