#include "libswitch/train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>
#include <atomic>
#include <chrono>
#include <thread>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <limits>
#include <thread>

#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TrainingCase;

constexpr std::chrono::milliseconds kMoment{1};

class TrainerTest : public testing::TrainingTest {
 protected:
  // Trains unbroken in a folder of its own.
  TrainingCase& unbroken() {
    if (!unbroken_) {
      unbroken_ = std::make_unique<TrainingCase>(path("unbroken"));
      EXPECT_EQ(unbroken_->run(), TrainOutcome::finished);
    }
    return *unbroken_;
  }
  void expect_like_unbroken(const TrainingCase& run) {
    EXPECT_EQ(run.newest_digest(), unbroken().newest_digest());
    EXPECT_EQ(run.losses(), unbroken().losses());
    EXPECT_EQ(run.evaluations(), unbroken().evaluations());
    EXPECT_EQ(run.newest_telemetry(), unbroken().newest_telemetry());
  }
  std::filesystem::path folder() const { return path("run"); }
  TrainingCase again() const { return TrainingCase(folder()); }

 private:
  std::unique_ptr<TrainingCase> unbroken_;
};

TEST_F(TrainerTest, RunsEvaluatesAndSavesAtItsIntervals) {
  TrainingCase& run = unbroken();
  EXPECT_EQ(run.losses().size(), 12u);
  EXPECT_EQ(run.evaluations(), (std::vector<int64_t>{3, 6, 9, 12}));
  EXPECT_EQ(run.committed.size(), 3u);
  EXPECT_EQ(std::filesystem::read_symlink(path("unbroken/latest")).filename(), "step-000000012.h5");
}

TEST_F(TrainerTest, ASecondStartOfAFinishedRunDoesNothing) {
  unbroken();
  TrainingCase second(path("unbroken"));
  EXPECT_EQ(second.run(), TrainOutcome::finished);
  EXPECT_TRUE(second.committed.empty());
  EXPECT_EQ(second.evaluations(), (std::vector<int64_t>{3, 6, 9, 12}));
}

TEST_F(TrainerTest, StoppedAtAnyStepItGoesOnToTheSameBits) {
  for (const int64_t at : {0, 1, 2, 3, 5, 6, 8}) {
    std::filesystem::remove_all(folder());
    TrainingCase first(folder());
    // The batch of a step is made ahead; the signal comes when the step is computed.
    first.objective.on_forward = [&](int64_t step, ForwardResult&) {
      if (step == at) raise(SIGUSR1);
    };
    EXPECT_EQ(first.run(), TrainOutcome::stopped) << at;
    TrainingCase second = again();
    EXPECT_EQ(second.run(), TrainOutcome::finished) << at;
    expect_like_unbroken(second);
  }
}

TEST_F(TrainerTest, EveryStopSignalCommitsACheckpoint) {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) {
    std::filesystem::remove_all(folder());
    TrainingCase run(folder());
    run.objective.on_forward = [&](int64_t step, ForwardResult&) {
      if (step == 1) raise(signal);
    };
    EXPECT_EQ(run.run(), TrainOutcome::stopped);
    EXPECT_EQ(run.committed.size(), 1u);
    EXPECT_EQ(open_checkpoint(folder().string()).meta().step, 2);
  }
}

TEST_F(TrainerTest, Usr2AndTheFileSaveCommitACheckpointAndGoOn) {
  TrainingCase run(folder());
  run.config.save_every = 0;
  run.objective.on_forward = [&](int64_t step, ForwardResult&) {
    if (step == 1) raise(SIGUSR2);
    if (step == 6) {
      std::ofstream(folder() / "SAVE");
      // Files are looked for a few times a second.
      std::this_thread::sleep_for(300 * kMoment);
    }
  };
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  EXPECT_EQ(run.committed.size(), 3u);
  EXPECT_FALSE(std::filesystem::exists(folder() / "SAVE"));
  EXPECT_EQ(run.newest_digest(), unbroken().newest_digest());
}

TEST_F(TrainerTest, TheFileStopEndsTheRunWithACheckpoint) {
  TrainingCase run(folder());
  std::filesystem::create_directories(folder());
  std::ofstream(folder() / "STOP");
  EXPECT_EQ(run.run(), TrainOutcome::stopped);
  EXPECT_FALSE(std::filesystem::exists(folder() / "STOP"));
  TrainingCase second = again();
  EXPECT_EQ(second.run(), TrainOutcome::finished);
  expect_like_unbroken(second);
}

TEST_F(TrainerTest, ASecondInterruptEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        OutsideRequests requests;
        raise(SIGINT);
        raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "");
}

