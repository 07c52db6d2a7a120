// What a run remembers of its steps, for the checkpoint.
#pragma once

#include <cstdint>

#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/train/step.h"

namespace sw {

/// Rows of training and router telemetry. When a series outgrows its bound, the older half loses
/// every second row: recent steps stay complete, older ones get sparser. The rows kept are a
/// function of the rows seen alone, so a resumed run holds what the unbroken one holds.
class TelemetryLog {
 public:
  static constexpr int64_t kMaxRows = 4096;
  static constexpr int64_t kMinRows = 64;
  static constexpr int64_t kMaxRouterBytes = int64_t{64} << 20;

  TelemetryLog() = default;
  /// Goes on from a checkpoint's.
  explicit TelemetryLog(Telemetry telemetry) : telemetry_(std::move(telemetry)) {}

  void add(int64_t step, const StepResult& result, double learning_rate, double tokens_per_second);
  const Telemetry& telemetry() const { return telemetry_; }

 private:
  void add_router_row(int64_t step, const std::vector<RouterStatistics>& layers);

  Telemetry telemetry_;
};

}  // namespace sw
