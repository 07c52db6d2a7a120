#include "libswitch/generate/prompt_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File file_of(const std::string& text) {
  File file(std::tmpfile(), &std::fclose);
  std::fwrite(text.data(), 1, text.size(), file.get());
  std::rewind(file.get());
  return file;
}

TEST(PromptLines, ComeWithoutTheirEndsInBatches) {
  const File file = file_of("one\r\n\nthree\nfour");
  PromptLines lines(fileno(file.get()));
  EXPECT_THAT(lines.next(3, true), ElementsAre("one", "", "three"));
  EXPECT_THAT(lines.next(3, true), ElementsAre("four"));
  EXPECT_THAT(lines.next(3, true), IsEmpty());
}

TEST(PromptLines, HaveNoByteOrderMark) {
  const File file = file_of("\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo\n");
  PromptLines lines(fileno(file.get()));
  EXPECT_THAT(lines.next(2, true), ElementsAre("one", "\xEF\xBB\xBFtwo"));
}

TEST(PromptLines, GiveWhatComesBeforeALineWithoutEnd) {
  const File file = file_of("one\ntwo\n" + std::string((size_t{64} << 20) + 1, 'x'));
  PromptLines lines(fileno(file.get()));
  EXPECT_THAT(lines.next(16, true), ElementsAre("one", "two"));
  try {
    lines.next(16, true);
    FAIL() << "was not refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::corrupt);
    EXPECT_THAT(e.what(), HasSubstr("stdin:3: a line of over 64 MiB"));
  }
}

}  // namespace
}  // namespace sw
