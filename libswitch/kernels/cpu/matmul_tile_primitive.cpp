#include <algorithm>
#include <array>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>
#include <unordered_map>

#include "libswitch/kernels/cpu/gemm.h"
#include "libswitch/kernels/cpu/matmul_pack.h"
#include "libswitch/kernels/cpu/matmul_tile.h"
#include "libswitch/kernels/cpu/one_thread.h"
#include "libswitch/kernels/cpu/scratch.h"

namespace sw::kernels::cpu {
namespace {

// A chunk of k is 1 KiB of a row of a, so that 504 rows fit a second-level cache of 1 MiB.
constexpr int64_t kDepthBytes = 1024;
constexpr int64_t kPanel = 128;
// Row counts for which primitives are made: rows are taken in the largest blocks that fit, the last
// block is filled up with zeros.
constexpr std::array<int64_t, 4> kRowBlocks = {192, 96, 48, 16};

template <class E>
constexpr dnnl::memory::data_type kType =
    std::is_same_v<E, bf16> ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc dense(int64_t rows, int64_t columns, dnnl::memory::data_type type) {
  return dnnl::memory::desc({rows, columns}, type, dnnl::memory::format_tag::ab);
}

dnnl::matmul::primitive_desc describe(int64_t m, int64_t n, int64_t k, dnnl::memory::data_type type,
                                      const dnnl::memory::desc& weights, bool add) {
  dnnl::primitive_attr attributes;
  // One primitive serves all threads only when none of its memory is its own.
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  return dnnl::matmul::primitive_desc(
      dnnl::matmul::desc(dense(m, k, type), weights, dense(m, n, dnnl::memory::data_type::f32)),
      attributes, cpu_engine());
}

// A primitive with its memory objects; one per thread, as the addresses are set before each run.
// oneDNN's own cache shares the code among threads.
class Multiplication {
 public:
  Multiplication(int64_t m, int64_t n, int64_t k, dnnl::memory::data_type type,
                 const dnnl::memory::desc& weights, bool add) {
    const auto description = describe(m, n, k, type, weights, add);
    primitive_ = dnnl::matmul(description);
    const auto object = [](const dnnl::memory::desc& d) {
      return dnnl::memory(d, cpu_engine(), nullptr);
    };
    arguments_ = {{DNNL_ARG_SRC, object(description.src_desc())},
                  {DNNL_ARG_WEIGHTS, object(description.weights_desc())},
                  {DNNL_ARG_DST, object(description.dst_desc())},
                  {DNNL_ARG_SCRATCHPAD, object(description.scratchpad_desc())}};
    scratchpad_bytes_ = static_cast<int64_t>(description.scratchpad_desc().get_size());
  }

  void run(const dnnl::stream& stream, Scratch& scratchpad, const void* a, const void* b,
           float* c) {
    arguments_[DNNL_ARG_SRC].set_data_handle(const_cast<void*>(a));
    arguments_[DNNL_ARG_WEIGHTS].set_data_handle(const_cast<void*>(b));
    arguments_[DNNL_ARG_DST].set_data_handle(c);
    arguments_[DNNL_ARG_SCRATCHPAD].set_data_handle(
        scratchpad.get<char>(std::max<int64_t>(scratchpad_bytes_, 1)));
    primitive_.execute(stream, arguments_);
  }

 private:
  dnnl::matmul primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
  int64_t scratchpad_bytes_ = 0;
};

// The products of one panel, n x k, for all row blocks, and how its weights are laid out.
class Panel {
 public:
  Panel(int64_t n, int64_t k, dnnl::memory::data_type type) : n_(n), k_(k), type_(type) {
    const dnnl::memory::desc plain = dense(k, n, type);
    weights_ = choose_weights();
    packed_ = weights_ != plain;
    if (packed_) {
      from_ = dnnl::memory(plain, cpu_engine(), nullptr);
      to_ = dnnl::memory(weights_, cpu_engine(), nullptr);
      dnnl::primitive_attr attributes;
      attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
      const dnnl::reorder::primitive_desc description(from_, to_, attributes);
      reorder_ = dnnl::reorder(description);
      reorder_scratchpad_ = dnnl::memory(description.scratchpad_desc(), cpu_engine(), nullptr);
    }
  }

  /// The weights [k, n] in the layout of the primitives: packed into `packed`, or as they are.
  const void* weights(const dnnl::stream& stream, void* plain, Scratch& packed,
                      Scratch& scratchpad) {
    if (!packed_) return plain;
    void* out = packed.get<char>(static_cast<int64_t>(weights_.get_size()));
    from_.set_data_handle(plain);
    to_.set_data_handle(out);
    reorder_scratchpad_.set_data_handle(scratchpad.get<char>(
        std::max<int64_t>(1, static_cast<int64_t>(reorder_scratchpad_.get_desc().get_size()))));
    reorder_.execute(
        stream,
        {{DNNL_ARG_FROM, from_}, {DNNL_ARG_TO, to_}, {DNNL_ARG_SCRATCHPAD, reorder_scratchpad_}});
    return out;
  }

  Multiplication& multiplication(int64_t rows, bool add) {
    const int64_t key = 2 * rows + (add ? 1 : 0);
    const auto it = multiplications_.find(key);
    if (it != multiplications_.end()) return it->second;
    return multiplications_.try_emplace(key, rows, n_, k_, type_, weights_, add).first->second;
  }

