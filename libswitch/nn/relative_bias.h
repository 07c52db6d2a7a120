// T5's relative-position buckets (Raffel et al. 2020, section 2.1).
#pragma once

#include "libswitch/tensor/tensor.h"

namespace sw {

/// Bucket of relative position `offset` = key position - query position, in [0, buckets).
/// Bidirectional: half of the buckets for keys after the query; in each half distances below half
/// of it are exact, further ones logarithmic up to max_distance. Unidirectional: keys after the
/// query fall into bucket 0.
int64_t relative_bucket(int64_t offset, bool bidirectional, int64_t buckets, int64_t max_distance);

/// bucket_of [T+S-1] i32: entry (j - i) + (T - 1) is the bucket of query i, key j.
Tensor relative_buckets(int64_t query_length, int64_t key_length, bool bidirectional,
                        int64_t buckets, int64_t max_distance);

}  // namespace sw