TEST_F(TrainerTest, HandlersAreGivenBack) {
  std::signal(SIGUSR1, SIG_IGN);
  { OutsideRequests requests; }
  EXPECT_EQ(std::signal(SIGUSR1, SIG_DFL), SIG_IGN);
}

TEST_F(TrainerTest, AStopDuringAnEvaluationIsHeededAndTheEvaluationMadeUpFor) {
  TrainingCase run(folder());
  run.objective.on_evaluate = [](const Poll& poll) {
    raise(SIGTERM);
    poll();
    ADD_FAILURE() << "the evaluation went on";
  };
  EXPECT_EQ(run.run(), TrainOutcome::stopped);
  EXPECT_EQ(open_checkpoint(folder().string()).meta().step, 3);
  EXPECT_TRUE(run.evaluations().empty());
  TrainingCase second = again();
  EXPECT_EQ(second.run(), TrainOutcome::finished);
  expect_like_unbroken(second);
}

TEST_F(TrainerTest, AStopDuringTheWaitForDataIsHeeded) {
  TrainingCase run(folder());
  std::atomic<int64_t> steps{0};
  std::atomic<bool> committed{false};
  run.hooks.stepped = [&](const TrainMetrics& metrics, const LineFacts&) { steps = metrics.step; };
  run.hooks.committed = [&](const CommittedCheckpoint& done) {
    if (done.path.filename() == "step-000000005.h5") committed = true;
  };
  run.objective.on_fill = [&](int64_t step) {
    if (step != 5) return;
    // The batch of step 5 does not come before the run has stopped.
    for (int i = 0; i < 5000 && steps < 5; ++i) std::this_thread::sleep_for(kMoment);
    std::this_thread::sleep_for(20 * kMoment);
    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 5000 && !committed; ++i) std::this_thread::sleep_for(kMoment);
  };
  EXPECT_EQ(run.run(), TrainOutcome::stopped);
  EXPECT_TRUE(committed);
  EXPECT_EQ(open_checkpoint(folder().string()).meta().step, 5);
}

TEST_F(TrainerTest, StopsInTimeForMaxTime) {
  TrainingCase run(folder());
  run.config.steps = 1000000;
  run.config.max_seconds = 0.5;
  EXPECT_EQ(run.run(), TrainOutcome::stopped);
  EXPECT_EQ(run.losses().size(),
            static_cast<size_t>(open_checkpoint(folder().string()).meta().step));
}

TEST_F(TrainerTest, EndsAfterMaxTokens) {
  TrainingCase run(folder());
  run.config.steps = 0;
  run.config.max_tokens = 8 * 18 * 5;
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  EXPECT_EQ(run.losses().size(), 5u);
}

TEST_F(TrainerTest, MayBeExtended) {
  TrainingCase run(folder());
  run.config.steps = 6;
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  TrainingCase longer = again();
  EXPECT_EQ(longer.run(), TrainOutcome::finished);
  EXPECT_EQ(longer.newest_digest(), unbroken().newest_digest());
  EXPECT_EQ(longer.losses(), unbroken().losses());
}

TEST_F(TrainerTest, SkipsStepsThatAreNotFinite) {
  TrainingCase run(folder());
  run.objective.on_forward = [](int64_t step, ForwardResult& result) {
    if (step >= 4 && step < 7) result.loss = std::numeric_limits<double>::infinity();
  };
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  const auto losses = run.losses();
  ASSERT_EQ(losses.size(), 12u);
  EXPECT_THAT(losses[4], HasSubstr("null"));
  EXPECT_EQ(open_checkpoint(folder().string()).meta().train.skipped_steps, 3);
}

TEST_F(TrainerTest, GivesUpAfterTenStepsInARowThatAreNotFinite) {
  TrainingCase run(folder());
  run.config.steps = 40;
  run.objective.on_forward = [](int64_t step, ForwardResult& result) {
    if (step >= 5) result.loss = std::numeric_limits<double>::quiet_NaN();
  };
  const std::string message = message_of(ErrorKind::diverged, [&] { run.run(); });
  EXPECT_THAT(message, HasSubstr("10 steps in a row up to step 15"));
}

TEST_F(TrainerTest, CountsStepsInARowAcrossAResume) {
  const auto broken = [](int64_t step, ForwardResult& result) {
    if (step >= 2) result.loss = std::numeric_limits<double>::quiet_NaN();
    if (step == 7) raise(SIGUSR1);
  };
  TrainingCase run(folder());
  run.config.steps = 40;
  run.objective.on_forward = broken;
  EXPECT_EQ(run.run(), TrainOutcome::stopped);
  TrainingCase second = again();
  second.config.steps = 40;
  second.objective.on_forward = broken;
  EXPECT_THAT(message_of(ErrorKind::diverged, [&] { second.run(); }), HasSubstr("up to step 12"));
}

