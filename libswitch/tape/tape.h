// The linear tape: ops append one closure each while recording; backward walks them in reverse.
#pragma once

#include <functional>
#include <vector>

namespace sw {

class Tape {
 public:
  /// Appends the backward pass of one op. The closure holds what the op chose to save.
  void record(std::function<void()> backward) { records_.push_back(std::move(backward)); }
  /// Runs all closures in reverse and drops each, with what it saved, as soon as it ran.
  void backward();
  bool empty() const { return records_.empty(); }

 private:
  std::vector<std::function<void()>> records_;
};

}  // namespace sw
