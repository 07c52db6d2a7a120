#include "libswitch/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "libswitch/base/error.h"

namespace sw {
namespace {

class AtomicFileTest : public ::testing::Test {
 protected:
  AtomicFileTest() : folder_(std::filesystem::path(::testing::TempDir()) / "atomic_file_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~AtomicFileTest() override { std::filesystem::remove_all(folder_); }

  static void write(const AtomicFile& file, std::string_view text) {
    write_all(file.fd(), text.data(), text.size(), file.temporary_path().string());
  }
  std::filesystem::path path() const { return folder_ / "out"; }

 private:
  std::filesystem::path folder_;
};

TEST_F(AtomicFileTest, AppearsWhenCommittedOnly) {
  {
    AtomicFile abandoned(path());
    write(abandoned, "abandoned");
  }
  EXPECT_FALSE(std::filesystem::exists(path()));
  AtomicFile file(path());
  write(file, "whole");
  EXPECT_FALSE(std::filesystem::exists(path()));
  file.commit();
  EXPECT_EQ(read_file(path()), "whole");
  EXPECT_FALSE(std::filesystem::exists(file.temporary_path()));
}

TEST_F(AtomicFileTest, ASecondWriterIsRefusedAndHarmsNothing) {
  AtomicFile first(path());
  write(first, "first");
  try {
    const AtomicFile second(path());
    FAIL() << "two write the same file";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::cannot_create);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("another process is writing it"));
  }
  first.commit();
  EXPECT_EQ(read_file(path()), "first");
  write_file_atomically(path(), "later");
  EXPECT_EQ(read_file(path()), "later");
}

TEST_F(AtomicFileTest, TakesOverWhatAKilledWriterLeft) {
  std::ofstream(path().string() + ".tmp") << "longer than what comes";
  write_file_atomically(path(), "short");
  EXPECT_EQ(read_file(path()), "short");
}

}  // namespace
}  // namespace sw
