// What the losses over chunks of logits share: long sums, and rows that have a target.
#pragma once

#include <algorithm>
#include <vector>

#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels::cpu {

/// Terms summed in the type of the logits before double takes over.
inline constexpr int64_t kSumRun = 4096;

template <class A, class Term>
inline double long_sum(int64_t n, const Term& term) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumRun) {
    const int64_t count = std::min(kSumRun, n - begin);
    sum += static_cast<double>(
        lane_sum<A>(count, [&term, begin](int64_t i) { return term(begin + i); }));
  }
  return sum;
}

/// Rows [begin, end) of the list as one tensor: a view where they follow one another, else a copy.
inline Tensor gather_rows(const Tensor& x, const std::vector<int64_t>& list, int64_t begin,
                          int64_t end) {
  const int64_t first = list[static_cast<size_t>(begin)];
  if (list[static_cast<size_t>(end - 1)] - first == end - 1 - begin) {
    return x.slice(first, first + end - begin);
  }
  Tensor rows = Tensor::empty({end - begin, x.size(1)}, x.dtype());
  const int64_t bytes = x.size(1) * element_bytes(x.dtype());
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(rows.raw());
  for (int64_t k = begin; k < end; ++k) {
    std::copy_n(from + list[static_cast<size_t>(k)] * bytes, bytes, to + (k - begin) * bytes);
  }
  return rows;
}

inline void scatter_rows(Tensor& x, const std::vector<int64_t>& list, int64_t begin, int64_t end,
                         const Tensor& rows) {
  const int64_t bytes = x.size(1) * element_bytes(x.dtype());
  const char* from = static_cast<const char*>(rows.raw());
  char* to = static_cast<char*>(x.raw());
  for (int64_t k = begin; k < end; ++k) {
    std::copy_n(from + (k - begin) * bytes, bytes, to + list[static_cast<size_t>(k)] * bytes);
  }
}

/// From d_logits of the rows [begin, end) of `list`: their d_hidden, written, and their share of
/// d_table where that is defined. `inputs` are the hidden states of the same rows.
inline void add_products(const Stream& stream, Tensor& d_hidden, Tensor& d_table, Accum accum,
                         const std::vector<int64_t>& list, int64_t begin, int64_t end,
                         const Tensor& d_logits, const Tensor& inputs, const Tensor& table) {
  const int64_t first = list[static_cast<size_t>(begin)];
  if (list[static_cast<size_t>(end - 1)] - first == end - 1 - begin) {
    Tensor d_inputs = d_hidden.slice(first, first + end - begin);
    matmul(stream, d_inputs, d_logits, Transpose::no, table, Transpose::no, Accum::write);
  } else {
    Tensor d_inputs = Tensor::empty(inputs.shape(), inputs.dtype());
    matmul(stream, d_inputs, d_logits, Transpose::no, table, Transpose::no, Accum::write);
    scatter_rows(d_hidden, list, begin, end, d_inputs);
  }
  if (d_table) matmul(stream, d_table, d_logits, Transpose::yes, inputs, Transpose::no, accum);
}

}  // namespace sw::kernels::cpu
