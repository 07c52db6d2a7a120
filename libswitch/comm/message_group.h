// Every collective over plain messages, for any transport.
//
// With p ranks and a vector of n elements each rank sends
//   all_reduce      2(p-1)/p n    reduce_scatter, all_gather   (p-1)/p n (n: the whole vector)
//   all_to_all      (p-1)/p n     broadcast   n x the ranks it passes x on to (root: log2 p)
// in log2 p messages per halving or doubling (p-1 for all_to_all, and for every collective of a
// group whose size is no power of two). Tensors on a GPU pass through host memory.
#pragma once

#include "libswitch/comm/schedule.h"

namespace sw {

class MessageGroup final : public Group {
 public:
  /// `state` outlives the group. A group of one rank needs no transport.
  MessageGroup(std::string name, std::vector<int64_t> world_ranks, int64_t rank,
               std::unique_ptr<Transport> transport, RankState& state);

  std::unique_ptr<PendingCollective> start_all_reduce(std::vector<Tensor> parts,
                                                      ReduceOp op) override;
  void reduce_scatter(Tensor& out, const Tensor& in) override;
  void all_gather(Tensor& out, const Tensor& in) override;
  void broadcast(Tensor& x, int64_t root) override;
  void all_to_all_rows(Tensor& out, std::span<const int64_t> receive_rows, const Tensor& in,
                       std::span<const int64_t> send_rows) override;
  void barrier() override;

 private:
  /// Counts, traces and begins a collective.
  std::unique_ptr<Schedule> start(CommKind kind, std::vector<Step> steps,
                                  std::vector<Tensor> keep = {});
  bool halves() const;  // whether the size is a power of two

  std::unique_ptr<Transport> transport_;
  RankState& state_;
  int64_t sequence_ = 0;
};

}  // namespace sw
