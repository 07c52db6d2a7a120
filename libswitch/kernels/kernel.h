// How a kernel is declared and which backend runs it.
//
// Rules of every kernel: the stream comes first, then destinations, then sources, then parameters.
// A kernel knows no autograd type, allocates nothing that outlives it, does not synchronise, and
// gives bits that do not depend on the number of threads: work is cut by size only (parallel_for),
// a sum has one fixed order. Supported element types, unless a declaration says otherwise: f32,
// bf16 (computed in f32) and f64 (the precision of gradient checks; everything in f64). "master" in
// a comment is f32, or f64 when the op is f64. Every product of matrices goes through
// kernels/matmul.h.
#pragma once

#include <utility>

#include "libswitch/tensor/tensor.h"

namespace sw {

/// Whether a kernel overwrites a destination or adds to it: the first contribution to a gradient
/// writes.
enum class Accum { write, add };

}  // namespace sw

/// Declares `name` in both backends and a dispatcher sw::kernels::name(stream, ...). A build
/// without CUDA defines the cuda functions by including the headers with this macro redefined
/// (kernels/none/cuda.cpp).
#ifndef SW_KERNEL
#define SW_KERNEL(name, ...)                           \
  namespace cpu {                                      \
  void name(const Stream& stream, __VA_ARGS__);        \
  }                                                    \
  namespace cuda {                                     \
  void name(const Stream& stream, __VA_ARGS__);        \
  }                                                    \
  template <class... Args>                             \
  void name(const Stream& stream, Args&&... args) {    \
    if (stream.device.is_cuda()) {                     \
      cuda::name(stream, std::forward<Args>(args)...); \
    } else {                                           \
      cpu::name(stream, std::forward<Args>(args)...);  \
    }                                                  \
  }
#endif
