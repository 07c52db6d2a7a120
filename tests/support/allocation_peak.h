// How much memory a piece of code has allocated at a time.
#pragma once

#include <cstdint>

namespace sw::test {

/// From its construction on, the most bytes that lived at a time beyond those that lived then.
/// Counts operator new of the whole process, in builds with a sanitizer malloc too. One at a
/// time.
class AllocationPeak {
 public:
  AllocationPeak();
  ~AllocationPeak();
  AllocationPeak(const AllocationPeak&) = delete;
  AllocationPeak& operator=(const AllocationPeak&) = delete;
  int64_t bytes() const;
};

}  // namespace sw::test
