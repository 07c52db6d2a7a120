#include "libswitch/comm/steps.h"

#include <bit>
#include <cstring>

#include "libswitch/comm/combine.h"

namespace sw {
namespace {

/// Blocks [first, last) at one level of the halving, and what the rank keeps of them.
struct Half {
  int64_t distance, peer;
  int64_t keep_first, keep_last, give_first, give_last;
  bool left;  // whether this rank's values stand on the left of the sum
};

std::vector<Half> halves_of(int64_t rank, int64_t ranks) {
  std::vector<Half> halves;
  int64_t first = 0, last = ranks;
  for (int64_t distance = 1; distance < ranks; distance *= 2) {
    const int64_t middle = (first + last) / 2;
    const bool left = (rank & distance) == 0;
    Half half{distance, rank ^ distance, first, middle, middle, last, left};
    if (!left) {
      std::swap(half.keep_first, half.give_first);
      std::swap(half.keep_last, half.give_last);
    }
    first = half.keep_first;
    last = half.keep_last;
    halves.push_back(half);
  }
  return halves;
}

bool power_of_two(int64_t n) { return std::has_single_bit(static_cast<uint64_t>(n)); }

}  // namespace

void append_halving(std::vector<Step>& steps, const Blocks& vector, int64_t rank, ReduceOp op,
                    char* scratch) {
  for (const Half& half : halves_of(rank, vector.ranks)) {
    Step& step = steps.emplace_back();
    step.send(half.peer, vector.at(half.give_first), vector.bytes(half.give_first, half.give_last));
    step.receive(half.peer, scratch, vector.bytes(half.keep_first, half.keep_last));
    step.then = [=] {
      char* own = vector.at(half.keep_first);
      combine(op, vector.dtype, own, half.left ? own : scratch, half.left ? scratch : own,
              vector.count(half.keep_first, half.keep_last));
    };
  }
}

void append_unhalving(std::vector<Step>& steps, const Blocks& vector, int64_t rank) {
  const std::vector<Half> halves = halves_of(rank, vector.ranks);
  for (auto half = halves.rbegin(); half != halves.rend(); ++half) {
    Step& step = steps.emplace_back();
    step.send(half->peer, vector.at(half->keep_first),
              vector.bytes(half->keep_first, half->keep_last));
    step.receive(half->peer, vector.at(half->give_first),
                 vector.bytes(half->give_first, half->give_last));
  }
}

int64_t reversed_bits(int64_t rank, int64_t ranks) {
  int64_t reversed = 0;
  for (int64_t bit = 1; bit < ranks; bit *= 2) reversed = reversed * 2 + (rank & bit ? 1 : 0);
  return reversed;
}

void append_exchange(std::vector<Step>& steps, const Blocks& vector, int64_t rank, ReduceOp op,
                     char* pieces, char* result) {
  Step& step = steps.emplace_back();
  const int64_t bytes = vector.bytes(rank, rank + 1);
  for (int64_t shift = 1; shift < vector.ranks; ++shift) {
    const int64_t to = (rank + shift) % vector.ranks;
    const int64_t from = (rank - shift + vector.ranks) % vector.ranks;
    step.receive(from, pieces + from * bytes, bytes);
    step.send(to, vector.at(to), vector.bytes(to, to + 1));
  }
  step.then = [=] {
    if (bytes == 0) return;
    std::memcpy(pieces + rank * bytes, vector.at(rank), static_cast<size_t>(bytes));
    combine_pieces(op, vector.dtype, pieces, vector.ranks, vector.count(rank, rank + 1));
    std::memcpy(result, pieces, static_cast<size_t>(bytes));
  };
}

void append_gather(std::vector<Step>& steps, const Blocks& vector, int64_t rank) {
  const int64_t ranks = vector.ranks;
  if (!power_of_two(ranks)) {
    Step& step = steps.emplace_back();
    for (int64_t shift = 1; shift < ranks; ++shift) {
      const int64_t from = (rank - shift + ranks) % ranks;
      step.receive(from, vector.at(from), vector.bytes(from, from + 1));
      step.send((rank + shift) % ranks, vector.at(rank), vector.bytes(rank, rank + 1));
    }
    return;
  }
  for (int64_t distance = 1; distance < ranks; distance *= 2) {
    const int64_t own = rank & ~(distance - 1), other = own ^ distance;
    Step& step = steps.emplace_back();
    step.send(rank ^ distance, vector.at(own), vector.bytes(own, own + distance));
    step.receive(rank ^ distance, vector.at(other), vector.bytes(other, other + distance));
  }
}

void append_broadcast(std::vector<Step>& steps, void* data, int64_t bytes, int64_t rank,
                      int64_t ranks, int64_t root) {
  // Place in a tree with the root at 0: place q hears from q less its lowest bit, and passes on to
  // q plus every lower bit.
  const int64_t place = (rank - root + ranks) % ranks;
  const auto rank_at = [&](int64_t other) { return (other + root) % ranks; };
  int64_t bit = 1;
  while (bit < ranks && (place & bit) == 0) bit *= 2;
  if (place != 0) steps.emplace_back().receive(rank_at(place - bit), data, bytes);
  Step& step = steps.emplace_back();
  for (bit /= 2; bit >= 1; bit /= 2) {
    if (place + bit < ranks) step.send(rank_at(place + bit), data, bytes);
  }
}

void append_barrier(std::vector<Step>& steps, int64_t rank, int64_t ranks) {
  for (int64_t distance = 1; distance < ranks; distance *= 2) {
    Step& step = steps.emplace_back();
    step.sends.push_back({(rank + distance) % ranks, nullptr, 0});
    step.receives.push_back({(rank - distance + ranks) % ranks, nullptr, 0});
  }
}

}  // namespace sw
