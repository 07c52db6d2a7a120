#include "libswitch/train/tensorboard_log.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "libswitch/base/crc32c.h"
#include "libswitch/base/file.h"
#include "libswitch/train/event_records.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

// A reader of event files that shares nothing with the writer but the checksum.
struct Field {
  int number = 0;
  uint64_t value = 0;  // of a number
  std::string bytes;   // of a message
};

uint64_t fixed(std::string_view bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes.at(i))) << (8 * i);
  }
  return value;
}

std::vector<Field> fields_of(std::string_view text) {
  std::vector<Field> fields;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(text.at(0));
      text.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (!text.empty()) {
    const uint64_t key = varint();
    Field field;
    field.number = static_cast<int>(key >> 3);
    if ((key & 7) == 0) {
      field.value = varint();
    } else if ((key & 7) == 2) {
      const uint64_t bytes = varint();
      field.bytes = text.substr(0, bytes);
      text.remove_prefix(bytes);
    } else {
      const size_t width = (key & 7) == 1 ? 8 : 4;
      field.value = fixed(text, width);
      text.remove_prefix(width);
    }
    fields.push_back(field);
  }
  return fields;
}

// The payloads of a file, whose checksums must be right.
std::vector<std::string> records_of(std::string_view file) {
  const auto checked = [&](size_t bytes) {
    const std::string_view part = file.substr(0, bytes);
    const auto crc = static_cast<uint32_t>(fixed(file.substr(bytes), 4)) - 0xa282ead8U;
    EXPECT_EQ((crc >> 17) | (crc << 15), crc32c(part));
    file.remove_prefix(bytes + 4);
    return part;
  };
  std::vector<std::string> records;
  while (!file.empty()) {
    const uint64_t length = fixed(checked(8), 8);
    records.emplace_back(checked(length));
  }
  return records;
}

double as_double(uint64_t bits) { return std::bit_cast<double>(bits); }

