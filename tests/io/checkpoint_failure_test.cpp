// Saves that fail or are killed: no torn file under a final name, the old file as it was.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "libswitch/base/parallel.h"
#include "tests/io/checkpoint_samples.h"

extern "C" __attribute__((weak)) int __lsan_do_recoverable_leak_check();

namespace sw {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;

// A folder with one good checkpoint, over which a save of other content is tried.
class FailingSave : public testing::Test {
 protected:
  FailingSave() : path_(folder_ / "step-000000001.h5") {
    test::save_sample(path_, 1);
    before_ = read_file(path_);
  }
  void expect_failure(FileCalls calls, const std::string& reason) {
    const Error error = error_of([&] { test::save_sample(path_, 2, 2, std::move(calls)); });
    EXPECT_EQ(error.kind(), ErrorKind::io);
    EXPECT_THAT(error.what(), HasSubstr(reason));
    EXPECT_THAT(error.what(), HasSubstr(path_.string()));
    expect_old_file_only();
  }
  void expect_old_file_only() {
    EXPECT_EQ(test::files_in(folder_.path()), 1);
    EXPECT_TRUE(read_file(path_) == before_);
  }
  TemporaryFolder folder_;
  std::filesystem::path path_;
  std::string before_;
};

TEST_F(FailingSave, KeepsTheOldFileWhicheverWriteFails) {
  auto count = std::make_shared<std::atomic<int>>(0);
  FileCalls counting = test::unsynced_calls();
  counting.pwrite = [count](int fd, const void* data, size_t bytes, off_t offset) {
    ++*count;
    return ::pwrite(fd, data, bytes, offset);
  };
  test::save_sample(folder_ / "counted.h5", 2, 2, counting);
  std::filesystem::remove(folder_ / "counted.h5");
  const int writes = *count;
  ASSERT_GT(writes, 10);
  for (int failing = 1; failing <= writes; ++failing) {
    const int code = failing % 2 == 0 ? ENOSPC : EIO;
    *count = 0;
    FileCalls calls = test::unsynced_calls();
    calls.pwrite = [=](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
      if (++*count < failing) return ::pwrite(fd, data, bytes, offset);
      errno = code;
      return -1;
    };
    expect_failure(calls, code == ENOSPC ? "No space left on device" : "Input/output error");
  }
}

TEST_F(FailingSave, KeepsTheOldFileWhenSyncRenameOrReservationFails) {
  FileCalls calls;
  calls.fsync = [](int) { return errno = EIO, -1; };
  expect_failure(calls, "Input/output error");
  calls = test::unsynced_calls();
  calls.rename = [](const char*, const char*) { return errno = EDQUOT, -1; };
  expect_failure(calls, "quota");
  calls = test::unsynced_calls();
  calls.allocate = [](int, off_t) { return errno = ENOSPC, -1; };
  expect_failure(calls, "No space left on device");
  calls.pwrite = [](int, const void*, size_t, off_t) -> ssize_t { return 0; };
  calls.allocate = [](int, off_t) { return 0; };
  expect_failure(calls, "nothing was written");
}

TEST_F(FailingSave, LeavesNothingWhenTheWriterIsDropped) {
  {
    CheckpointWriter writer(path_, test::sample_entries(), test::sample_meta(), {});
    EXPECT_EQ(test::files_in(folder_.path()), 2);
  }
  expect_old_file_only();
}

TEST(InterruptedWrites, AreContinued) {
  const TemporaryFolder folder;
  auto count = std::make_shared<std::atomic<uint32_t>>(0);
  FileCalls calls = test::unsynced_calls();
  calls.pwrite = [count](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
    const uint32_t turn = ++*count;
    if (turn % 3 == 0) return errno = EINTR, -1;
    return ::pwrite(fd, data, std::min<size_t>(bytes, 1 + turn % 5), offset);
  };
  calls.allocate = [](int, off_t) { return errno = EOPNOTSUPP, -1; };
  const CommittedCheckpoint done = test::save_sample(folder / "a.h5", 1, 1, calls);
  EXPECT_EQ(done.digest, test::save_sample(folder / "b.h5").digest);
  CheckpointReader(done.path).verify_all();
}

// Runs `fn` in a child process; its wait status. The child has one thread, as a fork must.
template <class Fn>
pid_t start_child(const Fn& fn) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  set_threads(1);
  int code = 0;
  try {
    fn();
  } catch (const Error& error) {
    code = exit_code(error.kind());
  } catch (...) {
    code = 99;
  }
  ::_exit(code);
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

// A limit on the file size stops HDF5's own writes too, at every stage of a save.
TEST_F(FailingSave, KeepsTheOldFileWhereverTheDiskEnds) {
  const auto full = static_cast<rlim_t>(before_.size());
  int failures = 0;
  for (rlim_t limit = 0; limit <= full; limit += std::max<rlim_t>(full / 40, 1)) {
    const int status = wait_for(start_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit bound{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &bound);
      FileCalls calls = test::unsynced_calls();
      calls.allocate = [](int, off_t) { return 0; };  // so that the writes meet the limit
      test::save_sample(path_, 2, 2, calls);
    }));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
    ASSERT_TRUE(WIFEXITED(status)) << "limit " << limit << ", signal " << WTERMSIG(status);
    ASSERT_EQ(WEXITSTATUS(status), limit == 0 ? 73 : 74) << "limit " << limit;
    ++failures;
    expect_old_file_only();
  }
  EXPECT_GE(failures, 30);
}

