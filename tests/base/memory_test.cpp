#include "libswitch/base/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace sw {
namespace {

TEST(AvailableMemory, IsPartOfTheMachines) {
  const int64_t machine = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
  EXPECT_GT(available_memory(), int64_t{1} << 20);
  EXPECT_LE(available_memory(), machine);
}

}  // namespace
}  // namespace sw
