// Collectives of device tensors over NCCL: grouped sends and receives, sums in canonical order by
// an exchange of pieces and an ordered sum on the device. Has compiled, but never run on a GPU yet.
#include "libswitch/comm/nccl/nccl_group.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <deque>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/comm/abort.h"
#include "libswitch/comm/combine.h"
#include "libswitch/comm/nccl/nccl_call.h"
#include "libswitch/comm/steps.h"
#include "libswitch/kernels/elementwise.h"

namespace sw {

void check_cuda(int code, const char* call) {
  if (code == cudaSuccess) return;
  fail(ErrorKind::device, "{}: {}", call, cudaGetErrorString(static_cast<cudaError_t>(code)));
}

void check_nccl(int code, const char* call) {
  if (code == ncclSuccess) return;
  fail(ErrorKind::device, "{}: {} ({})", call, ncclGetErrorString(static_cast<ncclResult_t>(code)),
       ncclGetLastError(nullptr));
}

namespace {

char* bytes_of(const Tensor& tensor) {
  return static_cast<char*>(const_cast<Tensor&>(tensor).raw());
}

/// A mark on a stream.
class Event {
 public:
  Event() {
    check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) {
    check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  void hold(cudaStream_t stream) const {  // until what was recorded is done
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }
  bool reached() const {
    const cudaError_t state = cudaEventQuery(event_);
    if (state == cudaErrorNotReady) return false;
    check_cuda(state, "cudaEventQuery");
    return true;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class NcclGroup final : public Group {
 public:
  NcclGroup(Group& host, std::unique_ptr<Group> owned, CommTrace& trace, Device device,
            DeviceReduction reduction)
      : Group(host.name(), host.world_ranks(), host.rank()),
        host_(host),
        owned_(std::move(owned)),
        trace_(trace),
        device_(device),
        reduction_(reduction) {
    check_cuda(cudaSetDevice(device.index), "cudaSetDevice");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    ncclUniqueId id{};
    if (rank() == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    const std::string bytes =
        host_.broadcast_bytes(std::string(id.internal, sizeof id.internal), 0);
    std::memcpy(id.internal, bytes.data(), sizeof id.internal);
    check_nccl(
        ncclCommInitRank(&communicator_, static_cast<int>(size()), id, static_cast<int>(rank())),
        "ncclCommInitRank");
  }
  ~NcclGroup() override {
    // A rank that an error takes down waits for nobody.
    if (std::uncaught_exceptions() > 0 || process_abort().is_set()) {
      ncclCommAbort(communicator_);
    } else {
      ncclCommDestroy(communicator_);
    }
    cudaStreamDestroy(stream_);
  }

  std::unique_ptr<PendingCollective> start_all_reduce(std::vector<Tensor> parts,
                                                      ReduceOp op) override;
  void reduce_scatter(Tensor& out, const Tensor& in) override;
  void all_gather(Tensor& out, const Tensor& in) override;
  void broadcast(Tensor& x, int64_t root) override;
  void all_to_all_rows(Tensor& out, std::span<const int64_t> receive_rows, const Tensor& in,
                       std::span<const int64_t> send_rows) override;
  void barrier() override { host_.barrier(); }

 private:
  class Pending;

  /// Traces, orders and counts a collective: the group's stream after the default stream before
  /// `queue`, the default stream after the group's when `joins`. The mark is behind it.
  template <class Queue>
  std::shared_ptr<Event> run(CommKind kind, CommVolume volume, bool joins, const Queue& queue);
  void sweep();

  void send(int64_t to, const void* data, int64_t bytes) {
    if (bytes == 0) return;
    check_nccl(ncclSend(data, static_cast<size_t>(bytes), ncclUint8, static_cast<int>(to),
                        communicator_, stream_),
               "ncclSend");
  }
  void receive(int64_t from, void* data, int64_t bytes) {
    if (bytes == 0) return;
    check_nccl(ncclRecv(data, static_cast<size_t>(bytes), ncclUint8, static_cast<int>(from),
                        communicator_, stream_),
               "ncclRecv");
  }
  void copy(void* to, const void* from, int64_t bytes) {
    if (bytes == 0 || to == from) return;
    check_cuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
        "cudaMemcpyAsync");
  }
  void begin() { check_nccl(ncclGroupStart(), "ncclGroupStart"); }
  void end() { check_nccl(ncclGroupEnd(), "ncclGroupEnd"); }

  /// result = the sum of the ranks' block rank() of `vector`; pieces [size, block] are for it.
  void sum_own_block(const Blocks& vector, const Tensor& pieces, void* result);
  /// Blocks of all ranks to all ranks, each from where it lies.
  void gather_blocks(const Blocks& vector);

  Group& host_;
  std::unique_ptr<Group> owned_;
  CommTrace& trace_;
  Device device_;
  DeviceReduction reduction_;
  cudaStream_t stream_ = nullptr;
  ncclComm_t communicator_ = nullptr;
  int64_t sequence_ = 0;
  Event before_;
  struct UnderWay {
    int64_t ticket;
    std::shared_ptr<Event> done;
  };
  std::deque<UnderWay> under_way_;
};

class NcclGroup::Pending final : public PendingCollective {
 public:
  Pending(std::shared_ptr<Event> done, std::vector<Tensor> keep)
      : done_(std::move(done)), keep_(std::move(keep)) {}
  bool advance() override { return done_->reached(); }
  // The host need not wait: later work of the default stream does.
  void finish() override {
    done_->hold(nullptr);
    keep_.clear();
  }

 private:
  std::shared_ptr<Event> done_;
  std::vector<Tensor> keep_;
};

void NcclGroup::sweep() {
  while (!under_way_.empty() && under_way_.front().done->reached()) {
    trace_.leave(under_way_.front().ticket);
    under_way_.pop_front();
  }
  ncclResult_t state = ncclSuccess;
  check_nccl(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
  check_nccl(state, "NCCL, of earlier work");
  SW_CHECK(!process_abort().is_set(), hang, "group {}: gave up before collective #{}: {}", name(),
           sequence_, process_abort().reason());
}

template <class Queue>
std::shared_ptr<Event> NcclGroup::run(CommKind kind, CommVolume volume, bool joins,
                                      const Queue& queue) {
  sweep();
  volume_ += volume;
  const int64_t ticket = trace_.enter(name(), kind, sequence_++, volume.bytes);
  before_.record(nullptr);
  before_.hold(stream_);
  queue();
  auto done = std::make_shared<Event>();
  done->record(stream_);
  if (joins) done->hold(nullptr);
  under_way_.push_back({ticket, done});
  return done;
}

void NcclGroup::sum_own_block(const Blocks& vector, const Tensor& pieces, void* result) {
  const int64_t own = vector.bytes(rank(), rank() + 1);
  begin();
  for (int64_t shift = 1; shift < size(); ++shift) {
    const int64_t to = (rank() + shift) % size(), from = (rank() - shift + size()) % size();
    send(to, vector.at(to), vector.bytes(to, to + 1));
    receive(from, bytes_of(pieces) + from * own, own);
  }
  end();
  if (own == 0) return;
  copy(bytes_of(pieces) + rank() * own, vector.at(rank()), own);
  const Stream stream{device_, stream_};
  add_in_order(size(), [&](int64_t left, int64_t right) {
    Tensor sum = pieces[left];
    kernels::scale(stream, sum, pieces[right], 1.0, Accum::add);
  });
  copy(result, bytes_of(pieces), own);
}

void NcclGroup::gather_blocks(const Blocks& vector) {
  begin();
  for (int64_t shift = 1; shift < size(); ++shift) {
    const int64_t to = (rank() + shift) % size(), from = (rank() - shift + size()) % size();
    send(to, vector.at(rank()), vector.bytes(rank(), rank() + 1));
    receive(from, vector.at(from), vector.bytes(from, from + 1));
  }
  end();
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::u8: break;
  }
  fail(ErrorKind::internal, "reduction: dtype {}, expected f32, f64, bf16 or i32",
       dtype_name(dtype));
}

std::unique_ptr<PendingCollective> NcclGroup::start_all_reduce(std::vector<Tensor> parts,
                                                               ReduceOp op) {
  // Integers, and largest and smallest values, are few: no kernel is worth while, and NCCL's own
  // maximum does not promise to keep a NaN.
  if (parts.empty() || !parts[0].device().is_cuda() || op != ReduceOp::sum ||
      !is_floating(parts[0].dtype())) {
    return host_.start_all_reduce(std::move(parts), op);
  }
  const DType dtype = parts[0].dtype();
  int64_t n = 0;
  for (const Tensor& part : parts) {
    SW_CHECK(part.dtype() == dtype && part.device() == device_, internal,
             "all_reduce: {} on {} among parts of {} on {}", dtype_name(part.dtype()),
             part.device().str(), dtype_name(dtype), device_.str());
    n += part.elements();
  }
  std::vector<Tensor> keep = parts;
  const int64_t width = element_bytes(dtype);
  if (reduction_ == DeviceReduction::fast || size() == 1) {
    const CommVolume volume{size() - 1, 2 * (size() - 1) * n * width / size()};
    auto done = run(CommKind::all_reduce, volume, false, [&] {
      if (size() == 1) return;
      begin();
      for (const Tensor& part : parts) {
        if (part.elements() == 0) continue;
        check_nccl(ncclAllReduce(part.raw(), bytes_of(part), static_cast<size_t>(part.elements()),
                                 nccl_type(dtype), ncclSum, communicator_, stream_),
                   "ncclAllReduce");
      }
      end();
    });
    return std::make_unique<Pending>(std::move(done), std::move(keep));
  }
  const bool packed = parts.size() > 1;
  Tensor whole = packed ? Tensor::empty({n}, dtype, device_) : parts[0];
  const Blocks vector{bytes_of(whole), n, dtype, size()};
  const Tensor pieces = Tensor::empty({size(), vector.count(rank(), rank() + 1)}, dtype, device_);
  keep.push_back(whole);
  keep.push_back(pieces);
  const int64_t own = vector.bytes(rank(), rank() + 1);
  const CommVolume volume{2 * (size() - 1), n * width - own + (size() - 1) * own};
  auto done = run(CommKind::all_reduce, volume, false, [&] {
    int64_t at = 0;
    for (size_t i = 0; packed && i < parts.size(); at += parts[i++].bytes()) {
      copy(bytes_of(whole) + at, parts[i].raw(), parts[i].bytes());
    }
    sum_own_block(vector, pieces, vector.at(rank()));
    gather_blocks(vector);
    at = 0;
    for (size_t i = 0; packed && i < parts.size(); at += parts[i++].bytes()) {
      copy(bytes_of(parts[i]), bytes_of(whole) + at, parts[i].bytes());
    }
  });
  return std::make_unique<Pending>(std::move(done), std::move(keep));
}

void NcclGroup::reduce_scatter(Tensor& out, const Tensor& in) {
  if (!in.device().is_cuda()) return host_.reduce_scatter(out, in);
  SW_CHECK(in.elements() == out.elements() * size() && in.dtype() == out.dtype() &&
               is_floating(in.dtype()),
           internal, "reduce_scatter: {} {} and {} {} among {} ranks do not fit", in.shape().str(),
           dtype_name(in.dtype()), out.shape().str(), dtype_name(out.dtype()), size());
  const CommVolume volume{size() - 1, in.bytes() - out.bytes()};
  const Blocks vector{bytes_of(in), in.elements(), in.dtype(), size()};
  Tensor pieces;
  if (reduction_ == DeviceReduction::canonical) {
    pieces = Tensor::empty({size(), out.elements()}, in.dtype(), device_);
  }
  run(CommKind::reduce_scatter, volume, true, [&] {
    if (pieces) return sum_own_block(vector, pieces, out.raw());
    check_nccl(ncclReduceScatter(in.raw(), out.raw(), static_cast<size_t>(out.elements()),
                                 nccl_type(in.dtype()), ncclSum, communicator_, stream_),
               "ncclReduceScatter");
  });
}

void NcclGroup::all_gather(Tensor& out, const Tensor& in) {
  if (!in.device().is_cuda()) return host_.all_gather(out, in);
  SW_CHECK(out.bytes() == in.bytes() * size() && in.dtype() == out.dtype(), internal,
           "all_gather: {} and {} among {} ranks do not fit", out.shape().str(), in.shape().str(),
           size());
  run(CommKind::all_gather, {size() - 1, (size() - 1) * in.bytes()}, true, [&] {
    check_nccl(ncclAllGather(in.raw(), out.raw(), static_cast<size_t>(in.bytes()), ncclUint8,
                             communicator_, stream_),
               "ncclAllGather");
  });
}

void NcclGroup::broadcast(Tensor& x, int64_t root) {
  if (!x.device().is_cuda()) return host_.broadcast(x, root);
  const CommVolume volume = rank() == root && size() > 1 ? CommVolume{1, x.bytes()} : CommVolume{};
  run(CommKind::broadcast, volume, true, [&] {
    check_nccl(ncclBroadcast(x.raw(), x.raw(), static_cast<size_t>(x.bytes()), ncclUint8,
                             static_cast<int>(root), communicator_, stream_),
               "ncclBroadcast");
  });
}

void NcclGroup::all_to_all_rows(Tensor& out, std::span<const int64_t> receive_rows,
                                const Tensor& in, std::span<const int64_t> send_rows) {
  if (!in.device().is_cuda()) return host_.all_to_all_rows(out, receive_rows, in, send_rows);
  const auto fits = [&](const Tensor& tensor, std::span<const int64_t> rows) {
    return tensor.rank() >= 1 && std::ssize(rows) == size() &&
           std::accumulate(rows.begin(), rows.end(), int64_t{0}) == tensor.size(0);
  };
  SW_CHECK(fits(in, send_rows) && fits(out, receive_rows) && in.dtype() == out.dtype() &&
               send_rows[rank()] == receive_rows[rank()],
           internal, "all_to_all of group {}: rows per rank and tensors in {}, out {} do not fit",
           name(), in.shape().str(), out.shape().str());
  int64_t row = element_bytes(in.dtype());
  for (int i = 1; i < in.rank(); ++i) row *= in.size(i);
  CommVolume volume;
  for (int64_t r = 0; r < size(); ++r) {
    if (r != rank() && send_rows[r] * row > 0) volume += {1, send_rows[r] * row};
  }
  run(CommKind::all_to_all, volume, true, [&] {
    const char* from = bytes_of(in);
    char* to = bytes_of(out);
    begin();
    for (int64_t r = 0; r < size(); ++r) {
      if (r == rank()) {
        copy(to, from, send_rows[r] * row);
      } else {
        send(r, from, send_rows[r] * row);
        receive(r, to, receive_rows[r] * row);
      }
      from += send_rows[r] * row;
      to += receive_rows[r] * row;
    }
    end();
  });
}

}  // namespace

std::unique_ptr<Group> make_nccl_group(std::unique_ptr<Group> host, CommTrace& trace, Device device,
                                       DeviceReduction reduction) {
  Group& group = *host;
  return std::make_unique<NcclGroup>(group, std::move(host), trace, device, reduction);
}

std::unique_ptr<Group> make_nccl_group(Group& host, CommTrace& trace, Device device,
                                       DeviceReduction reduction) {
  return std::make_unique<NcclGroup>(host, nullptr, trace, device, reduction);
}

}  // namespace sw