// A disk that takes nothing while `full` holds.
FileCalls full_disk(const std::function<bool()>& full) {
  FileCalls calls;
  const auto real = calls.pwrite;
  calls.pwrite = [=](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
    if (!full()) return real(fd, data, bytes, offset);
    errno = ENOSPC;
    return -1;
  };
  return calls;
}

TEST_F(TrainerTest, GoesOnWhenASaveFails) {
  TrainingCase run(folder());
  int64_t at = 0;
  run.objective.on_forward = [&](int64_t step, ForwardResult&) { at = step; };
  run.hooks.file_calls = full_disk([&] { return at >= 3 && at < 5; });
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  // Step 4 failed; the next try came after half an interval, at 6.
  EXPECT_EQ(run.committed.size(), 3u);
  EXPECT_TRUE(std::filesystem::exists(folder() / "checkpoints/step-000000006.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder() / "checkpoints/step-000000004.h5.tmp"));
  EXPECT_EQ(run.newest_digest(), unbroken().newest_digest());
}

TEST_F(TrainerTest, SavesInTheBackgroundWhatItWouldHaveSavedAtOnce) {
  TrainingCase run(folder());
  run.config.async_checkpoint = true;
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  EXPECT_EQ(run.committed, unbroken().committed);
  expect_like_unbroken(run);
}

TEST_F(TrainerTest, TrainsWhileACheckpointIsWritten) {
  TrainingCase run(folder());
  run.config.async_checkpoint = true;
  std::atomic<int64_t> at = 0;
  run.objective.on_forward = [&](int64_t step, ForwardResult&) { at = step; };
  // The disk takes nothing of the checkpoint of step 4 before the step after it has begun.
  FileCalls calls;
  const auto real = calls.pwrite;
  calls.pwrite = [&, real](int fd, const void* data, size_t bytes, off_t offset) {
    while (at == 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return real(fd, data, bytes, offset);
  };
  run.hooks.file_calls = calls;
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  expect_like_unbroken(run);
}

TEST_F(TrainerTest, GoesOnWhenASaveInTheBackgroundFails) {
  TrainingCase run(folder());
  run.config.async_checkpoint = true;
  std::atomic<int> failures = 0;
  run.hooks.file_calls = full_disk([&] { return failures++ < 1; });
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  EXPECT_TRUE(std::filesystem::exists(folder() / "checkpoints/step-000000012.h5"));
  EXPECT_FALSE(std::filesystem::exists(folder() / "checkpoints/step-000000004.h5"));
  EXPECT_EQ(run.newest_digest(), unbroken().newest_digest());
}

TEST_F(TrainerTest, GivesUpAfterThreeFailedSavesAndKeepsTheOldCheckpoint) {
  TrainingCase run(folder());
  run.config.steps = 40;
  int64_t at = 0;
  run.objective.on_forward = [&](int64_t step, ForwardResult&) { at = step; };
  run.hooks.file_calls = full_disk([&] { return at >= 5; });
  EXPECT_THAT(message_of(ErrorKind::io, [&] { run.run(); }), HasSubstr("3 checkpoints in a row"));
  EXPECT_EQ(open_checkpoint(folder().string()).meta().step, 4);
  EXPECT_EQ(at, 11);  // tried at 8, 10 and 12 steps
}

TEST_F(TrainerTest, GoesBackToTheCheckpointBeforeADamagedOne) {
  TrainingCase run(folder());
  EXPECT_EQ(run.run(), TrainOutcome::finished);
  const auto newest = folder() / "checkpoints/step-000000012.h5";
  std::filesystem::resize_file(newest, std::filesystem::file_size(newest) / 2);
  TrainingCase second = again();
  EXPECT_EQ(second.run(), TrainOutcome::finished);
  EXPECT_EQ(second.committed.size(), 1u);
  expect_like_unbroken(second);
}

TEST_F(TrainerTest, RefusesToGoOnWithOtherData) {
  TrainingCase run(folder());
  run.config.steps = 4;
  run.run();
  TrainingCase second = again();
  second.objective.manifest = "other";
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { second.run(); }), HasSubstr("other data"));
}

TEST_F(TrainerTest, KeepsTheNumberOfCheckpointsAskedFor) {
  TrainingCase run(folder());
  run.config.save_every = 1;
  run.config.keep_last = 2;
  run.run();
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder() / "checkpoints")) {
    files += entry.path().extension() == ".h5" ? 1 : 0;
  }
  EXPECT_EQ(files, 2);
  run.config.keep_last = 1;
  EXPECT_THAT(message_of(ErrorKind::usage, [&] { run.run(); }), HasSubstr("at least 2"));
}

}  // namespace
}  // namespace sw
