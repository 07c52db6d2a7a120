#include "libswitch/base/units.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace sw {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

TEST(Units, IntegersTakeSuffixesAndExponentsExactly) {
  EXPECT_EQ(parse_integer("0").value, 0);
  EXPECT_EQ(parse_integer("-17").value, -17);
  EXPECT_EQ(parse_integer("+17").value, 17);
  EXPECT_EQ(parse_integer("64K").value, 64000);
  EXPECT_EQ(parse_integer("64k").value, 64000);
  EXPECT_EQ(parse_integer("64Ki").value, 65536);
  EXPECT_EQ(parse_integer("1.5M").value, 1500000);
  EXPECT_EQ(parse_integer("1.5Mi").value, 1572864);
  EXPECT_EQ(parse_integer("2G").value, 2000000000);
  EXPECT_EQ(parse_integer("2Ti").value, int64_t{2} << 40);
  EXPECT_EQ(parse_integer("1e6").value, 1000000);
  EXPECT_EQ(parse_integer("25e-1K").value, 2500);
  EXPECT_EQ(parse_integer("1.000").value, 1);
  EXPECT_EQ(parse_integer("007").value, 7);
  EXPECT_EQ(parse_integer("0e99999").value, 0);
  EXPECT_EQ(parse_integer("9223372036854775807").value, kMax);
  EXPECT_EQ(parse_integer("-9223372036854775808").value, kMin);
  EXPECT_EQ(parse_integer("-8796093022208Mi").value, kMin);
  EXPECT_EQ(parse_integer("0.001K").value, 1);
}

TEST(Units, WhatIsNotAnIntegerIsToldApart) {
  for (const char* text :
       {"",    "x",   "-",     "+",    ".",  "K",    "1KB", "1 K", " 1", "1 ",    "1e",
        "1e+", "--1", "1.2.3", "0x10", "1i", "1Kii", "inf", "nan", "1m", "1_000", "e5"}) {
    EXPECT_EQ(parse_integer(text).problem, UnitProblem::malformed) << text;
  }
  for (const char* text : {"1.5", "0.1", "1e-1", "1.0005K", "0.0009765625K"}) {
    EXPECT_EQ(parse_integer(text).problem, UnitProblem::fraction) << text;
  }
  for (const char* text : {"9223372036854775808", "-9223372036854775809", "9223372036854775807K",
                           "8796093022208Mi", "1e19", "1e99999",
                           "99999999999999999999999999999999999"
                           "99999999999999999999",
                           "170141183460469231731687303715884105728T"}) {
    EXPECT_EQ(parse_integer(text).problem, UnitProblem::overflow) << text;
  }
}

TEST(Units, NumbersAreFiniteDecimals) {
  EXPECT_EQ(parse_number("0.1").value, 0.1);
  EXPECT_EQ(parse_number("-1e-3").value, -1e-3);
  EXPECT_EQ(parse_number("+2").value, 2.0);
  EXPECT_EQ(parse_number("2.5K").value, 2500.0);
  EXPECT_EQ(parse_number("1Gi").value, 1073741824.0);
  for (const char* text :
       {"", "x", "inf", "-inf", "nan", "0x1p3", "1,5", "1.5 ", "+-1", "++1", "+"}) {
    EXPECT_EQ(parse_number(text).problem, UnitProblem::malformed) << text;
  }
  EXPECT_EQ(parse_number("1e400").problem, UnitProblem::overflow);
  EXPECT_EQ(parse_number("1e308K").problem, UnitProblem::overflow);
}

TEST(Units, DurationsAddTheirUnits) {
  EXPECT_EQ(parse_duration("90").value, 90);
  EXPECT_EQ(parse_duration("0").value, 0);
  EXPECT_EQ(parse_duration("1.5").value, 1.5);
  EXPECT_EQ(parse_duration("1h30m").value, 5400);
  EXPECT_EQ(parse_duration("2d").value, 172800);
  EXPECT_EQ(parse_duration("1d1h1m1s1ms").value, 90061.001);
  EXPECT_EQ(parse_duration("1.5h").value, 5400);
  EXPECT_EQ(parse_duration("250ms").value, 0.25);
  for (const char* text : {"", "h", "1x", "1m1h", "1h1h", "1h30", "-1h", "+1h", "1h 30m", "1H",
                           "..", "1e3s", "1..5h", "inf"}) {
    EXPECT_EQ(parse_duration(text).problem, UnitProblem::malformed) << text;
  }
  EXPECT_EQ(parse_duration(std::string(400, '9') + "s").problem, UnitProblem::overflow);
}

TEST(Units, DurationsAreWrittenShortAndReadBackEqual) {
  EXPECT_EQ(format_duration(0), "0s");
  EXPECT_EQ(format_duration(5400), "1h30m");
  EXPECT_EQ(format_duration(86400), "1d");
  EXPECT_EQ(format_duration(1.25), "1s250ms");
  EXPECT_EQ(format_duration(1e-5), "0.00001s");
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const double seconds = i % 2 ? static_cast<double>(random() % 1000000000) / 1000
                                 : std::ldexp(static_cast<double>(random() >> 11),
                                              static_cast<int>(random() % 200) - 150);
    EXPECT_EQ(parse_duration(format_duration(seconds)).value, seconds) << format_duration(seconds);
  }
}

}  // namespace
}  // namespace sw
