// Sizes of a tensor's dimensions, at most kMaxRank of them.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace sw {

class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  template <class Iterator>
  Shape(Iterator first, Iterator last) {
    for (; first != last; ++first) push_back(*first);
  }
  int rank() const { return rank_; }
  /// Size of dimension i; negative i counts from the end.
  int64_t operator[](int i) const { return sizes_[static_cast<size_t>(i < 0 ? i + rank_ : i)]; }
  /// Product of the sizes; 1 for rank 0.
  int64_t elements() const;
  void push_back(int64_t size);
  bool operator==(const Shape& other) const;
  /// "[8, 128]".
  std::string str() const;
  const int64_t* begin() const { return sizes_.data(); }
  const int64_t* end() const { return sizes_.data() + rank_; }

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace sw
