#include "libswitch/kernels/elementwise.h"

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/random_words.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kSumBlock = int64_t{1} << 14;  // elements of one leaf of a sum's tree

void check_size(const char* where, const char* name, const Tensor& x, int64_t elements) {
  SW_CHECK(x.defined() && x.elements() == elements, internal,
           "{}: {}: expected {} elements, got {}", where, name, elements,
           x.defined() ? x.shape().str() : std::string("nothing"));
}

void check_like(const char* where, const char* name, const Tensor& x, const Tensor& like) {
  SW_CHECK(x.defined() && x.elements() == like.elements() && x.dtype() == like.dtype(), internal,
           "{}: {}: expected {} {}, got {}", where, name, like.shape().str(),
           dtype_name(like.dtype()), x.defined() ? x.shape().str() : std::string("nothing"));
}

// y = factor · x (or +=) over [begin, end), computed in the wider of the two types.
template <class Add, class To, class From>
void scale_range(Add add, To* y, const From* x, double factor, int64_t begin, int64_t end) {
  using A = std::common_type_t<Acc<To>, Acc<From>>;
  const A f = static_cast<A>(factor);
  if constexpr (std::is_same_v<To, From>) {
    map(
        add, y + begin, end - begin, [f](A value) { return value * f; }, x + begin);
  } else {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      A value = static_cast<A>(load(x, i)) * f;
      if constexpr (Add::value) value += static_cast<A>(load(y, i));
      store(y, i, value);
    }
  }
}

// Of the bits of a bf16: below zero or above it, and not NaN.
inline bool is_negative(uint16_t bits) { return bits > 0x8000u && bits <= 0xFF80u; }
inline bool is_positive(uint16_t bits) { return bits > 0 && bits <= 0x7F80u; }

template <class Fn>
void with_pair(const char* where, DType to, DType from, const Fn& fn) {
  with_element(where, to, [&](auto to_type) {
    with_element(where, from, [&](auto from_type) { fn(to_type, from_type); });
  });
}

}  // namespace

void fill(const Stream&, Tensor& x, double value) {
  const auto set = [&](auto* data, auto element) {
    parallel_for(x.elements(), kElementGrain,
                 [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, element); });
  };
  switch (x.dtype()) {
    case DType::f32: return set(x.data<float>(), static_cast<float>(value));
    case DType::f64: return set(x.data<double>(), value);
    case DType::bf16: return set(x.data<bf16>(), bf16(static_cast<float>(value)));
    case DType::i32: return set(x.data<int32_t>(), static_cast<int32_t>(value));
    case DType::u8: return set(x.data<uint8_t>(), static_cast<uint8_t>(value));
  }
}

void cast(const Stream& stream, Tensor& y, const Tensor& x) {
  check_size("cast", "y", y, x.elements());
  if (x.dtype() != y.dtype()) return scale(stream, y, x, 1.0, Accum::write);
  char* to = static_cast<char*>(y.raw());
  const char* from = static_cast<const char*>(x.raw());
  if (to == from) return;
  parallel_for(x.bytes(), 4 * kElementGrain, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

void scale(const Stream&, Tensor& y, const Tensor& x, double factor, Accum accum) {
  check_size("scale", "y", y, x.elements());
  with_pair("scale", y.dtype(), x.dtype(),
            [&]<class To, class From>(std::type_identity<To>, std::type_identity<From>) {
              To* to = y.data<To>();
              const From* from = x.data<From>();
              with_accum(accum, [&](auto add) {
                parallel_for(x.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
                  scale_range(add, to, from, factor, begin, end);
                });
              });
            });
}

void relu_forward(const Stream&, Tensor& y, const Tensor& x) {
  check_like("relu_forward", "y", y, x);
  with_element("relu_forward", x.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    T* to = y.data<T>();
    const T* from = x.data<T>();
    parallel_for(x.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        if constexpr (std::is_same_v<T, bf16>) {
          const uint16_t bits = from[i].bits;
          to[i].bits = is_negative(bits) ? uint16_t{0} : bits;
        } else {
          to[i] = from[i] < A{0} ? A{0} : from[i];
        }
      }
    });
  });
}

void relu_backward(const Stream&, Tensor& d_x, Accum accum, const Tensor& y, const Tensor& d_y) {
  check_like("relu_backward", "d_x", d_x, y);
  check_like("relu_backward", "d_y", d_y, y);
  with_element("relu_backward", y.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    T* to = d_x.data<T>();
    const T* out = y.data<T>();
    const T* from = d_y.data<T>();
    parallel_for(y.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, bf16>) {
        if (accum == Accum::write) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) {
            const uint16_t gradient = from[i].bits;  // read in any case: no branch
            to[i].bits = is_positive(out[i].bits) ? gradient : uint16_t{0};
          }
          return;
        }
      }
      with_accum(accum, [&](auto add) {
        map(
            add, to + begin, end - begin,
            [](A value, A gradient) { return value > A{0} ? gradient : A{0}; }, out + begin,
            from + begin);
      });
    });
  });
}

