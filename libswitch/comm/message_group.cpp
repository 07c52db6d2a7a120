#include "libswitch/comm/message_group.h"

#include <bit>
#include <cstring>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/comm/device_copy.h"
#include "libswitch/comm/steps.h"

namespace sw {
namespace {

char* bytes_of(const Tensor& tensor) {
  return static_cast<char*>(const_cast<Tensor&>(tensor).raw());
}

void copy_bytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<size_t>(bytes));
}

bool on_device(const Tensor& tensor) { return tensor.defined() && tensor.device().is_cuda(); }

void copy(const Tensor& to, const Tensor& from) {
  copy_between(bytes_of(to), to.device(), from.raw(), from.device(), from.bytes());
}

/// Tensors in host memory that stand for a collective's input and output where those lie on a GPU.
/// Has compiled, but never run on a GPU yet.
struct Staged {
  Staged(Tensor& output, const Tensor& input) : target(output) {
    in = Tensor::empty(input.shape(), input.dtype());
    out = Tensor::empty(output.shape(), output.dtype());
    copy(in, input);
  }
  void finish() { copy(target, out); }
  Tensor& target;
  Tensor in, out;
};

Tensor scratch(int64_t bytes) { return Tensor::empty({bytes}, DType::u8); }

/// "[2·4, 3]" of out for in [4, 3].
void check_rows(const char* where, const Tensor& whole, const Tensor& part, int64_t ranks) {
  bool fits = part.defined() && whole.defined() && part.rank() >= 1 &&
              part.rank() == whole.rank() && part.dtype() == whole.dtype() &&
              whole.size(0) == part.size(0) * ranks;
  for (int i = 1; fits && i < part.rank(); ++i) fits = whole.size(i) == part.size(i);
  SW_CHECK(fits, internal, "{}: {} {} and {} {} among {} ranks do not fit", where,
           whole.shape().str(), dtype_name(whole.dtype()), part.shape().str(),
           dtype_name(part.dtype()), ranks);
}

}  // namespace

MessageGroup::MessageGroup(std::string name, std::vector<int64_t> world_ranks, int64_t rank,
                           std::unique_ptr<Transport> transport, RankState& state)
    : Group(std::move(name), std::move(world_ranks), rank),
      transport_(std::move(transport)),
      state_(state) {
  SW_CHECK(transport_ != nullptr || size() == 1, internal, "group {}: no transport", this->name());
}

bool MessageGroup::halves() const { return std::has_single_bit(static_cast<uint64_t>(size())); }

std::unique_ptr<Schedule> MessageGroup::start(CommKind kind, std::vector<Step> steps,
                                              std::vector<Tensor> keep) {
  CommVolume volume;
  for (const Step& step : steps) {
    for (const Step::Part& part : step.sends) volume += {1, part.bytes};
  }
  volume_ += volume;
  const int64_t tag = sequence_++;
  const int64_t ticket = state_.trace.enter(name(), kind, tag, volume.bytes);
  auto schedule = std::make_unique<Schedule>(state_, transport_.get(), tag, ticket,
                                             std::move(steps), std::move(keep));
  schedule->advance();
  return schedule;
}

std::unique_ptr<PendingCollective> MessageGroup::start_all_reduce(std::vector<Tensor> parts,
                                                                  ReduceOp op) {
  Blocks vector{nullptr, 0, parts.empty() ? DType::f32 : parts[0].dtype(), size()};
  for (const Tensor& part : parts) {
    SW_CHECK(part.dtype() == vector.dtype, internal, "all_reduce: {} among parts of {}",
             dtype_name(part.dtype()), dtype_name(vector.dtype));
    vector.elements += part.elements();
  }
  std::vector<Step> steps;
  std::vector<Tensor> keep = parts;
  if (size() > 1 && vector.elements > 0) {
    // One part is reduced where it lies; several are packed, and what lies on a GPU.
    const int64_t bytes = vector.bytes(0, size());
    const bool packed = parts.size() > 1 || on_device(parts[0]);
    if (packed) keep.push_back(scratch(bytes));
    vector.data = bytes_of(keep.back());
    if (packed) {
      char* at = vector.data;
      for (const Tensor& part : parts) {
        copy_between(at, {}, part.raw(), part.device(), part.bytes());
        at += part.bytes();
      }
    }
    if (halves()) {
      const int64_t half = vector.bytes(size() / 2, size());  // not the smaller one
      keep.push_back(scratch(half));
      append_halving(steps, vector, rank(), op, bytes_of(keep.back()));
      append_unhalving(steps, vector, rank());
    } else {
      keep.push_back(scratch(vector.bytes(rank(), rank() + 1) * size()));
      append_exchange(steps, vector, rank(), op, bytes_of(keep.back()), vector.at(rank()));
      append_gather(steps, vector, rank());
    }
    if (packed) {
      Step& unpack = steps.emplace_back();
      unpack.then = [from = vector.data, parts = std::move(parts)] {
        const char* at = from;
        for (const Tensor& part : parts) {
          copy_between(bytes_of(part), part.device(), at, {}, part.bytes());
          at += part.bytes();
        }
      };
    }
  }
  return start(CommKind::all_reduce, std::move(steps), std::move(keep));
}

