#include "libswitch/train/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::HasSubstr;

class RunDirectoryTest : public testing::TrainingTest {};

TEST_F(RunDirectoryTest, IsTakenByOneProcessAtATime) {
  const auto first = std::make_unique<RunDirectory>(path("run"));
  EXPECT_THAT(
      testing::message_of(ErrorKind::cannot_create, [&] { RunDirectory second(path("run")); }),
      HasSubstr("another process trains there"));
}

TEST_F(RunDirectoryTest, CanBeTakenAgainAfterwards) {
  { RunDirectory first(path("run")); }
  RunDirectory second(path("run"));
  EXPECT_FALSE(second.newest_checkpoint());
}

TEST_F(RunDirectoryTest, RemovesWhatAKilledSaveLeftBehind) {
  std::filesystem::create_directories(path("run/checkpoints"));
  std::ofstream(path("run/checkpoints/step-000000004.h5.tmp")) << "part";
  RunDirectory run(path("run"));
  EXPECT_FALSE(std::filesystem::exists(path("run/checkpoints/step-000000004.h5.tmp")));
}

TEST_F(RunDirectoryTest, DoesNotStartOverWhenAllCheckpointsAreDamaged) {
  std::filesystem::create_directories(path("run/checkpoints"));
  std::ofstream(path("run/checkpoints/step-000000004.h5")) << "not a checkpoint";
  RunDirectory run(path("run"));
  EXPECT_THAT(testing::message_of(ErrorKind::corrupt, [&] { run.newest_checkpoint(); }),
              HasSubstr("none of its 1 checkpoints is whole"));
}

TEST_F(RunDirectoryTest, NamesAFolderThatCannotBeMade) {
  std::ofstream(path("file")) << "x";
  EXPECT_THAT(
      testing::message_of(ErrorKind::cannot_create, [&] { RunDirectory run(path("file/run")); }),
      HasSubstr("file/run"));
}

}  // namespace
}  // namespace sw
