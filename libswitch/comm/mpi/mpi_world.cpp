// The world of a job that a launcher started, on MPI.
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/comm/local/single.h"
#include "libswitch/comm/message_group.h"
#include "libswitch/comm/mpi/mpi_transport.h"

namespace sw {
namespace {

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

/// Whether MPI_Init would find a launcher's process manager: mpirun of Open MPI; mpiexec of MPICH
/// and its relatives or srun --mpi=pmi2; srun --mpi=pmix or prun. SLURM_PROCID alone says nothing:
/// a batch script has it too.
bool started_by_launcher() {
  if (is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMI_RANK") || is_set("PMIX_RANK")) return true;
  // Tasks of srun that MPI cannot join would each believe to be the whole job.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  SW_CHECK(tasks == nullptr || std::atoi(tasks) <= 1, device,
           "srun started {} tasks without a process manager for MPI; use srun --mpi=pmix (srun "
           "--mpi=list names what there is) or mpirun",
           tasks);
  return false;
}

/// Whether Open MPI's mpirun watches this process. Asked first before MPI_Init, which sets the
/// variable itself under other launchers.
bool started_by_mpirun() {
  static const bool value = is_set("OMPI_COMM_WORLD_SIZE");
  return value;
}

class MpiWorld final : public World {
 public:
  MpiWorld() {
    started_by_mpirun();
    int begun = 0;
    MPI_Initialized(&begun);
    owner_ = begun == 0;
    if (owner_) {
      int provided = MPI_THREAD_SINGLE;
      check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided),
                "MPI_Init_thread");
      SW_CHECK(provided >= MPI_THREAD_SERIALIZED, device,
               "MPI gives thread level {}, expected MPI_THREAD_SERIALIZED ({})", provided,
               MPI_THREAD_SERIALIZED);
    }
    int rank = 0, size = 1;
    check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &communicator_), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(communicator_, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(communicator_, &size), "MPI_Comm_size");
    state_.rank = rank;
    state_.host = host_name();
    find_neighbours();
    std::vector<int64_t> all;
    for (int64_t r = 0; r < size; ++r) all.push_back(r);
    group_ = make_group("world", all);
  }

  ~MpiWorld() override {
    group_.reset();
    if (!owner_ || !mpi_alive()) return;
    // Whatever is still under way here, others wait for: to wait for them would be for ever.
    if (!state_.pending.empty() || process_abort().is_set()) {
      MPI_Abort(MPI_COMM_WORLD, exit_code(ErrorKind::internal));
    }
    MPI_Comm_free(&communicator_);
    MPI_Finalize();
  }

  Group& group() override { return *group_; }

  std::unique_ptr<Group> make_group(std::string name,
                                    const std::vector<int64_t>& world_ranks) override {
    const int tag = static_cast<int>(groups_++ % 32767);
    const auto own = std::find(world_ranks.begin(), world_ranks.end(), state_.rank);
    if (own == world_ranks.end()) return nullptr;
    std::unique_ptr<Transport> transport;
    if (world_ranks.size() > 1) {
      // A communicator each, made by its members alone: collectives are told apart by tags.
      const std::vector<int> ranks(world_ranks.begin(), world_ranks.end());
      MPI_Group all, members;
      MPI_Comm communicator;
      check_mpi(MPI_Comm_group(communicator_, &all), "MPI_Comm_group");
      check_mpi(MPI_Group_incl(all, static_cast<int>(ranks.size()), ranks.data(), &members),
                "MPI_Group_incl");
      check_mpi(MPI_Comm_create_group(communicator_, members, tag, &communicator),
                "MPI_Comm_create_group");
      check_mpi(MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN),
                "MPI_Comm_set_errhandler");
      MPI_Group_free(&members);
      MPI_Group_free(&all);
      transport = make_mpi_transport(MPI_Comm_c2f(communicator));
    }
    return std::make_unique<MessageGroup>(std::move(name), world_ranks, own - world_ranks.begin(),
                                          std::move(transport), state_);
  }

  const std::string& host() const override { return state_.host; }
  int64_t local_size() const override { return local_size_; }
  int64_t local_rank() const override { return local_rank_; }
  int64_t local_cores() const override { return local_cores_; }
  CommTrace& trace() override { return state_.trace; }

 private:
  /// Ranks on this machine and the cores they have together. A launcher may bind each to its own.
  void find_neighbours() {
    MPI_Comm local;
    int rank = 0, size = 1;
    check_mpi(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local),
              "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(local, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(local, &size), "MPI_Comm_size");
    cpu_set_t own, together;
    CPU_ZERO(&own);
    ::sched_getaffinity(0, sizeof own, &own);
    check_mpi(MPI_Allreduce(&own, &together, sizeof own, MPI_BYTE, MPI_BOR, local),
              "MPI_Allreduce");
    MPI_Comm_free(&local);
    local_rank_ = rank;
    local_size_ = size;
    local_cores_ = std::max(1, CPU_COUNT(&together));
    // A quota of the container binds all of them.
    if (usable_cores() < CPU_COUNT(&own)) {
      local_cores_ = std::min<int64_t>(local_cores_, usable_cores());
    }
    state_.crowded = local_size_ > local_cores_;
  }

  MPI_Comm communicator_ = MPI_COMM_NULL;
  RankState state_;
  bool owner_ = true;
  int64_t groups_ = 0, local_rank_ = 0, local_size_ = 1, local_cores_ = 1;
  std::unique_ptr<Group> group_;
};

}  // namespace

World& process_world() {
  static const std::unique_ptr<World> launched =
      started_by_launcher() ? std::make_unique<MpiWorld>() : nullptr;
  return launched ? *launched : single_world();
}

// What Open MPI 4.1.4 does when one rank of three ends while the others go on:
//   _exit(74), exit(74)         mpirun sends the others CONT and TERM, a second later KILL, and
//                               returns 74
//   MPI_Abort(world, 74)        the same, sooner (0.7 s instead of 1.8 s in all), and returns 74;
//                               but when several abort at once, as ranks do that wait for the same
//                               one, mpirun itself hangs or crashes about once in a hundred times
//   MPI_Finalize, then exit(74) waits for the others' MPI_Finalize: for ever
//   _exit(0)                    mpirun ends the job and returns 1
//   killed by signal 9          mpirun ends the job and returns 137
// When several end, the code of the first counts. With -q mpirun says nothing about it. Tasks of
// srun, without --kill-on-bad-exit, are ended by MPI_Abort alone (PMI2: not for code 0); should it
// not return within seconds, as another thread holds MPI, the process ends all the same.
void leave_world_on_error(int code) {
  if (!mpi_alive()) return;
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size == 1) return;
  code = std::max(code, 1);
  std::fflush(nullptr);
  if (started_by_mpirun()) ::_exit(code);
  std::thread([code] {
    std::this_thread::sleep_for(std::chrono::seconds(5));
    ::_exit(code);
  }).detach();
  MPI_Abort(MPI_COMM_WORLD, code);
  ::_exit(code);
}

}  // namespace sw