void MessageGroup::reduce_scatter(Tensor& out, const Tensor& in) {
  check_rows("reduce_scatter", in, out, size());
  if (on_device(out)) {
    Staged staged(out, in);
    reduce_scatter(staged.out, staged.in);
    return staged.finish();
  }
  std::vector<Step> steps;
  Tensor work, spare;
  const int64_t bytes = out.bytes();
  Blocks vector{bytes_of(in), in.elements(), in.dtype(), size()};
  if (size() == 1) {
    copy_bytes(out.raw(), in.raw(), bytes);
  } else if (halves()) {
    // Halving ends with the block of the rank's reversed bits: put this rank's there.
    work = scratch(in.bytes());
    vector.data = bytes_of(work);
    for (int64_t block = 0; block < size(); ++block) {
      copy_bytes(vector.at(reversed_bits(block, size())), bytes_of(in) + block * bytes, bytes);
    }
    spare = scratch(in.bytes() / 2);
    append_halving(steps, vector, rank(), ReduceOp::sum, bytes_of(spare));
    steps.back().then = [last = std::move(steps.back().then), to = out.raw(),
                         from = vector.at(reversed_bits(rank(), size())), bytes] {
      last();
      copy_bytes(to, from, bytes);
    };
  } else {
    spare = scratch(in.bytes());
    append_exchange(steps, vector, rank(), ReduceOp::sum, bytes_of(spare), bytes_of(out));
  }
  start(CommKind::reduce_scatter, std::move(steps))->finish();
}

void MessageGroup::all_gather(Tensor& out, const Tensor& in) {
  check_rows("all_gather", out, in, size());
  if (on_device(out)) {
    Staged staged(out, in);
    all_gather(staged.out, staged.in);
    return staged.finish();
  }
  const Blocks vector{bytes_of(out), out.elements(), out.dtype(), size()};
  copy_bytes(vector.at(rank()), in.raw(), in.bytes());
  std::vector<Step> steps;
  append_gather(steps, vector, rank());
  start(CommKind::all_gather, std::move(steps))->finish();
}

void MessageGroup::broadcast(Tensor& x, int64_t root) {
  SW_CHECK(root >= 0 && root < size(), internal, "broadcast: root {} of {} ranks", root, size());
  if (on_device(x)) {
    Tensor host = Tensor::empty(x.shape(), x.dtype());
    if (rank() == root) copy(host, x);
    broadcast(host, root);
    return copy(x, host);
  }
  std::vector<Step> steps;
  append_broadcast(steps, x.raw(), x.bytes(), rank(), size(), root);
  start(CommKind::broadcast, std::move(steps))->finish();
}

void MessageGroup::all_to_all_rows(Tensor& out, std::span<const int64_t> receive_rows,
                                   const Tensor& in, std::span<const int64_t> send_rows) {
  const auto fits = [&](const Tensor& tensor, std::span<const int64_t> rows) {
    return tensor.defined() && tensor.rank() >= 1 && std::ssize(rows) == size() &&
           std::accumulate(rows.begin(), rows.end(), int64_t{0}) == tensor.size(0);
  };
  SW_CHECK(fits(in, send_rows) && fits(out, receive_rows) && in.dtype() == out.dtype(), internal,
           "all_to_all of group {}: rows per rank and tensors in {} {}, out {} {} do not fit",
           name(), in.shape().str(), dtype_name(in.dtype()), out.shape().str(),
           dtype_name(out.dtype()));
  SW_CHECK(send_rows[rank()] == receive_rows[rank()], internal,
           "all_to_all of group {}: rank {} sends {} rows to itself and receives {}", name(),
           rank(), send_rows[rank()], receive_rows[rank()]);
  int64_t row = element_bytes(in.dtype()), out_row = row;
  for (int i = 1; i < in.rank(); ++i) row *= in.size(i);
  for (int i = 1; i < out.rank(); ++i) out_row *= out.size(i);
  SW_CHECK(row == out_row, internal, "all_to_all of group {}: rows of in {} and out {} differ",
           name(), in.shape().str(), out.shape().str());

  if (on_device(out)) {
    Staged staged(out, in);
    all_to_all_rows(staged.out, receive_rows, staged.in, send_rows);
    return staged.finish();
  }

  std::vector<const char*> from(static_cast<size_t>(size()));
  std::vector<char*> to(from.size());
  const char* next_from = bytes_of(in);
  char* next_to = bytes_of(out);
  for (size_t r = 0; r < from.size(); ++r) {
    from[r] = next_from;
    to[r] = next_to;
    next_from += send_rows[r] * row;
    next_to += receive_rows[r] * row;
  }
  copy_bytes(to[rank()], from[rank()], send_rows[rank()] * row);
  std::vector<Step> steps(1);
  for (int64_t shift = 1; shift < size(); ++shift) {
    const int64_t target = (rank() + shift) % size(), source = (rank() - shift + size()) % size();
    steps[0].receive(source, to[source], receive_rows[source] * row);
    steps[0].send(target, from[target], send_rows[target] * row);
  }
  start(CommKind::all_to_all, std::move(steps))->finish();
}

void MessageGroup::barrier() {
  std::vector<Step> steps;
  append_barrier(steps, rank(), size());
  start(CommKind::barrier, std::move(steps))->finish();
}

}  // namespace sw
