// Sums over tokens in an order that depends on sizes alone, and the dispatch on the master dtype.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/tensor/tensor.h"

namespace sw {

/// Calls fn with a float or a double (the master type) according to `dtype`; throws usage for any
/// other.
template <class Fn>
void with_master_type(DType dtype, const char* where, const Fn& fn) {
  SW_CHECK(dtype == DType::f32 || dtype == DType::f64, usage,
           "{}: probabilities must be f32 or f64, got {}", where, dtype_name(dtype));
  if (dtype == DType::f64) {
    fn(double{});
  } else {
    fn(float{});
  }
}

/// Tokens whose contributions are added one after the other before blocks are added to each other.
inline constexpr int64_t kTokensPerBlock = 256;

/// [G, width] doubles: for every group of `group_size` tokens, what fn(n, sums) added to `width`
/// sums for its tokens n. Blocks of tokens are summed in order, in parallel, then added in order.
template <class Fn>
std::vector<double> sum_per_group(int64_t groups, int64_t group_size, int64_t width, const Fn& fn) {
  const int64_t blocks = (group_size + kTokensPerBlock - 1) / kTokensPerBlock;
  std::vector<double> partial(static_cast<size_t>(groups * blocks * width), 0.0);
  // Small groups share a chunk of work; what a block sums does not depend on it.
  const int64_t work = std::min(group_size, kTokensPerBlock) * width;
  parallel_for(groups * blocks, 32768 / work, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t group = block / blocks;
      const int64_t first = group * group_size + block % blocks * kTokensPerBlock;
      const int64_t last = std::min(first + kTokensPerBlock, (group + 1) * group_size);
      double* sums = partial.data() + block * width;
      for (int64_t n = first; n < last; ++n) fn(n, sums);
    }
  });
  if (blocks == 1) return partial;
  std::vector<double> total(static_cast<size_t>(groups * width), 0.0);
  for (int64_t block = 0; block < groups * blocks; ++block) {
    double* sums = total.data() + block / blocks * width;
    for (int64_t i = 0; i < width; ++i) sums[i] += partial[block * width + i];
  }
  return total;
}

}  // namespace sw