// A process that fails to save goes on, saves again, and ends without trouble.
TEST_F(FailingSave, CanBeRepeatedAndTheProcessEndsCleanly) {
  const int status = wait_for(start_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    rlimit bound{};
    ::getrlimit(RLIMIT_FSIZE, &bound);
    FileCalls calls = test::unsynced_calls();
    calls.allocate = [](int, off_t) { return 0; };
    int failures = 0;
    for (const size_t limit : {before_.size() / 3, before_.size() - 10}) {
      bound.rlim_cur = limit;
      ::setrlimit(RLIMIT_FSIZE, &bound);
      try {
        test::save_sample(path_, 2, 2, calls);
      } catch (const Error&) {
        ++failures;
      }
    }
    bound.rlim_cur = bound.rlim_max;
    ::setrlimit(RLIMIT_FSIZE, &bound);
    test::save_sample(path_, 2, 2, calls);
    const int code = failures == 2 ? 0 : 1;
    // The leak checker of a sanitizer takes what HDF5 keeps per thread of the parent for leaks.
    if (__lsan_do_recoverable_leak_check != nullptr) ::_exit(code);
    std::exit(code);  // with what HDF5 and others do at exit
  }));
  EXPECT_EQ(status, 0);
  EXPECT_EQ(CheckpointReader(path_).meta().step, 2);
}

// A child saves without pause; it is killed at a random moment; what it left must be resumable and
// true, and no step that it had announced may be lost.
TEST(KilledSave, LeavesAFolderToResumeFrom) {
  const TemporaryFolder folder;
  RngStream random(rng_key(11, RngPurpose::test));
  const auto begin = std::chrono::steady_clock::now();
  test::save_sample(folder / "timed.h5");
  const std::chrono::microseconds one_save = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  auto longest = static_cast<uint64_t>(one_save.count()) * 4 + 10000;
  int64_t announced = 0;
  for (int round = 0; round < 25 || announced == 0; ++round) {
    // A slow machine makes do with fewer rounds, one that is busy with others' work needs longer
    // ones.
    const auto elapsed = std::chrono::steady_clock::now() - begin;
    if (elapsed > (announced > 0 ? std::chrono::seconds(6) : std::chrono::seconds(60))) break;
    if (round >= 10 && announced == 0) longest = std::min<uint64_t>(2 * longest, 900'000);
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = start_child([&] {
      for (int64_t step = announced + 1;; ++step) {
        const auto path = folder / checkpoint_file_name(step);
        test::save_sample(path, static_cast<uint64_t>(step), step);
        set_checkpoint_link(folder.path(), "latest", path);
        if (::write(pipe_ends[1], &step, sizeof step) != sizeof step) ::_exit(98);
        keep_last(folder.path(), 2);
      }
    });
    ::close(pipe_ends[1]);
    ::usleep(static_cast<useconds_t>(random.below(longest)));
    ::kill(child, SIGKILL);
    const int status = wait_for(child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    int64_t step = 0;
    while (::read(pipe_ends[0], &step, sizeof step) == sizeof step) announced = step;
    ::close(pipe_ends[0]);
    if (announced == 0) continue;
    const CheckpointReader reader = open_checkpoint(folder.path().string());
    reader.verify_all();
    EXPECT_GE(reader.meta().step, announced);
    const auto seed = static_cast<uint64_t>(reader.meta().step);
    for (const auto& [name, tensor] : test::sample_tensors(test::sample_entries(), seed)) {
      ASSERT_TRUE(test::same_bytes(reader.read(name), tensor)) << name;
    }
  }
  EXPECT_GT(announced, 0);
  remove_temporaries(folder.path());
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
}

}  // namespace
}  // namespace sw
