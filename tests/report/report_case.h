// What the tests of router reports share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/options_help.h"
#include "libswitch/report/drawing.h"
#include "libswitch/report/router_report.h"
#include "tests/io/checkpoint_samples.h"

namespace sw::test {

using Folder = TemporaryFolder;

inline RouterReport report_of(const RouterTelemetry& telemetry, const char* name,
                              int64_t samples = kReportSamples) {
  RouterReport report = router_report(telemetry, samples);
  report.checkpoint = name;
  report.digest = std::string(32, 'a');
  return report;
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::string line;
  for (const char c : text) {
    if (c == '\n') {
      lines.push_back(line);
      line.clear();
    } else {
      line += c;
    }
  }
  return lines;
}

inline void expect_fits(const std::string& text) {
  for (const std::string& line : lines_of(text)) {
    EXPECT_LE(display_width(line), kReportColumns) << line;
  }
}

}  // namespace sw::test
