// The steps of collectives, in canonical order (comm/group.h).
#pragma once

#include <span>
#include <vector>

#include "libswitch/comm/schedule.h"

namespace sw {

/// A vector in memory that ranks cut into as many blocks as they are; block b of p covers elements
/// [n·b/p, n·(b+1)/p).
struct Blocks {
  char* data;
  int64_t elements;
  DType dtype;
  int64_t ranks;

  int64_t begin(int64_t block) const { return elements * block / ranks; }
  int64_t count(int64_t first, int64_t last) const { return begin(last) - begin(first); }
  char* at(int64_t block) const { return data + begin(block) * element_bytes(dtype); }
  /// Of the blocks [first, last).
  int64_t bytes(int64_t first, int64_t last) const {
    return count(first, last) * element_bytes(dtype);
  }
};

/// Reduces by halving: with the neighbour at distance 1 each keeps one half of the vector, then
/// with that at distance 2 one half of the half, and so on. Ends with the block of the rank's
/// reversed bits reduced, the others overwritten. `ranks` is a power of two; `scratch` has room for
/// the larger half.
void append_halving(std::vector<Step>& steps, const Blocks& vector, int64_t rank, ReduceOp op,
                    char* scratch);
/// The way back: the block of the rank's reversed bits spreads to all.
void append_unhalving(std::vector<Step>& steps, const Blocks& vector, int64_t rank);
/// The lowest log2(ranks) bits of `rank` in reverse.
int64_t reversed_bits(int64_t rank, int64_t ranks);

/// Reduces for any number of ranks: each receives its block from all others and combines the pieces
/// in order. `pieces` has room for `ranks` blocks; the result is written to `result`.
void append_exchange(std::vector<Step>& steps, const Blocks& vector, int64_t rank, ReduceOp op,
                     char* pieces, char* result);

/// Gathers block `rank` of every rank: by doubling for a power of two, else from each by itself.
void append_gather(std::vector<Step>& steps, const Blocks& vector, int64_t rank);

/// Passes `bytes` bytes on along a binomial tree.
void append_broadcast(std::vector<Step>& steps, void* data, int64_t bytes, int64_t rank,
                      int64_t ranks, int64_t root);

/// After these, every rank has heard of every other.
void append_barrier(std::vector<Step>& steps, int64_t rank, int64_t ranks);

}  // namespace sw
