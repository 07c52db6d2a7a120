// Where a tensor lives and in which order work on it runs.
#pragma once

#include <string>

namespace sw {

struct Device {
  enum class Kind { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;
  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;
  std::string str() const { return is_cuda() ? "cuda:" + std::to_string(index) : "cpu"; }
};

/// An order of work on one device. On a CPU kernels run to completion in the calling thread; on a
/// GPU `handle` is the backend's stream.
struct Stream {
  Device device;
  void* handle = nullptr;
};

}  // namespace sw
