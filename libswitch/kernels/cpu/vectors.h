// Highway for the processor that all code is compiled for, where GCC does not vectorise a loop
// well.
#pragma once

// x86-64-v3 does not promise the AES instructions, which Highway otherwise wants of an AVX2 target;
// without them it would fall back to 128-bit vectors.
#define HWY_DISABLE_PCLMUL_AES
#define HWY_COMPILE_ONLY_STATIC
#include <hwy/highway.h>

namespace sw::kernels::cpu {

namespace hn = hwy::HWY_NAMESPACE;

}  // namespace sw::kernels::cpu
