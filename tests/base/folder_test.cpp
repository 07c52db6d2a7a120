#include "libswitch/base/folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "libswitch/base/error.h"

namespace sw {
namespace {

std::string complaint(const std::filesystem::path& path) {
  try {
    check_folder(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::missing);
    return error.what();
  }
  return "";
}

TEST(Folder, SaysWhetherNothingOrAFileIsThere) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "check_folder_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "file") << "x";
  EXPECT_EQ(complaint(folder), "");
  EXPECT_EQ(complaint(folder / "none"), (folder / "none").string() + ": no such folder");
  EXPECT_EQ(complaint(folder / "file"),
            (folder / "file").string() + ": is a file, expected a folder");
}

}  // namespace
}  // namespace sw
