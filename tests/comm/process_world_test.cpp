// The world of a process that no launcher started; with one, see mpi_main.cpp.
#include <gtest/gtest.h>

#include <cstdlib>

#include "libswitch/base/error.h"
#include "libswitch/comm/group.h"

namespace sw {
namespace {

bool launched() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

TEST(ProcessWorld, RefusesTasksOfSrunThatCannotFindEachOther) {
  if (launched()) GTEST_SKIP() << "started by a launcher";
  ::setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  try {
    process_world();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_NE(std::string(error.what()).find("--mpi=pmix"), std::string::npos) << error.what();
  }
  ::unsetenv("SLURM_STEP_NUM_TASKS");
}

TEST(ProcessWorld, IsOneRankWithoutLauncher) {
  if (launched()) GTEST_SKIP() << "started by a launcher";
  World& world = process_world();
  EXPECT_EQ(world.size(), 1);
  EXPECT_EQ(world.rank(), 0);
  EXPECT_EQ(world.local_size(), 1);
  EXPECT_GE(world.local_cores(), 1);
  EXPECT_FALSE(world.host().empty());
  const auto group = world.make_group("data", {0});
  EXPECT_EQ(group->name(), "data");
  EXPECT_EQ(group->all_reduce_value(7, ReduceOp::sum), 7);
  leave_world_on_error(74);  // nothing to leave
}

}  // namespace
}  // namespace sw
