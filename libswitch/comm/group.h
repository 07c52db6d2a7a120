// A group of ranks and its collectives.
//
// Rules of every collective: all ranks of the group call the same ones in the same order with
// fitting sizes, whatever the data hold (no collective is skipped because somebody has nothing to
// send). Sums are taken in canonical order: with c ranks of a group of size n = 2^k, first 0+1,
// 2+3, ..., then pairs of pairs: the tree that SumTree (base/sum_tree.h) continues within a
// rank, so that the bits do not depend on how many ranks share the shards. Groups whose size is no
// power of two add what is left over from the right, like SumTree::finish. All ranks of a group
// receive the same bits. A group of one rank does nothing but copy. Not thread-safe: one thread per
// rank calls them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libswitch/comm/trace.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

enum class ReduceOp { sum, max, min };

/// What a rank sent, by its own count: the payload only, messages to itself left out.
struct CommVolume {
  int64_t messages = 0;
  int64_t bytes = 0;
  CommVolume& operator+=(const CommVolume& other) {
    messages += other.messages;
    bytes += other.bytes;
    return *this;
  }
  bool operator==(const CommVolume&) const = default;
};

/// A collective under way. Its tensors must not be touched before finish() returned. Destroying an
/// unfinished one is an error of the caller.
class PendingCollective {
 public:
  virtual ~PendingCollective() = default;
  /// Does what can be done without waiting; true when all is done.
  virtual bool advance() = 0;
  /// Waits until all is done.
  virtual void finish() = 0;
};

class Group {
 public:
  virtual ~Group() = default;

  /// "world", "data", "expert", "replica", "model": for messages and counts.
  const std::string& name() const { return name_; }
  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  /// Rank in the world of every member, by rank in the group.
  const std::vector<int64_t>& world_ranks() const { return world_ranks_; }

  /// x = the sum (largest, smallest) over ranks; f32, f64, bf16 (each sum rounded), i32. A NaN
  /// among the values makes the result one.
  void all_reduce(Tensor& x, ReduceOp op = ReduceOp::sum);
  /// Like all_reduce, of one vector that several tensors of one dtype make up; returns at once.
  /// Collectives of other groups may run meanwhile.
  virtual std::unique_ptr<PendingCollective> start_all_reduce(std::vector<Tensor> parts,
                                                              ReduceOp op = ReduceOp::sum) = 0;
  /// out [n, ...] = rows [rank·n, (rank+1)·n) of the sum of all in [size·n, ...].
  virtual void reduce_scatter(Tensor& out, const Tensor& in) = 0;
  /// out [size·n, ...]: the ranks' in [n, ...] one after the other. `in` may be rank's part of out.
  virtual void all_gather(Tensor& out, const Tensor& in) = 0;
  /// x = root's x.
  virtual void broadcast(Tensor& x, int64_t root) = 0;
  /// Part j of in [size·n, ...] becomes part rank() of rank j's out.
  void all_to_all(Tensor& out, const Tensor& in);
  /// Ragged: the first send_rows[0] rows of in go to rank 0, the next send_rows[1] to rank 1, ...;
  /// out takes receive_rows[i] rows from rank i, in that order. Rows have equal sizes everywhere.
  virtual void all_to_all_rows(Tensor& out, std::span<const int64_t> receive_rows, const Tensor& in,
                               std::span<const int64_t> send_rows) = 0;
  virtual void barrier() = 0;

  // Of plain values, for control and telemetry.
  int64_t all_reduce_value(int64_t value, ReduceOp op);
  std::vector<int64_t> all_gather_values(std::span<const int64_t> values);
  /// Every rank's bytes, by rank; lengths may differ.
  std::vector<std::string> all_gather_bytes(const std::string& bytes);
  /// Root's bytes.
  std::string broadcast_bytes(const std::string& bytes, int64_t root);

  /// Sent by this rank through this group since the process began.
  const CommVolume& volume() const { return volume_; }

 protected:
  Group(std::string name, std::vector<int64_t> world_ranks, int64_t rank);
  CommVolume volume_;

 private:
  std::string name_;
  std::vector<int64_t> world_ranks_;
  int64_t rank_ = 0, size_ = 1;
};

/// All ranks of a job, and the maker of groups among them.
class World {
 public:
  virtual ~World() = default;
  virtual Group& group() = 0;
  int64_t rank() { return group().rank(); }
  int64_t size() { return group().size(); }
  /// Called by every rank of the world in the same order; ranks that are no members get null.
  virtual std::unique_ptr<Group> make_group(std::string name,
                                            const std::vector<int64_t>& world_ranks) = 0;
  /// Name of the machine this rank runs on.
  virtual const std::string& host() const = 0;
  /// Ranks of this world on this machine, and which of them this is.
  virtual int64_t local_size() const = 0;
  virtual int64_t local_rank() const = 0;
  /// Cores of this machine that its ranks may use together; a launcher may give each rank its own.
  virtual int64_t local_cores() const = 0;
  /// What this rank does and did in the collectives of all its groups: written by them, readable by
  /// any thread.
  virtual CommTrace& trace() = 0;
};

/// The world of this process: MPI's when a launcher (mpirun, srun) started it, else one rank. MPI
/// is initialised by the first call and finalised at exit. Throws device when MPI does not come up.
World& process_world();
/// Called when an error ends this rank: ends it and the others of its job at once, without a word
/// and without waiting for anybody, so that the launcher returns `exit_code` (at least 1). Any
/// thread may call it. Returns, having done nothing, when the process is a world of its own.
void leave_world_on_error(int exit_code);

/// A group of one rank.
Group& single_group();

}  // namespace sw
