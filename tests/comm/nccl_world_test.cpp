#include "libswitch/comm/nccl/nccl_world.h"

#include <gtest/gtest.h>

#include "libswitch/base/error.h"
#include "libswitch/comm/local/single.h"

namespace sw {
namespace {

TEST(NcclWorld, SaysWhatIsMissing) {
  try {
    make_nccl_world(single_world(), {Device::Kind::cuda, 0}, DeviceReduction::canonical);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device) << error.what();
    return;
  }
  GTEST_SKIP() << "a GPU is here";
}

}  // namespace
}  // namespace sw
