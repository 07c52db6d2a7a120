// TensorBoard's event files: TFRecords of Event protocol buffers, written by hand.
//
// A record is the payload's length (u64), a masked CRC-32C of these eight bytes, the payload, and a
// masked CRC-32C of it (tensorflow/core/lib/io/record_writer.h). Payloads are messages of
// tensorflow/core/util/event.proto and framework/summary.proto.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sw {

/// "loss" and its value.
using EventScalar = std::pair<std::string, double>;

/// HistogramProto: counts of values in (limits[i-1], limits[i]].
struct EventHistogram {
  double min = 0, max = 0, number = 0, sum = 0, sum_of_squares = 0;
  std::vector<double> limits, counts;
};

/// Of values of at least 0, in buckets that are a tenth wide relative to where they lie; buckets
/// outside of the values are left out.
EventHistogram event_histogram(std::span<const double> values);

/// Payloads. `time`: seconds since 1970.
std::string version_event(double time);
/// From here on steps from `step` on are the run's; a reader forgets what it read of them before.
std::string session_start_event(double time, int64_t step);
std::string scalars_event(double time, int64_t step, std::span<const EventScalar> scalars);
std::string histogram_event(double time, int64_t step, const std::string& tag,
                            const EventHistogram& histogram);

/// A payload as it stands in the file.
std::string event_record(std::string_view payload);

}  // namespace sw
