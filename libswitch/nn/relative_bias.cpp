#include "libswitch/nn/relative_bias.h"

#include <algorithm>
#include <cmath>

namespace sw {

int64_t relative_bucket(int64_t offset, bool bidirectional, int64_t buckets, int64_t max_distance) {
  int64_t bucket = 0;
  int64_t distance = -offset;
  if (bidirectional) {
    buckets /= 2;
    if (distance < 0) {
      bucket += buckets;
      distance = -distance;
    }
  } else {
    distance = std::max<int64_t>(distance, 0);
  }
  const int64_t exact = buckets / 2;
  if (distance < exact) return bucket + distance;
  // Exact powers (distance = exact · r^(k/n)) must not fall below their bucket by rounding: the
  // margin is far below the gap between the logarithms of neighbouring distances.
  const double position = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                          std::log(static_cast<double>(max_distance) / static_cast<double>(exact)) *
                          static_cast<double>(buckets - exact);
  const auto step = static_cast<int64_t>(position + 1e-9);
  return bucket + std::min(exact + step, buckets - 1);
}

Tensor relative_buckets(int64_t query_length, int64_t key_length, bool bidirectional,
                        int64_t buckets, int64_t max_distance) {
  Tensor bucket_of = Tensor::empty({query_length + key_length - 1}, DType::i32);
  auto* out = bucket_of.data<int32_t>();
  for (int64_t d = 0; d < query_length + key_length - 1; ++d) {
    const int64_t offset = d - (query_length - 1);
    out[d] = static_cast<int32_t>(relative_bucket(offset, bidirectional, buckets, max_distance));
  }
  return bucket_of;
}

}  // namespace sw
