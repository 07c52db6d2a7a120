#include "libswitch/comm/group.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "libswitch/base/error.h"

namespace sw {

Group::Group(std::string name, std::vector<int64_t> world_ranks, int64_t rank)
    : name_(std::move(name)),
      world_ranks_(std::move(world_ranks)),
      rank_(rank),
      size_(static_cast<int64_t>(world_ranks_.size())) {
  SW_CHECK(size_ >= 1 && rank >= 0 && rank < size_, internal, "group {}: rank {} of {}", name_,
           rank, size_);
}

void Group::all_reduce(Tensor& x, ReduceOp op) { start_all_reduce({x}, op)->finish(); }

void Group::all_to_all(Tensor& out, const Tensor& in) {
  SW_CHECK(in.defined() && in.rank() >= 1 && in.size(0) % size_ == 0, internal,
           "all_to_all of group {}: {} rows do not divide into {} ranks", name_,
           in.defined() && in.rank() >= 1 ? in.size(0) : 0, size_);
  const std::vector<int64_t> rows(static_cast<size_t>(size_), in.size(0) / size_);
  all_to_all_rows(out, rows, in, rows);
}

// Plain values travel as bytes: they are few, and 64-bit integers are no element type of tensors.
std::vector<int64_t> Group::all_gather_values(std::span<const int64_t> values) {
  const auto bytes = static_cast<int64_t>(values.size_bytes());
  Tensor in = Tensor::empty({bytes}, DType::u8), out = Tensor::empty({bytes * size_}, DType::u8);
  std::vector<int64_t> result(values.size() * static_cast<size_t>(size_));
  if (bytes > 0) std::memcpy(in.raw(), values.data(), values.size_bytes());
  all_gather(out, in);
  if (bytes > 0) std::memcpy(result.data(), out.raw(), static_cast<size_t>(out.bytes()));
  return result;
}

int64_t Group::all_reduce_value(int64_t value, ReduceOp op) {
  const std::vector<int64_t> values = all_gather_values({&value, 1});
  switch (op) {
    case ReduceOp::sum: return std::accumulate(values.begin(), values.end(), int64_t{0});
    case ReduceOp::max: return *std::max_element(values.begin(), values.end());
    case ReduceOp::min: return *std::min_element(values.begin(), values.end());
  }
  fail(ErrorKind::internal, "all_reduce_value: unknown operation {}", static_cast<int>(op));
}

std::vector<std::string> Group::all_gather_bytes(const std::string& bytes) {
  const auto own = static_cast<int64_t>(bytes.size());
  const std::vector<int64_t> lengths = all_gather_values({&own, 1});
  // All padded to the longest: more bytes, but the few messages of an all-gather.
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  Tensor in = Tensor::zeros({longest}, DType::u8);
  Tensor out = Tensor::empty({longest * size_}, DType::u8);
  if (own > 0) std::memcpy(in.raw(), bytes.data(), bytes.size());
  all_gather(out, in);
  std::vector<std::string> result;
  for (int64_t r = 0; r < size_; ++r) {
    result.emplace_back(static_cast<const char*>(out.raw()) + r * longest,
                        static_cast<size_t>(lengths[static_cast<size_t>(r)]));
  }
  return result;
}

std::string Group::broadcast_bytes(const std::string& bytes, int64_t root) {
  auto length = static_cast<int64_t>(bytes.size());
  Tensor size = Tensor::empty({static_cast<int64_t>(sizeof length)}, DType::u8);
  std::memcpy(size.raw(), &length, sizeof length);
  broadcast(size, root);
  std::memcpy(&length, size.raw(), sizeof length);
  Tensor text = Tensor::empty({length}, DType::u8);
  if (rank_ == root && length > 0) std::memcpy(text.raw(), bytes.data(), bytes.size());
  broadcast(text, root);
  return {static_cast<const char*>(text.raw()), static_cast<size_t>(length)};
}

}  // namespace sw
