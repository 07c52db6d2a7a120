// How the CPU computes products of matrices. c is cut into tiles, a tile's sum over k into chunks
// of fixed depth. For each chunk the tile's rows of op(a), and then op(b) panel by panel, are
// brought to one layout (transposed, widened, packed) in the cache of the core and multiplied
// there, by single-threaded calls of oneDNN or by kernels of our own.
//
// What fixes the bits of an element of c is its row of op(a), its column of op(b), the chunks and
// the place of its column in the last panel, nothing else: neither the tile it fell into, nor the
// number of threads, nor other rows. So tiles may be chosen for balance, an expert's rows give the
// same result whoever shares the call with them, and tests hold all multipliers to that.
#pragma once

#include <vector>

#include "libswitch/kernels/kernel.h"

namespace sw::kernels::cpu {

/// c = op(a)·op(b), by address: op(a) is m x k, op(b) k x n, c m x n, all row-major with strides of
/// stored rows.
struct Product {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t stride_a = 0;
  bool transpose_a = false;
  const void* b = nullptr;
  int64_t stride_b = 0;
  bool transpose_b = false;
  void* c = nullptr;
  int64_t stride_c = 0;
};

/// What multiplies the blocks.
enum class BlockMultiplier {
  sgemm,      // dnnl_sgemm in f32: at the peak of AVX2, bf16 widened
  primitive,  // oneDNN's matmul primitive on packed weights: AVX-512, AMX
  panels,     // our own AVX-512 kernels (matmul_panels.h), where has_panels()
};
/// The fastest one on this processor for operands of a dtype.
BlockMultiplier preferred_multiplier(DType operand);

/// Rows [row, row + rows) x columns [column, column + columns) of product `product`.
struct Tile {
  int64_t product = 0;
  int64_t row = 0, rows = 0;
  int64_t column = 0, columns = 0;
};

/// Cuts all products into tiles of about equal work, enough of them to keep `threads` threads busy.
std::vector<Tile> cut_into_tiles(const std::vector<Product>& products, int threads,
                                 BlockMultiplier multiplier);

/// Computes all products, or adds them to what c holds. operand: f32, bf16 or f64; result: the
/// same, or f32 for bf16.
void multiply(const std::vector<Product>& products, DType operand, DType result, Accum accum,
              BlockMultiplier multiplier);
inline void multiply(const std::vector<Product>& products, DType operand, DType result,
                     Accum accum) {
  multiply(products, operand, result, accum, preferred_multiplier(operand));
}

}  // namespace sw::kernels::cpu
