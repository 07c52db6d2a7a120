// Runs killed with SIGKILL at random moments, in processes of their own.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <thread>

#include "libswitch/base/timer.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using testing::TrainingCase;

constexpr const char* kFolderVariable = "SW_TEST_KILLED_RUN";

TrainingCase killed_run(const std::filesystem::path& folder) {
  TrainingCase run(folder);
  run.config.steps = 60;
  run.config.save_every = 3;
  run.config.eval_every = 5;
  return run;
}

class KilledRun : public testing::TrainingTest {
 protected:
  // Starts this program again for DISABLED_Child.
  static pid_t start(const std::filesystem::path& folder) {
    const pid_t child = fork();
    if (child != 0) return child;
    setenv(kFolderVariable, folder.c_str(), 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    execl("/proc/self/exe", "test_train", "--gtest_filter=KilledRun.DISABLED_Child",
          "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
    _exit(127);
  }
};

TEST_F(KilledRun, DISABLED_Child) {
  const char* folder = std::getenv(kFolderVariable);
  ASSERT_NE(folder, nullptr) << "only for the tests below";
  EXPECT_EQ(killed_run(folder).run(), TrainOutcome::finished);
}

TEST_F(KilledRun, AtTenRandomMomentsHasTheDigestAndTheLossesOfTheUnbrokenOne) {
  TrainingCase unbroken = killed_run(path("unbroken"));
  const Timer timer;
  ASSERT_EQ(unbroken.run(), TrainOutcome::finished);
  const double whole = timer.seconds();

  std::mt19937 random(std::random_device{}());
  std::uniform_real_distribution<double> moment(0.0, whole / 4);
  int killed = 0;
  int status = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    const pid_t child = start(path("killed"));
    ASSERT_GT(child, 0);
    if (killed < 10) {
      std::this_thread::sleep_for(std::chrono::duration<double>(moment(random)));
      kill(child, SIGKILL);
    }
    ASSERT_EQ(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
      ++killed;
      continue;
    }
    ASSERT_EQ(WEXITSTATUS(status), 0);
    break;
  }
  RecordProperty("killed", killed);
  EXPECT_GE(killed, 1);
  const TrainingCase run = killed_run(path("killed"));
  EXPECT_EQ(run.newest_digest(), unbroken.newest_digest());
  EXPECT_EQ(run.losses(), unbroken.losses());
  EXPECT_EQ(run.evaluations(), unbroken.evaluations());
  EXPECT_EQ(run.newest_telemetry(), unbroken.newest_telemetry());
}

}  // namespace
}  // namespace sw
