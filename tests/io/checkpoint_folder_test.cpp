#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/io/checkpoint_samples.h"

namespace sw {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;

// A run folder with checkpoints of some steps.
class RunFolder : public testing::Test {
 protected:
  RunFolder() { fs::create_directory(folder_ / "checkpoints"); }
  fs::path file(int64_t step) const {
    return folder_ / ("checkpoints/" + checkpoint_file_name(step));
  }
  void save(int64_t step) { test::save_sample(file(step), static_cast<uint64_t>(step), step); }
  // Cuts a file as a crash of the disk would.
  void tear(int64_t step) { fs::resize_file(file(step), fs::file_size(file(step)) / 2); }
  int64_t resolved() const {
    return CheckpointReader(resolve_checkpoint(folder_.path())).meta().step;
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    for (const CheckpointFile& found : list_checkpoints(folder_.path())) {
      steps.push_back(found.step);
    }
    return steps;
  }
  TemporaryFolder folder_;
};
using Steps = std::vector<int64_t>;

TEST_F(RunFolder, ListsByStepAndIgnoresOtherFiles) {
  for (const char* name :
       {"step-000000010.h5", "step-2.h5", "step-.h5", "step-x.h5", "step-1.h5.tmp",
        "step-99999999999999999999.h5", "astep-1.h5", "step--3.h5"}) {
    write_file_atomically(folder_ / (std::string("checkpoints/") + name), "");
  }
  EXPECT_EQ(steps(), (Steps{10, 2}));
  EXPECT_EQ(checkpoint_file_name(1000), "step-000001000.h5");
  EXPECT_EQ(checkpoint_file_name(12345678901), "step-12345678901.h5");
}

TEST_F(RunFolder, IsResolvedToTheTargetOfLatest) {
  save(1), save(2);
  set_checkpoint_link(folder_.path(), "latest", file(1));
  EXPECT_EQ(fs::read_symlink(folder_ / "latest"), "checkpoints/step-000000001.h5");
  EXPECT_EQ(resolved(), 1);
  set_checkpoint_link(folder_.path(), "latest", file(2));
  EXPECT_EQ(resolved(), 2);
  EXPECT_EQ(open_checkpoint(folder_.path().string()).meta().step, 2);
  EXPECT_EQ(open_checkpoint((folder_ / "latest").string()).meta().step, 2);
  EXPECT_EQ(open_checkpoint(file(1).string()).meta().step, 1);
  EXPECT_EQ(test::files_in(folder_.path()), 2);  // no temporary link is left
}

TEST_F(RunFolder, IsStillFoundAfterItWasMoved) {
  save(3);
  set_checkpoint_link(folder_.path(), "latest", file(3));
  const TemporaryFolder elsewhere;
  fs::rename(folder_.path(), elsewhere / "moved");
  EXPECT_EQ(open_checkpoint((elsewhere / "moved").string()).meta().step, 3);
}

TEST_F(RunFolder, FallsBackToTheNewestWholeFile) {
  save(1), save(2), save(3), save(4);
  EXPECT_EQ(resolved(), 4);  // without a link
  set_checkpoint_link(folder_.path(), "latest", file(4));
  tear(4);
  EXPECT_EQ(resolved(), 3);
  tear(3);
  EXPECT_EQ(resolved(), 2);
  fs::remove(file(4));  // the link leads nowhere
  EXPECT_EQ(resolved(), 2);
  EXPECT_THAT(checkpoint_fault(file(3)), HasSubstr("cut short"));
  EXPECT_EQ(checkpoint_fault(file(1)), "");
}

TEST_F(RunFolder, IsMissingACheckpointWhenNoneIsWhole) {
  EXPECT_EQ(error_of([&] { resolved(); }).kind(), ErrorKind::missing);
  save(1);
  tear(1);
  const Error error = error_of([&] { resolved(); });
  EXPECT_EQ(error.kind(), ErrorKind::missing);
  EXPECT_THAT(error.what(), HasSubstr(folder_.path().string()));
  EXPECT_EQ(error_of([&] { open_checkpoint((folder_ / "no such file").string()); }).kind(),
            ErrorKind::missing);
  EXPECT_EQ(error_of([&] { list_checkpoints(folder_ / "none"); }).kind(), ErrorKind::missing);
}

TEST_F(RunFolder, KeepsTheLastWholeFiles) {
  for (const int64_t step : {1, 2, 3, 4, 5}) save(step);
  set_checkpoint_link(folder_.path(), "latest", file(5));
  EXPECT_EQ(keep_last(folder_.path(), 3), (std::vector<fs::path>{file(2), file(1)}));
  EXPECT_EQ(steps(), (Steps{5, 4, 3}));
  EXPECT_TRUE(keep_last(folder_.path(), 3).empty());
  // Torn files do not count, and whole ones behind them stay.
  tear(5), tear(4);
  EXPECT_TRUE(keep_last(folder_.path(), 1).empty());
  EXPECT_EQ(steps(), (Steps{5, 4, 3}));
  save(6);
  EXPECT_EQ(keep_last(folder_.path(), 1).size(), 2u);  // 5 is the target of latest
  EXPECT_EQ(steps(), (Steps{6, 5}));
  EXPECT_EQ(error_of([&] { keep_last(folder_.path(), 0); }).kind(), ErrorKind::usage);
}

TEST_F(RunFolder, RemovesTemporariesOnlyOfCheckpoints) {
  for (const char* name : {"step-000000010.h5", "notes.tmp", "step-000000020.h5.tmp"}) {
    write_file_atomically(folder_ / (std::string("checkpoints/") + name), "x");
  }
  EXPECT_EQ(remove_temporaries(folder_.path()).size(), 1u);
  EXPECT_EQ(test::files_in(folder_ / "checkpoints"), 2);
}

// Puts a file on standard input and $TMPDIR into a folder, while it lives.
class Redirected {
 public:
  Redirected(const fs::path& input, const fs::path& spool) : saved_(::dup(0)) {
    const FileDescriptor fd(::open(input.c_str(), O_RDONLY));
    ::dup2(fd.get(), 0);
    ::setenv("TMPDIR", spool.c_str(), 1);
  }
  ~Redirected() {
    ::dup2(saved_, 0);
    ::close(saved_);
    ::unsetenv("TMPDIR");
  }

 private:
  int saved_;
};

TEST_F(RunFolder, ADashReadsStandardInputAndLeavesNothingBehind) {
  save(7);
  const fs::path spool = folder_ / "spool";
  fs::create_directory(spool);
  {
    const Redirected stdin_is(file(7), spool);
    const CheckpointReader reader = open_checkpoint("-");
    EXPECT_EQ(test::files_in(spool), 0);
    EXPECT_EQ(reader.meta().step, 7);
    reader.verify_all();
  }
  {
    const Redirected stdin_is(file(7), spool);
    const Error error = error_of([] { open_checkpoint("-", 1000); });
    EXPECT_THAT(error.what(), HasSubstr("1000 bytes"));
  }
  tear(7);
  {
    const Redirected stdin_is(file(7), spool);
    EXPECT_EQ(error_of([] { open_checkpoint("-"); }).kind(), ErrorKind::corrupt);
  }
  {
    const Redirected stdin_is(file(7), folder_ / "none");
    EXPECT_EQ(error_of([] { open_checkpoint("-"); }).kind(), ErrorKind::cannot_create);
  }
  EXPECT_EQ(test::files_in(spool), 0);
}

}  // namespace
}  // namespace sw
