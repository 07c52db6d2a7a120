// One tile of a product in the calling thread, by each way of multiplying blocks. T: type of the
// operands; C: type of c.
#pragma once

#include "libswitch/kernels/cpu/matmul_blocks.h"

namespace sw::kernels::cpu {

/// f64, by plain loops.
void tile_by_loops(const Product& product, const Tile& tile, Accum accum);

/// dnnl_sgemm on blocks of f32.
template <class T, class C>
void tile_by_sgemm(const Product& product, const Tile& tile, Accum accum);

/// Panels in AVX-512 vectors; has_panels<T>() must hold (matmul_panels.h).
template <class T, class C>
void tile_by_panels(const Product& product, const Tile& tile, Accum accum);

/// oneDNN's matmul primitive.
template <class T, class C>
void tile_by_primitive(const Product& product, const Tile& tile, Accum accum);

/// Whether the processor multiplies bf16 (else they are widened to f32).
bool multiplies_bf16();

}  // namespace sw::kernels::cpu
