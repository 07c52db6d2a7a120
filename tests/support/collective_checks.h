// What every backend of comm/group.h must do, against plain computations: run on threads by
// test_comm and on processes by test_comm_mpi.
#pragma once

#include <span>

#include "libswitch/comm/group.h"

namespace sw {

struct CollectiveCheck {
  const char* name;
  void (*run)(World& world);  // by every rank of the world; reports by EXPECT
};
std::span<const CollectiveCheck> collective_checks();

}  // namespace sw
