#include "tests/support/collective_checks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "libswitch/base/rng.h"
#include "libswitch/base/sum_tree.h"

namespace sw {
namespace {

constexpr int64_t kSizes[] = {0, 1, 2, 3, 5, 7, 16, 33, 1000};
constexpr int64_t kLarge = 300'001;  // combined by several threads, sent in several fragments

/// Value i of a rank. Magnitudes lie up to 2^24 apart, so that another order of a sum gives other
/// bits.
template <class T>
T value(int64_t rank, int64_t i) {
  uint64_t x = static_cast<uint64_t>(rank * 1'000'003 + i + 1) * 0x9E3779B97F4A7C15u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 32;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<int64_t>(x % 200'001) - 100'000);
  } else {
    const double mantissa = std::ldexp(static_cast<double>(x >> 11), -53) - 0.5;
    return static_cast<T>(std::ldexp(mantissa, static_cast<int>(x % 25)));
  }
}

template <class T>
std::vector<T> values(int64_t rank, int64_t n) {
  std::vector<T> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(value<T>(rank, i));
  return x;
}

template <class T>
T combined(ReduceOp op, T left, T right) {
  if (op == ReduceOp::sum) {
    if constexpr (std::is_same_v<T, bf16>) return bf16(float(left) + float(right));
    return left + right;
  }
  if (left != left) return left;
  if (right != right) return right;
  return op == ReduceOp::max ? std::max<T>(left, right) : std::min<T>(left, right);
}

/// The tree over ranks by the class that continues it within a rank.
template <class T>
std::vector<T> reduced(ReduceOp op, int64_t ranks, int64_t n) {
  const auto add = [op](std::vector<T>& left, const std::vector<T>& right) {
    for (size_t i = 0; i < left.size(); ++i) left[i] = combined(op, left[i], right[i]);
  };
  SumTree<std::vector<T>, decltype(add)> tree(add);
  for (int64_t r = 0; r < ranks; ++r) tree.push(values<T>(r, n));
  return tree.finish();
}

template <class T>
bool same_bits(const Tensor& got, const std::vector<T>& wanted) {
  return got.elements() == std::ssize(wanted) &&
         (wanted.empty() || std::memcmp(got.raw(), wanted.data(), wanted.size() * sizeof(T)) == 0);
}

template <class T>
void check_reductions(Group& group) {
  std::vector<int64_t> sizes(std::begin(kSizes), std::end(kSizes));
  sizes.push_back(kLarge);
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    for (const int64_t n : sizes) {
      Tensor x = Tensor::from({n}, values<T>(group.rank(), n));
      group.all_reduce(x, op);
      EXPECT_TRUE(same_bits(x, reduced<T>(op, group.size(), n)))
          << n << " values, operation " << static_cast<int>(op);
    }
  }
}
void all_reduce_f32(World& world) { check_reductions<float>(world.group()); }
void all_reduce_f64(World& world) { check_reductions<double>(world.group()); }
void all_reduce_bf16(World& world) { check_reductions<bf16>(world.group()); }
void all_reduce_i32(World& world) { check_reductions<int32_t>(world.group()); }

void no_nan_is_lost(World& world) {
  Group& group = world.group();
  for (int64_t source = 0; source < group.size(); ++source) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
      const float x = group.rank() == source ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
      Tensor tensor = Tensor::from({3}, std::vector<float>{0, x, 2});
      group.all_reduce(tensor, op);
      EXPECT_TRUE(std::isnan(tensor.data<float>()[1])) << "of rank " << source;
      EXPECT_FALSE(std::isnan(tensor.data<float>()[2]));
    }
  }
}