 private:
  // The layout that oneDNN likes best for many rows, if all row blocks can use it.
  dnnl::memory::desc choose_weights() const {
    const dnnl::memory::desc plain = dense(k_, n_, type_);
    const dnnl::memory::desc any({k_, n_}, type_, dnnl::memory::format_tag::any);
    try {
      const auto best = describe(kRowBlocks[0], n_, k_, type_, any, false).weights_desc();
      for (const int64_t rows : kRowBlocks) {
        for (const bool add : {false, true}) describe(rows, n_, k_, type_, best, add);
      }
      return best;
    } catch (const dnnl::error&) {
      return plain;
    }
  }

  int64_t n_, k_;
  dnnl::memory::data_type type_;
  dnnl::memory::desc weights_;
  bool packed_ = false;
  dnnl::memory from_, to_, reorder_scratchpad_;
  dnnl::reorder reorder_;
  std::unordered_map<int64_t, Multiplication> multiplications_;
};

struct Buffers {
  Buffers() : stream(cpu_engine()) {}
  dnnl::stream stream;
  std::unordered_map<int64_t, Panel> panels;
  Scratch a, b, packed_b, c, scratchpad;
};

template <class E>
Panel& panel_of(Buffers& buffers, int64_t n, int64_t k) {
  const int64_t key = (n << 32 | k) * 2 + (std::is_same_v<E, bf16> ? 1 : 0);
  const auto it = buffers.panels.find(key);
  if (it != buffers.panels.end()) return it->second;
  return buffers.panels.try_emplace(key, n, k, kType<E>).first->second;
}

int64_t padded_rows(int64_t rows) {
  const int64_t unit = kRowBlocks.back();
  return (rows + unit - 1) / unit * unit;
}

// E: type of the blocks that are multiplied.
template <class E, class T, class C>
void compute(const Product& product, const Tile& tile, Accum accum) {
  static thread_local Buffers buffers;
  const OneThread one_thread;
  constexpr int64_t kDepth = kDepthBytes / static_cast<int64_t>(sizeof(E));
  const T* a = static_cast<const T*>(product.a);
  const T* b = static_cast<const T*>(product.b);
  C* c = static_cast<C*>(product.c) + tile.row * product.stride_c + tile.column;
  const int64_t n = tile.columns, m = padded_rows(tile.rows);

  // Sums of the tile, panel after panel, each dense.
  float* sum = buffers.c.get<float>(m * n);
  if (product.k == 0) std::fill_n(sum, m * n, 0.0f);
  for (int64_t p = 0; p < product.k; p += kDepth) {
    const int64_t depth = std::min(kDepth, product.k - p);
    E* block_a = buffers.a.get<E>(m * depth);
    if (product.transpose_a) {
      pack_transposed(a + p * product.stride_a + tile.row, product.stride_a, depth, tile.rows,
                      block_a, depth);
    } else {
      pack(a + tile.row * product.stride_a + p, product.stride_a, tile.rows, depth, block_a, depth);
    }
    std::fill_n(block_a + tile.rows * depth, (m - tile.rows) * depth, E{});
    for (int64_t j = 0; j < n; j += kPanel) {
      const int64_t width = std::min(kPanel, n - j);
      const int64_t column = tile.column + j;
      E* block_b = buffers.b.get<E>(depth * width);
      if (product.transpose_b) {
        pack_transposed(b + column * product.stride_b + p, product.stride_b, width, depth, block_b,
                        width);
      } else {
        pack(b + p * product.stride_b + column, product.stride_b, depth, width, block_b, width);
      }
      Panel& panel = panel_of<E>(buffers, width, depth);
      const void* weights =
          panel.weights(buffers.stream, block_b, buffers.packed_b, buffers.scratchpad);
      int64_t row = 0;
      for (const int64_t rows : kRowBlocks) {
        for (; m - row >= rows; row += rows) {
          panel.multiplication(rows, p > 0)
              .run(buffers.stream, buffers.scratchpad, block_a + row * depth, weights,
                   sum + m * j + row * width);
        }
      }
    }
  }

  with_accum(accum, [&](auto add) {
    for (int64_t j = 0; j < n; j += kPanel) {
      const int64_t width = std::min(kPanel, n - j);
      for (int64_t i = 0; i < tile.rows; ++i) {
        const float* x = sum + m * j + i * width;
        C* y = c + i * product.stride_c + j;
        for (int64_t x_column = 0; x_column < width; ++x_column) {
          put(add, y, x_column, x[x_column]);
        }
      }
    }
  });
}

}  // namespace

bool multiplies_bf16() {
  static const bool result = [] {
    const int wanted = static_cast<int>(dnnl::cpu_isa::avx512_core_bf16);
    return (static_cast<int>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
  }();
  return result;
}

template <class T, class C>
void tile_by_primitive(const Product& product, const Tile& tile, Accum accum) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (multiplies_bf16()) return compute<bf16, T, C>(product, tile, accum);
  }
  compute<float, T, C>(product, tile, accum);
}

template void tile_by_primitive<float, float>(const Product&, const Tile&, Accum);
template void tile_by_primitive<bf16, float>(const Product&, const Tile&, Accum);
template void tile_by_primitive<bf16, bf16>(const Product&, const Tile&, Accum);

}  // namespace sw::kernels::cpu
