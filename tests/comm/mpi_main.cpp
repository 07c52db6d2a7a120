// The checks of collectives on processes: mpirun -n 4 test_comm_mpi [FILTER of GoogleTest]. Every
// rank runs every check; rank 0 reports, the others speak of failures only.
//
//   test_comm_mpi --end-badly WAY   ends rank 1 (or all) in one of the ways a launcher must survive
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/comm/abort.h"
#include "libswitch/comm/mesh.h"
#include "libswitch/comm/mpi/mpi_transport.h"
#include "tests/support/collective_checks.h"

namespace sw {
namespace {

class Check : public testing::Test {
 public:
  explicit Check(const CollectiveCheck& check) : check_(check) {}
  void TestBody() override { check_.run(process_world()); }

 private:
  CollectiveCheck check_;
};

void long_messages_are_cut(World& world) {
  set_largest_mpi_message(1000);
  for (const CollectiveCheck& check : collective_checks()) check.run(world);
  set_largest_mpi_message(int64_t{1} << 30);
}

void places(World& world) {
  // All ranks of these tests share a machine.
  EXPECT_EQ(world.local_size(), world.size());
  EXPECT_EQ(world.local_rank(), world.rank());
  EXPECT_GE(world.local_cores(), 1);
  EXPECT_FALSE(world.host().empty());
  EXPECT_EQ(&process_world(), &world);
}

void meshes(World& world) {
  for (int i = 0; i < 3; ++i) {
    const int64_t model = world.size() % 2 == 0 ? 2 : 1;
    const Mesh mesh(world, {world.size() / model, world.size() / model, model});
    EXPECT_EQ(mesh.expert().all_reduce_value(1, ReduceOp::sum), world.size() / model);
    EXPECT_EQ(mesh.model().all_reduce_value(1, ReduceOp::sum), model);
    EXPECT_EQ(mesh.replica().size(), 1);
  }
}

void ranks_that_disagree_get_an_error(World& world) {
  if (world.size() != 2) return;
  Tensor x = Tensor::zeros({8 + world.rank() * 8}, DType::f32);
  EXPECT_THROW(world.group().all_reduce(x), Error);
}

/// What ranks other than 0 print: their failures.
class Failures final : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    std::fprintf(stderr, "rank %d: %s: %s:%d: %s\n", static_cast<int>(process_world().rank()),
                 test != nullptr ? test->name() : "?", result.file_name(), result.line_number(),
                 result.message());
  }
};

int end_badly(const std::string& way) {
  World& world = process_world();
  world.group().barrier();
  if (way == "error" && world.rank() == 1) leave_world_on_error(74);
  if (way == "from-thread" && world.rank() == 1) {
    std::thread([] { leave_world_on_error(82); }).join();
  }
  if (way == "all") return 75;
  if (way == "stop" && world.rank() == 1) std::raise(SIGSTOP);
  if (way == "hang" && world.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
  std::thread watchdog([&] {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    process_abort().set("no progress for 1 s");
  });
  try {
    world.group().barrier();  // in vain
  } catch (const Error& error) {
    watchdog.join();
    if (way == "hang" || way == "stop") {
      std::fprintf(stderr, "%s\n", error.what());
      leave_world_on_error(exit_code(error.kind()));
    }
    std::this_thread::sleep_for(std::chrono::seconds(60));  // until the launcher ends it
  }
  return 1;
}

}  // namespace
}  // namespace sw

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  sw::World& world = sw::process_world();
  if (argc == 3 && std::string(argv[1]) == "--end-badly") return sw::end_badly(argv[2]);
  std::vector<sw::CollectiveCheck> checks(sw::collective_checks().begin(),
                                          sw::collective_checks().end());
  checks.push_back({"LongMessagesAreCut", sw::long_messages_are_cut});
  checks.push_back({"RanksKnowTheirPlaces", sw::places});
  checks.push_back({"MeshesComeAndGo", sw::meshes});
  checks.push_back({"RanksThatDisagreeGetAnError", sw::ranks_that_disagree_get_an_error});
  for (const sw::CollectiveCheck& check : checks) {
    testing::RegisterTest("OnProcesses", check.name, nullptr, nullptr, __FILE__, __LINE__,
                          [=]() -> testing::Test* { return new sw::Check(check); });
  }
  if (world.rank() > 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new sw::Failures);
  }
  const int failed = RUN_ALL_TESTS();
  // Rank 0 alone prints, so all must know.
  return world.group().all_reduce_value(failed, sw::ReduceOp::max) == 0 ? 0 : 1;
}