template <class T>
void check_reduce_scatter(Group& group, int64_t rows) {
  const int64_t n = group.size() * rows * 3;
  Tensor out = Tensor::empty({rows, 3}, dtype_of<T>());
  const Tensor in = Tensor::from({group.size() * rows, 3}, values<T>(group.rank(), n));
  group.reduce_scatter(out, in);
  const std::vector<T> all = reduced<T>(ReduceOp::sum, group.size(), n);
  const auto begin = all.begin() + group.rank() * rows * 3;
  EXPECT_TRUE(same_bits(out, std::vector<T>(begin, begin + rows * 3))) << rows << " rows";
  EXPECT_TRUE(same_bits(in, values<T>(group.rank(), n))) << "the input is left alone";
}
void reduce_scatter(World& world) {
  for (const int64_t rows : {0, 1, 2, 5, 40'000}) {
    check_reduce_scatter<float>(world.group(), rows);
    check_reduce_scatter<bf16>(world.group(), rows);
  }
}

void all_gather(World& world) {
  Group& group = world.group();
  for (const int64_t rows : {0, 1, 3, 20'000}) {
    std::vector<double> wanted;
    for (int64_t r = 0; r < group.size(); ++r) {
      const auto part = values<double>(r, rows * 2);
      wanted.insert(wanted.end(), part.begin(), part.end());
    }
    const Tensor in = Tensor::from({rows, 2}, values<double>(group.rank(), rows * 2));
    Tensor out = Tensor::empty({rows * group.size(), 2}, DType::f64);
    group.all_gather(out, in);
    EXPECT_TRUE(same_bits(out, wanted)) << rows << " rows";

    Tensor whole = Tensor::zeros({rows * group.size(), 2}, DType::f64);
    const Tensor own = whole.slice(group.rank() * rows, (group.rank() + 1) * rows);
    if (rows > 0) std::memcpy(const_cast<Tensor&>(own).raw(), in.raw(), in.bytes());
    group.all_gather(whole, own);
    EXPECT_TRUE(same_bits(whole, wanted)) << rows << " rows in place";
  }
}

void broadcast(World& world) {
  Group& group = world.group();
  for (int64_t root = 0; root < group.size(); ++root) {
    for (const int64_t n : {0, 1, 5, 100'000}) {
      Tensor x = Tensor::from({n}, values<float>(group.rank(), n));
      group.broadcast(x, root);
      EXPECT_TRUE(same_bits(x, values<float>(root, n))) << n << " values of rank " << root;
    }
  }
}

void all_to_all(World& world) {
  Group& group = world.group();
  const int64_t p = group.size();
  for (const int64_t rows : {0, 1, 3, 5000}) {
    const Tensor in = Tensor::from({p * rows, 2}, values<float>(group.rank(), p * rows * 2));
    Tensor out = Tensor::empty({p * rows, 2}, DType::f32);
    group.all_to_all(out, in);
    std::vector<float> wanted;
    for (int64_t r = 0; r < p; ++r) {
      const auto part = values<float>(r, p * rows * 2);
      const auto begin = part.begin() + group.rank() * rows * 2;
      wanted.insert(wanted.end(), begin, begin + rows * 2);
    }
    EXPECT_TRUE(same_bits(out, wanted)) << rows << " rows";
  }
}

void ragged_all_to_all(World& world) {
  Group& group = world.group();
  const int64_t p = group.size(), rank = group.rank();
  for (int64_t round = 0; round < 4; ++round) {
    // Round 0 sends nothing at all; some pairs exchange nothing in every round.
    const auto rows = [&](int64_t from, int64_t to) { return (from * 5 + to * 3) % 4 * round; };
    const auto begin_of = [&](int64_t from, int64_t to) {
      int64_t begin = 0;
      for (int64_t r = 0; r < to; ++r) begin += rows(from, r);
      return begin;
    };
    std::vector<int64_t> send, receive;
    for (int64_t r = 0; r < p; ++r) {
      send.push_back(rows(rank, r));
      receive.push_back(rows(r, rank));
    }
    const int64_t sent = begin_of(rank, p);
    const Tensor in = Tensor::from({sent, 3}, values<int32_t>(rank, sent * 3));
    Tensor out =
        Tensor::empty({std::accumulate(receive.begin(), receive.end(), int64_t{0}), 3}, DType::i32);
    group.all_to_all_rows(out, receive, in, send);
    std::vector<int32_t> wanted;
    for (int64_t r = 0; r < p; ++r) {
      for (int64_t i = begin_of(r, rank) * 3; i < begin_of(r, rank + 1) * 3; ++i) {
        wanted.push_back(value<int32_t>(r, i));
      }
    }
    EXPECT_TRUE(same_bits(out, wanted)) << "round " << round;
  }
}

void plain_values(World& world) {
  Group& group = world.group();
  const int64_t p = group.size(), rank = group.rank(), big = int64_t{1} << 40;
  EXPECT_EQ(group.all_reduce_value(big + rank, ReduceOp::sum), p * big + p * (p - 1) / 2);
  EXPECT_EQ(group.all_reduce_value(-rank, ReduceOp::max), 0);
  EXPECT_EQ(group.all_reduce_value(-rank, ReduceOp::min), 1 - p);
  const std::vector<int64_t> two = {rank, -rank};
  const std::vector<int64_t> gathered = group.all_gather_values(two);
  ASSERT_EQ(std::ssize(gathered), 2 * p);
  for (int64_t r = 0; r < p; ++r) {
    EXPECT_EQ(gathered[static_cast<size_t>(2 * r)], r);
    EXPECT_EQ(gathered[static_cast<size_t>(2 * r + 1)], -r);
  }
  EXPECT_TRUE(group.all_gather_values({}).empty());
}

void plain_bytes(World& world) {
  Group& group = world.group();
  const auto text = [](int64_t rank) {
    return std::string(static_cast<size_t>(rank * 7 % 5), static_cast<char>('a' + rank % 26));
  };
  const std::vector<std::string> all = group.all_gather_bytes(text(group.rank()));
  ASSERT_EQ(std::ssize(all), group.size());
  for (int64_t r = 0; r < group.size(); ++r) EXPECT_EQ(all[static_cast<size_t>(r)], text(r));
  for (int64_t root = 0; root < group.size(); ++root) {
    EXPECT_EQ(group.broadcast_bytes(text(group.rank()), root), text(root));
  }
  EXPECT_EQ(group.broadcast_bytes("", 0), "");
}

void barrier(World& world) {
  for (int i = 0; i < 20; ++i) world.group().barrier();
}

/// Reductions of many tensors under way while other collectives of the same group and of a
/// subgroup run, finished in another order than they were begun.
void pending_reductions(World& world) {
  Group& group = world.group();
  const int64_t p = group.size();
  std::vector<int64_t> even, odd;
  for (int64_t r = 0; r < p; ++r) (r % 2 == 0 ? even : odd).push_back(r);
  auto evens = world.make_group("even", even);
  std::unique_ptr<Group> odds;
  if (!odd.empty()) odds = world.make_group("odd", odd);
  Group& half = group.rank() % 2 == 0 ? *evens : *odds;

  constexpr int64_t kParts[] = {1, 0, 37, 20'000, 2};
  std::vector<std::vector<Tensor>> buckets;
  std::vector<std::unique_ptr<PendingCollective>> pending;
  int64_t n = 0;
  for (const int64_t part : kParts) n += part;
  const std::vector<float> own = values<float>(group.rank(), n);
  for (int bucket = 0; bucket < 4; ++bucket) {
    std::vector<Tensor> parts;
    const float* from = own.data();
    for (const int64_t part : kParts) {
      parts.push_back(Tensor::from({part}, std::vector<float>(from, from + part)));
      from += part;
    }
    buckets.push_back(parts);
    pending.push_back(group.start_all_reduce(parts));
    all_to_all(world);
    Tensor x = Tensor::from({5}, std::vector<int32_t>(5, 1));
    half.all_reduce(x);
    EXPECT_EQ(x.data<int32_t>()[4], half.size());
    if (bucket == 1) pending[0]->advance();
  }
  for (const int bucket : {2, 0, 3, 1}) pending[static_cast<size_t>(bucket)]->finish();
  const std::vector<float> wanted = reduced<float>(ReduceOp::sum, p, n);
  for (const std::vector<Tensor>& parts : buckets) {
    auto from = wanted.begin();
    for (const Tensor& part : parts) {
      EXPECT_TRUE(same_bits(part, std::vector<float>(from, from + part.elements())));
      from += part.elements();
    }
  }
  EXPECT_TRUE(pending[0]->advance()) << "a finished one stays finished";
}

/// What the header of message_group.h promises.
void volumes(World& world) {
  Group& group = world.group();
  const int64_t p = group.size(), n = 120 * p;
  const bool halves = (p & (p - 1)) == 0;
  int64_t levels = 0;
  while (int64_t{1} << levels < p) ++levels;
  const int64_t gathering = halves ? levels : p - 1;
  const auto sent = [&](const char* what, int64_t messages, int64_t bytes, const auto& call) {
    const CommVolume before = group.volume();
    call();
    EXPECT_EQ(group.volume().messages - before.messages, messages) << what;
    EXPECT_EQ(group.volume().bytes - before.bytes, bytes) << what;
  };
  Tensor x = Tensor::zeros({n}, DType::f32), y = Tensor::zeros({n}, DType::f32);
  Tensor part = Tensor::zeros({n / p}, DType::f32);
  const int64_t cut = n / p * (p - 1) * 4;  // (p-1)/p of the vector
  sent("all_reduce", 2 * gathering, 2 * cut, [&] { group.all_reduce(x); });
  sent("reduce_scatter", gathering, cut, [&] { group.reduce_scatter(part, x); });
  sent("all_gather", gathering, cut, [&] { group.all_gather(x, part); });
  sent("all_to_all", p - 1, cut, [&] { group.all_to_all(y, x); });
  sent("barrier", levels, 0, [&] { group.barrier(); });
  sent("reduction of nothing", 0, 0, [&] {
    Tensor none = Tensor::zeros({0, 4}, DType::f32);
    group.all_reduce(none);
  });
  // A broadcast is sent p-1 times in all.
  const int64_t before = group.volume().bytes;
  group.broadcast(x, 0);
  const int64_t own = group.volume().bytes - before;
  EXPECT_EQ(group.all_reduce_value(own, ReduceOp::sum), (p - 1) * n * 4);
}

void trace(World& world) {
  Group& group = world.group();
  if (group.size() == 1) return;
  group.barrier();
  Tensor x = Tensor::zeros({8}, DType::f32);
  group.all_reduce(x);
  const std::vector<CommEvent> events = world.trace().events();
  ASSERT_GE(events.size(), 2u);
  const CommEvent &last = events.back(), &before = events[events.size() - 2];
  EXPECT_EQ(last.kind, CommKind::all_reduce);
  EXPECT_EQ(before.kind, CommKind::barrier);
  EXPECT_EQ(last.group, "world");
  EXPECT_EQ(last.sequence, before.sequence + 1);
  EXPECT_GE(last.entered, before.left);
  EXPECT_GE(last.left, last.entered);
  EXPECT_FALSE(world.trace().waiting());
  EXPECT_NE(world.trace().str().find("last left all_reduce #"), std::string::npos);
}

constexpr CollectiveCheck kChecks[] = {
    {"AllReduceOfF32InCanonicalOrder", all_reduce_f32},
    {"AllReduceOfF64InCanonicalOrder", all_reduce_f64},
    {"AllReduceOfBf16InCanonicalOrder", all_reduce_bf16},
    {"AllReduceOfI32", all_reduce_i32},
    {"NoNanIsLost", no_nan_is_lost},
    {"ReduceScatterInCanonicalOrder", reduce_scatter},
    {"AllGather", all_gather},
    {"Broadcast", broadcast},
    {"AllToAll", all_to_all},
    {"RaggedAllToAll", ragged_all_to_all},
    {"PlainValues", plain_values},
    {"PlainBytes", plain_bytes},
    {"Barrier", barrier},
    {"PendingReductionsAmongOtherCollectives", pending_reductions},
    {"VolumesAreTheFormulae", volumes},
    {"TraceTellsWhatWasDone", trace},
};

}  // namespace

std::span<const CollectiveCheck> collective_checks() { return kChecks; }

}  // namespace sw
