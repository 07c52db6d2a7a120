#include "libswitch/tensor/shape.h"

#include <algorithm>

#include "libswitch/base/error.h"

namespace sw {

Shape::Shape(std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes) push_back(size);
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (const int64_t size : *this) {
    SW_CHECK(!__builtin_mul_overflow(product, size, &product), usage,
             "shape {}: more elements than fit in 63 bits", str());
  }
  return product;
}

void Shape::push_back(int64_t size) {
  SW_CHECK(rank_ < kMaxRank, internal, "shape: more than {} dimensions", int{kMaxRank});
  SW_CHECK(size >= 0, internal, "shape: negative size {}", size);
  sizes_[static_cast<size_t>(rank_++)] = size;
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Shape::str() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i > 0 ? ", " : "") + std::to_string((*this)[i]);
  return text + "]";
}

}  // namespace sw
