#include "libswitch/base/terminal.h"

#include <gtest/gtest.h>

namespace sw {
namespace {

TEST(ProgressBar, FillsUpToTwentyFourColumns) {
  EXPECT_EQ(progress_bar(0.5, "step 5", 80), "[############            ]  50% step 5");
  EXPECT_EQ(progress_bar(1, "step 5", 200), "[########################] 100% step 5");
}

TEST(ProgressBar, NeverWrapsOnATerminalOfAnyWidth) {
  const std::string text = "step 524288 loss 2.1843 412.3k tok/s eta 6d04h";
  for (int columns = 1; columns < 120; ++columns) {
    for (const double share : {-1.0, 0.0, 0.333, 1.0, 2.0}) {
      EXPECT_LE(progress_bar(share, text, columns).size(),
                static_cast<size_t>(std::max(columns - 1, 1)));
    }
  }
}

TEST(ProgressBar, GivesTheBarUpBeforeTheText) {
  EXPECT_EQ(progress_bar(0.5, "step 5 of 10", 36), "[#######        ]  50% step 5 of 10");
  EXPECT_EQ(progress_bar(0.5, "step 5 of 10", 24), " 50% step 5 of 10");
  EXPECT_EQ(progress_bar(0.5, "step 5 of 10", 12), " 50% step 5");
}

TEST(Terminal, HasEightyColumnsWhereNobodySaysOtherwise) { EXPECT_EQ(terminal_columns(-1), 80); }

}  // namespace
}  // namespace sw
