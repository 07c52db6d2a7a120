#include "libswitch/train/event_records.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "libswitch/base/crc32c.h"

namespace sw {
namespace {

// Writes fields of a protocol buffer.
class Message {
 public:
  void integer(int field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
  }
  void number(int field, double value) {
    key(field, 1);
    fixed(std::bit_cast<uint64_t>(value), 8);
  }
  void single(int field, double value) {
    key(field, 5);
    fixed(std::bit_cast<uint32_t>(static_cast<float>(value)), 4);
  }
  void bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    text_ += value;
  }
  void message(int field, const Message& value) { bytes(field, value.text_); }
  void packed(int field, std::span<const double> values) {
    Message packed;
    for (const double value : values) packed.fixed(std::bit_cast<uint64_t>(value), 8);
    message(field, packed);
  }
  void fixed(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  const std::string& text() const { return text_; }

 private:
  void key(int field, int type) {
    varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(type));
  }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(0x80 | (value & 0x7f));
    text_ += static_cast<char>(value);
  }

  std::string text_;
};

Message event(double time, int64_t step) {
  Message event;
  event.number(1, time);
  event.integer(2, step);
  return event;
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8; }

}  // namespace

EventHistogram event_histogram(std::span<const double> values) {
  constexpr double kFirst = 0.01, kRatio = 1.1;
  EventHistogram h;
  if (values.empty()) return h;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  h.min = sorted.front();
  h.max = sorted.back();
  h.number = static_cast<double>(sorted.size());
  double limit = kFirst;
  auto value = sorted.begin();
  while (value != sorted.end()) {
    const auto end = std::upper_bound(value, sorted.end(), limit);
    const auto count = static_cast<double>(end - value);
    if (count > 0 || !h.limits.empty()) {
      // The bucket before the first one ends where that begins.
      if (h.limits.empty() && limit > kFirst) {
        h.limits.push_back(limit / kRatio);
        h.counts.push_back(0);
      }
      h.limits.push_back(limit);
      h.counts.push_back(count);
    }
    for (; value != end; ++value) {
      h.sum += *value;
      h.sum_of_squares += *value * *value;
    }
    limit = limit > 1e100 ? std::numeric_limits<double>::max() : limit * kRatio;
  }
  return h;
}

std::string version_event(double time) {
  Message message = event(time, 0);
  message.bytes(3, "brain.Event:2");
  return message.text();
}

std::string session_start_event(double time, int64_t step) {
  constexpr int64_t kStart = 1;
  Message session;
  session.integer(1, kStart);
  Message message = event(time, step);
  message.message(7, session);
  return message.text();
}

std::string scalars_event(double time, int64_t step, std::span<const EventScalar> scalars) {
  Message summary;
  for (const auto& [tag, number] : scalars) {
    Message value;
    value.bytes(1, tag);
    value.single(2, number);
    summary.message(1, value);
  }
  Message message = event(time, step);
  message.message(5, summary);
  return message.text();
}

std::string histogram_event(double time, int64_t step, const std::string& tag,
                            const EventHistogram& h) {
  Message histogram;
  histogram.number(1, h.min);
  histogram.number(2, h.max);
  histogram.number(3, h.number);
  histogram.number(4, h.sum);
  histogram.number(5, h.sum_of_squares);
  histogram.packed(6, h.limits);
  histogram.packed(7, h.counts);
  Message value;
  value.bytes(1, tag);
  value.message(5, histogram);
  Message summary;
  summary.message(1, value);
  Message message = event(time, step);
  message.message(5, summary);
  return message.text();
}

std::string event_record(std::string_view payload) {
  Message length;
  length.fixed(payload.size(), 8);
  Message record = length;
  record.fixed(masked_crc(length.text()), 4);
  Message end;
  end.fixed(masked_crc(payload), 4);
  return record.text() + std::string(payload) + end.text();
}

}  // namespace sw
