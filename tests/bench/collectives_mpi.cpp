// Our collectives against the MPI library's own, in one job: mpirun -n 2 bench_collectives
//
// What sums in canonical order cost, and what waits that yield cost. Times are the slowest rank's,
// the median of several calls.
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <functional>

#include "libswitch/base/timer.h"
#include "libswitch/comm/group.h"

namespace {

using sw::DType;
using sw::Group;
using sw::Tensor;

double median_seconds(Group& group, int64_t bytes, const std::function<void()>& call) {
  const int calls = static_cast<int>(std::clamp<int64_t>((int64_t{1} << 28) / (bytes + 1), 9, 501));
  std::vector<double> times;
  for (int i = 0; i < calls + 2; ++i) {
    group.barrier();
    const sw::Timer timer;
    call();
    const auto slowest =
        group.all_reduce_value(static_cast<int64_t>(timer.seconds() * 1e9), sw::ReduceOp::max);
    if (i >= 2) times.push_back(static_cast<double>(slowest) * 1e-9);
  }
  std::nth_element(times.begin(), times.begin() + calls / 2, times.end());
  return times[static_cast<size_t>(calls / 2)];
}

}  // namespace

int main() {
  sw::World& world = sw::process_world();
  Group& group = world.group();
  int mpi = 0;
  MPI_Initialized(&mpi);
  if (mpi == 0) {
    fmt::print(stderr, "start me by mpirun -n 2\n");
    return 2;
  }
  const auto say = [&](const std::string& text) {
    if (group.rank() == 0) fmt::print("{}\n", text);
  };
  say(fmt::format("{} ranks, {} cores; microseconds, ours / MPI's own", group.size(),
                  world.local_cores()));
  say(fmt::format("{:>10} {:>22} {:>22}", "bytes", "all_reduce f32", "all_to_all"));
  for (int64_t bytes = 64; bytes <= int64_t{64} << 20; bytes *= 8) {
    const int64_t n = bytes / 4 / group.size() * group.size();
    Tensor x = Tensor::zeros({n}, DType::f32), y = Tensor::zeros({n}, DType::f32);
    const int count = static_cast<int>(n), part = static_cast<int>(n / group.size());
    const auto time = [&](const auto& call) { return 1e6 * median_seconds(group, bytes, call); };
    const double reduce = time([&] { group.all_reduce(x); });
    const double mpi_reduce = time(
        [&] { MPI_Allreduce(MPI_IN_PLACE, x.raw(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
    const double exchange = time([&] { group.all_to_all(y, x); });
    const double mpi_exchange = time(
        [&] { MPI_Alltoall(x.raw(), part, MPI_FLOAT, y.raw(), part, MPI_FLOAT, MPI_COMM_WORLD); });
    say(fmt::format("{:>10} {:>10.1f} / {:>9.1f} {:>10.1f} / {:>9.1f}", bytes, reduce, mpi_reduce,
                    exchange, mpi_exchange));
  }
  const auto time = [&](const auto& call) { return 1e6 * median_seconds(group, 64, call); };
  const double barrier = time([&] { group.barrier(); });
  const double mpi_barrier = time([] { MPI_Barrier(MPI_COMM_WORLD); });
  say(fmt::format("{:>10} {:>10.1f} / {:>9.1f}", "barrier", barrier, mpi_barrier));
  return 0;
}
