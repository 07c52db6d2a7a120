#include "libswitch/report/router_condition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/report/report_case.h"
#include "tests/report/router_report_samples.h"

namespace sw {
namespace {

using test::error_of;
using test::skewed_telemetry;
using ::testing::HasSubstr;

TEST(RouterCondition, JudgesFigures) {
  const LayerReport s = router_report(skewed_telemetry(), 3).layers[1];
  const auto holds = [&](const char* text) { return RouterCondition(text).holds(s); };
  EXPECT_TRUE(holds("drop>5% or dead>0"));
  EXPECT_TRUE(holds("drop >= 0.1"));
  EXPECT_FALSE(holds("drop > 10%"));
  EXPECT_TRUE(holds("dead>=25%"));
  EXPECT_FALSE(holds("dead>25%"));
  EXPECT_TRUE(holds("max/mean>2.7 and max_over_mean<2.9"));
  EXPECT_TRUE(holds("experts==4 && tokens = 3000"));
  EXPECT_TRUE(holds("confidence<0.8||aux>5"));
  EXPECT_TRUE(holds("entropy<1 and z!=2"));
  // `and` binds tighter.
  EXPECT_TRUE(holds("dead>0 or drop>1 and drop>1"));
  EXPECT_FALSE(holds("(dead>0 or drop>1) and drop>1"));
  EXPECT_FALSE(holds("drift>0"));
  const LayerDrift drift{"x", 0.25, 0.5, 0.75};
  EXPECT_TRUE(RouterCondition("drift>20%").holds(s, &drift));
  EXPECT_TRUE(RouterCondition("cosine<0.6 and saturation>70%").holds(s, &drift));
  EXPECT_TRUE(holds("cv>1 and gini>0.5 and starving==0 and min==0 and full==75%"));
  EXPECT_FALSE(holds("same>0"));
}

TEST(RouterCondition, SaysWhatAFigureNeeds) {
  const auto message = [](const char* text, bool two, bool data) {
    return std::string(error_of([&] { RouterCondition(text).check_known(two, data); }).what());
  };
  EXPECT_THAT(message("dead>0 and (drift>1)", false, true), HasSubstr("drift needs two checkp"));
  EXPECT_THAT(message("same<1", true, false), HasSubstr("same needs --data"));
  EXPECT_THAT(message("saturation<1", true, false), HasSubstr("two checkpoints and --data"));
  RouterCondition("drift>0 or saturation<1 or same<1").check_known(true, true);
  RouterCondition("dead>0").check_known(false, false);
}

TEST(RouterCondition, SaysWhereItIsWrong) {
  const auto message = [](const std::string& text) {
    const Error error = error_of([&] { RouterCondition condition(text); });
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    return std::string(error.what());
  };
  EXPECT_THAT(message("ded>0"), HasSubstr("did you mean 'dead'"));
  EXPECT_THAT(message("drop>"), HasSubstr("expected a number at its end"));
  EXPECT_THAT(message("drop 5"), HasSubstr("expected > >= < <= == or != at '5' (character 6)"));
  EXPECT_THAT(message("(drop>5"), HasSubstr("expected ')'"));
  EXPECT_THAT(message("drop>5 dead>0"), HasSubstr("'and', 'or' or the end at 'dead>0'"));
  EXPECT_THAT(message(""), HasSubstr("a figure such as"));
  EXPECT_THAT(message("drop>inf"), HasSubstr("a number"));
  EXPECT_THAT(message("drop>1 or"), HasSubstr("its end"));
  EXPECT_THAT(message(std::string(100000, '(')), HasSubstr("fewer parentheses"));
}

}  // namespace
}  // namespace sw