void dropout(const Stream& stream, Tensor& y, Accum accum, const Tensor& x,
             const DropoutParams& params) {
  check_like("dropout", "y", y, x);
  SW_CHECK(params.rate >= 0 && params.rate < 1, usage, "dropout: rate {} is not in [0, 1)",
           params.rate);
  SW_CHECK(params.rows_per_mask >= 1 && params.first_row >= 0, internal,
           "dropout: first_row {}, rows_per_mask {}", params.first_row, params.rows_per_mask);
  if (params.rate == 0) return scale(stream, y, x, 1.0, accum);
  const int64_t width = x.size(-1);
  const int64_t rows = width == 0 ? 0 : x.elements() / width;
  const int64_t total = params.total_columns == 0 ? width : params.total_columns;
  SW_CHECK(params.first_column >= 0 && params.first_column + width <= total, internal,
           "dropout: columns {} to {} of {}", params.first_column, params.first_column + width,
           total);
  // A draw is word >> 8 in units of 2^-24: it is >= rate exactly when it is >= this integer.
  const auto threshold = static_cast<int32_t>(std::ceil(params.rate * 0x1.0p24));
  with_element("dropout", x.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    T* to = y.data<T>();
    const T* from = x.data<T>();
    const A factor = static_cast<A>(1.0 / (1.0 - params.rate));
    with_accum(accum, [&](auto add) {
      parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> words(static_cast<size_t>(width));
        const uint32_t* word = words.data();
        int64_t drawn = -1;
        for (int64_t n = begin; n < end; ++n) {
          const int64_t mask = (params.first_row + n) / params.rows_per_mask;
          if (mask != drawn) {
            const int64_t first = mask * total + params.first_column;
            random_words(params.key, static_cast<uint64_t>(first), words);
          }
          drawn = mask;
          T* to_row = to + n * width;
          const T* from_row = from + n * width;
#pragma omp simd
          for (int64_t i = 0; i < width; ++i) {
            const A value = load(from_row, i) * factor;
            put(add, to_row, i, static_cast<int32_t>(word[i] >> 8) >= threshold ? value : A{0});
          }
        }
      });
    });
  });
}

void mask_rows(const Stream&, Tensor& y, Accum accum, const Tensor& x, const Tensor& row_mask) {
  check_like("mask_rows", "y", y, x);
  const int64_t width = x.size(-1);
  const int64_t rows = width == 0 ? 0 : x.elements() / width;
  check_size("mask_rows", "row_mask", row_mask, rows);
  const uint8_t* kept = row_mask.data<uint8_t>();
  with_element("mask_rows", x.dtype(), [&]<class T>(std::type_identity<T>) {
    T* to = y.data<T>();
    const T* from = x.data<T>();
    parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* to_row = to + n * width;
        const T* from_row = from + n * width;
        if (accum == Accum::add) {
          if (kept[n] == 0) continue;
          map(
              std::true_type{}, to_row, width, [](Acc<T> value) { return value; }, from_row);
        } else if (kept[n] == 0) {
          std::fill_n(to_row, width, T{});
        } else if (to_row != from_row) {
          std::copy_n(from_row, width, to_row);
        }
      }
    });
  });
}

void sum_of_squares(const Stream&, double* sum, const Tensor& x) {
  const int64_t blocks = (x.elements() + kSumBlock - 1) / kSumBlock;
  std::vector<double> partial(static_cast<size_t>(blocks));
  with_element("sum_of_squares", x.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* data = x.data<T>();
    parallel_for(x.elements(), kSumBlock, [&](int64_t begin, int64_t end) {
      const T* block = data + begin;
      partial[static_cast<size_t>(begin / kSumBlock)] =
          lane_sum<double>(end - begin, [block](int64_t i) {
            const auto value = static_cast<double>(load(block, i));
            return value * value;
          });
    });
  });
  *sum = tree_sum(partial.data(), blocks);
}

void count_nonfinite(const Stream&, int64_t* count, const Tensor& x) {
  const int64_t blocks = (x.elements() + kSumBlock - 1) / kSumBlock;
  std::vector<int64_t> partial(static_cast<size_t>(blocks));
  with_element("count_nonfinite", x.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    const T* data = x.data<T>();
    parallel_for(x.elements(), kSumBlock, [&](int64_t begin, int64_t end) {
      const T* block = data + begin;
      // x - x is 0 for a finite x and NaN otherwise.
      partial[static_cast<size_t>(begin / kSumBlock)] =
          lane_sum<int32_t>(end - begin, [block](int64_t i) {
            const A value = load(block, i);
            return value - value == A{0} ? 0 : 1;
          });
    });
  });
  *count = 0;
  for (const int64_t part : partial) *count += part;
}

}  // namespace sw::kernels::cpu