std::vector<double> doubles_of(const std::string& bytes) {
  std::vector<double> values(bytes.size() / 8);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(Crc32c, IsThatOfRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(""), 0U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
}

TEST(EventHistogram, CountsEveryValueOnce) {
  const std::vector<double> values = {0, 0.5, 1, 1, 2, 300};
  const EventHistogram h = event_histogram(values);
  EXPECT_EQ(h.min, 0);
  EXPECT_EQ(h.max, 300);
  EXPECT_EQ(h.number, 6);
  EXPECT_DOUBLE_EQ(h.sum, 304.5);
  EXPECT_DOUBLE_EQ(h.sum_of_squares, 90006.25);
  ASSERT_EQ(h.limits.size(), h.counts.size());
  double counted = 0;
  for (size_t i = 0; i < h.counts.size(); ++i) {
    double inside = 0;
    for (const double value : values) {
      inside += value <= h.limits[i] && (i == 0 || value > h.limits[i - 1]);
    }
    EXPECT_EQ(h.counts[i], inside) << h.limits[i];
    counted += h.counts[i];
  }
  EXPECT_EQ(counted, 6);
  EXPECT_GE(h.limits.back(), 300);
  EXPECT_LT(h.limits.size(), 120u);
  EXPECT_EQ(event_histogram(std::vector<double>{1e300}).counts.back(), 1);
}

using TensorBoardLogTest = testing::TrainingTest;

TEST_F(TensorBoardLogTest, WritesWhatAReaderReads) {
  {
    TensorBoardLog log(path("tensorboard"), 0);
    log.add({{"kind", "train"},
             {"step", 7},
             {"time", 12.5},
             {"loss", 2.25},
             {"lr", nullptr},
             {"dead_experts", 3}});
    log.add({{"kind", "event"}, {"event", "rollback"}, {"step", 7}});
    log.add({{"kind", "eval"}, {"step", 8}, {"time", 13}, {"data", "h.swt"}, {"tokens", 300}});
    RouterStatistics layer;
    layer.name = "encoder/block_001";
    layer.experts = 2;
    layer.chosen = {30, 10};
    log.add_loads(49, {layer});  // not one of the steps with histograms
    log.add_loads(50, {layer});
    log.go_back(40);
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path("tensorboard"))) {
    files.push_back(entry.path());
  }
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].filename().string().starts_with("events.out.tfevents."));
  const std::vector<std::string> records = records_of(read_file(files[0]));
  ASSERT_EQ(records.size(), 5u);

  std::vector<Field> event = fields_of(records[0]);
  EXPECT_EQ(event[2].number, 3);
  EXPECT_EQ(event[2].bytes, "brain.Event:2");

  event = fields_of(records[1]);
  EXPECT_EQ(as_double(event[0].value), 12.5);
  EXPECT_EQ(event[1].value, 7u);
  EXPECT_EQ(event[2].number, 5);
  std::map<std::string, float> scalars;
  for (const Field& value : fields_of(event[2].bytes)) {
    const std::vector<Field> parts = fields_of(value.bytes);
    scalars[parts[0].bytes] = std::bit_cast<float>(static_cast<uint32_t>(parts[1].value));
  }
  EXPECT_EQ(scalars,
            (std::map<std::string, float>{{"train/loss", 2.25f}, {"train/dead_experts", 3.0f}}));

  event = fields_of(records[2]);
  EXPECT_EQ(fields_of(fields_of(event[2].bytes)[0].bytes)[0].bytes, "eval/h.swt/tokens");

  event = fields_of(records[3]);
  EXPECT_EQ(event[1].value, 50u);
  const std::vector<Field> value = fields_of(fields_of(event[2].bytes)[0].bytes);
  EXPECT_EQ(value[0].bytes, "router/encoder/block_001/load");
  const std::vector<Field> histogram = fields_of(value[1].bytes);
  ASSERT_EQ(histogram.size(), 7u);
  EXPECT_EQ(as_double(histogram[0].value), 0.5);
  EXPECT_EQ(as_double(histogram[1].value), 1.5);
  const std::vector<double> counts = doubles_of(histogram[6].bytes);
  EXPECT_EQ(counts.size(), histogram[5].bytes.size() / 8);
  EXPECT_EQ(counts.front() + counts.back() + counts[1], 2);

  event = fields_of(records[4]);
  EXPECT_EQ(event[1].value, 41u);
  EXPECT_EQ(event[2].number, 7);
  EXPECT_EQ(fields_of(event[2].bytes)[0].value, 1u);
}

TEST_F(TensorBoardLogTest, GoesWithARunAndItsResumption) {
  testing::TrainingCase run(path("run"));
  run.config.tensorboard = true;
  run.config.steps = 2;
  run.run();
  run.config.steps = 3;
  run.run();
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(path("run") / "tensorboard")) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 2u);
  std::vector<int> steps;
  for (const auto& file : files) {
    for (const std::string& record : records_of(read_file(file))) {
      steps.push_back(static_cast<int>(fields_of(record)[1].value));
    }
  }
  // The version; per step its figures, after the first its histograms, after the last an
  // evaluation.
  EXPECT_EQ(std::count(steps.begin(), steps.end(), 0), 2);
  EXPECT_GT(std::count(steps.begin(), steps.end(), 1), 1);
  EXPECT_EQ(steps.back(), 3);
}

TEST_F(TensorBoardLogTest, StartsAFileOfItsOwnOnEveryStart) {
  for (const int64_t step : {0, 10, 10}) TensorBoardLog log(path("events"), step);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path("events"))) {
    files += entry.path().filename().string().starts_with("events.out.tfevents.");
  }
  EXPECT_EQ(files, 3);
}

using BackgroundFileTest = testing::TrainingTest;

TEST_F(BackgroundFileTest, LeavesOutWhatADiskDoesNotTake) {
  const std::filesystem::path name = path("file");
  EXPECT_THROW(BackgroundFile(path("none") / "file"), Error);
  {
    BackgroundFile file(name);
    file.append(std::string(static_cast<size_t>(BackgroundFile::kMaxWaiting) + 1, 'x'));
    file.append("kept");
  }
  EXPECT_EQ(read_file(name), "kept");
  EXPECT_THROW(BackgroundFile again(name), Error);
}

}  // namespace
}  // namespace sw
