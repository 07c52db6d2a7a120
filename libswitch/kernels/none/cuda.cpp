// Stands in for the CUDA backend in builds without it: every kernel's cuda:: function says so.
#include "libswitch/kernels/kernel.h"

namespace sw::kernels {
namespace {

[[noreturn]] void no_cuda(const char* kernel) {
  fail(ErrorKind::device,
       "{}: this build has no CUDA backend; rebuild with -DSW_CUDA=ON or use --device cpu", kernel);
}

}  // namespace
}  // namespace sw::kernels

#undef SW_KERNEL
#define SW_KERNEL(name, ...)                                \
  namespace cuda {                                          \
  void name(const Stream&, __VA_ARGS__) { no_cuda(#name); } \
  }

#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "libswitch/kernels/activation.h"
#include "libswitch/kernels/attention.h"
#include "libswitch/kernels/bias.h"
#include "libswitch/kernels/columns.h"
#include "libswitch/kernels/cross_entropy.h"
#include "libswitch/kernels/distillation.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/embedding.h"
#include "libswitch/kernels/few_rows.h"
#include "libswitch/kernels/matmul.h"
#include "libswitch/kernels/norm.h"
#include "libswitch/kernels/optimizer.h"
#include "libswitch/kernels/routing.h"
#include "libswitch/kernels/row_dropout.h"
