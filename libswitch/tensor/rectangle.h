// A box of a tensor.
#pragma once

#include <array>
#include <cstdint>

#include "libswitch/tensor/shape.h"

namespace sw {

/// `start` and `count` by dimension; dimensions beyond the rank are 0 and 1.
struct Rectangle {
  std::array<int64_t, Shape::kMaxRank> start{};
  std::array<int64_t, Shape::kMaxRank> count{1, 1, 1, 1};
  bool operator==(const Rectangle&) const = default;
};

/// All of a tensor of that shape.
inline Rectangle whole_of(const Shape& shape) {
  Rectangle box;
  for (int d = 0; d < shape.rank(); ++d) box.count[static_cast<size_t>(d)] = shape[d];
  return box;
}

/// Where element `index` of the box, both row-major, lies in the tensor of that shape.
inline int64_t index_in_whole(const Shape& shape, const Rectangle& box, int64_t index) {
  int64_t whole = 0, stride = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    const auto i = static_cast<size_t>(d);
    whole += (box.start[i] + index % box.count[i]) * stride;
    index /= box.count[i];
    stride *= shape[d];
  }
  return whole;
}

}  // namespace sw
