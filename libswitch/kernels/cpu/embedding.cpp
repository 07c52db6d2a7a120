#include "libswitch/kernels/embedding.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kSlice = 256;     // columns that are summed at a time
constexpr int64_t kFrequent = 256;  // positions beyond which an id is work for several threads

void check_ids(const char* where, const Tensor& ids, const Tensor& table,
               const VocabularyPart& part) {
  const int64_t vocabulary = part.total == 0 ? table.size(0) : part.total;
  SW_CHECK(part.first >= 0 && part.first + table.size(0) <= vocabulary, internal,
           "{}: rows {} to {} of {}", where, part.first, part.first + table.size(0), vocabulary);
  const int32_t* id = ids.data<int32_t>();
  for (int64_t n = 0; n < ids.elements(); ++n) {
    SW_CHECK(id[n] >= 0 && id[n] < vocabulary, usage,
             "{}: id {} at position {} is outside the table of {} rows; the data were made with "
             "another vocabulary",
             where, id[n], n, vocabulary);
  }
}

void check_table(const char* where, const Tensor& table, const Tensor& rows, const Tensor& ids) {
  SW_CHECK(table.defined() && table.rank() == 2 && rows.defined() && ids.defined() &&
               rows.elements() == ids.elements() * table.size(1),
           internal, "{}: a table [V, D], rows [N, D] and ids [N] expected", where);
}

// Positions of the id of every row v: order[first[v]], ..., order[first[v + 1] - 1] ascend.
struct Positions {
  std::vector<int64_t> first;
  std::vector<int32_t> order;
  int64_t count(int64_t id) const {
    return first[static_cast<size_t>(id) + 1] - first[static_cast<size_t>(id)];
  }
};

Positions positions_by_id(const Tensor& ids, int64_t first_id, int64_t vocabulary) {
  const int32_t* id = ids.data<int32_t>();
  const int64_t count = ids.elements();
  Positions positions;
  positions.first.assign(static_cast<size_t>(vocabulary) + 1, 0);
  positions.order.resize(static_cast<size_t>(count));
  const auto held = [=](int64_t n) { return id[n] >= first_id && id[n] < first_id + vocabulary; };
  for (int64_t n = 0; n < count; ++n) {
    if (held(n)) ++positions.first[static_cast<size_t>(id[n] - first_id) + 1];
  }
  for (size_t v = 0; v < static_cast<size_t>(vocabulary); ++v) {
    positions.first[v + 1] += positions.first[v];
  }
  std::vector<int64_t> next(positions.first.begin(), positions.first.end() - 1);
  for (int64_t n = 0; n < count; ++n) {
    if (!held(n)) continue;
    positions.order[static_cast<size_t>(next[static_cast<size_t>(id[n] - first_id)]++)] =
        static_cast<int32_t>(n);
  }
  return positions;
}

// Columns [column, column + columns) of row `id` of the table's gradient; columns <= kSlice.
template <class T>
void sum_rows(Acc<T>* to, const T* from, const Positions& positions, int64_t id, int64_t width,
              int64_t column, int64_t columns, Accum accum) {
  Acc<T> sum[kSlice] = {};
  const int64_t end = positions.first[static_cast<size_t>(id) + 1];
  for (int64_t k = positions.first[static_cast<size_t>(id)]; k < end; ++k) {
    const T* row = from + int64_t{positions.order[static_cast<size_t>(k)]} * width + column;
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) sum[i] += load(row, i);
  }
  Acc<T>* out = to + id * width + column;
  with_accum(accum, [&](auto add) {
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) put(add, out, i, sum[i]);
  });
}

}  // namespace

void embedding_forward(const Stream&, Tensor& y, const Tensor& table, const Tensor& ids,
                       const VocabularyPart& part) {
  check_table("embedding_forward", table, y, ids);
  SW_CHECK(y.dtype() == table.dtype(), internal, "embedding_forward: y is {}, the table {}",
           dtype_name(y.dtype()), dtype_name(table.dtype()));
  check_ids("embedding", ids, table, part);
  const int64_t width = table.size(1);
  const auto bytes = static_cast<size_t>(width * element_bytes(table.dtype()));
  const char* from = static_cast<const char*>(table.raw());
  char* to = static_cast<char*>(y.raw());
  const int32_t* id = ids.data<int32_t>();
  parallel_for(ids.elements(), row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t row = id[n] - part.first;
      char* out = to + static_cast<size_t>(n) * bytes;
      if (row >= 0 && row < table.size(0)) {
        std::memcpy(out, from + static_cast<size_t>(row) * bytes, bytes);
      } else {
        std::memset(out, 0, bytes);
      }
    }
  });
}

void embedding_backward(const Stream&, Tensor& d_table, Accum accum, const Tensor& d_y,
                        const Tensor& ids, const VocabularyPart& part) {
  check_table("embedding_backward", d_table, d_y, ids);
  SW_CHECK(d_table.dtype() == master_dtype(d_y.dtype()), internal,
           "embedding_backward: d_table is {}, expected the master dtype of {}",
           dtype_name(d_table.dtype()), dtype_name(d_y.dtype()));
  const int64_t vocabulary = d_table.size(0);
  const int64_t width = d_table.size(1);
  check_ids("embedding", ids, d_table, part);
  const Positions positions = positions_by_id(ids, part.first, vocabulary);
  std::vector<int64_t> frequent;
  for (int64_t v = 0; v < vocabulary; ++v) {
    if (positions.count(v) > kFrequent) frequent.push_back(v);
  }
  const int64_t slices = (width + kSlice - 1) / kSlice;
  with_element("embedding_backward", d_y.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    const T* from = d_y.data<T>();
    A* to = d_table.data<A>();
    // Frequent ids (padding, end of text) are cut into slices of columns, lest one binds a thread.
    parallel_for(static_cast<int64_t>(frequent.size()) * slices, 1, [&](int64_t task, int64_t) {
      const int64_t column = task % slices * kSlice;
      sum_rows(to, from, positions, frequent[static_cast<size_t>(task / slices)], width, column,
               std::min(kSlice, width - column), accum);
    });
    parallel_for(vocabulary, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        const int64_t count = positions.count(v);
        if (count > kFrequent) continue;
        if (count > 0) {
          for (int64_t column = 0; column < width; column += kSlice) {
            sum_rows(to, from, positions, v, width, column, std::min(kSlice, width - column),
                     accum);
          }
        } else if (accum == Accum::write) {
          std::fill_n(to + v * width, width, A{0});
        }
      }
    });
  });
}

namespace {

void check_bias(const char* where, const Tensor& bias, const Tensor& table,
                const Tensor& bucket_of) {
  SW_CHECK(bias.defined() && table.defined() && bucket_of.defined() && bias.rank() == 2 &&
               table.rank() == 2 && bias.size(0) == table.size(0) &&
               bias.size(1) == bucket_of.elements() && bias.dtype() == table.dtype(),
           internal, "{}: bias [H, L], table [H, buckets] and bucket_of [L] expected", where);
  const int32_t* bucket = bucket_of.data<int32_t>();
  for (int64_t k = 0; k < bucket_of.elements(); ++k) {
    SW_CHECK(bucket[k] >= 0 && bucket[k] < table.size(1), internal,
             "{}: bucket {} of diagonal {} is outside the table of {}", where, bucket[k], k,
             table.size(1));
  }
}

}  // namespace

void relative_bias_forward(const Stream&, Tensor& bias, const Tensor& table,
                           const Tensor& bucket_of) {
  check_bias("relative_bias_forward", bias, table, bucket_of);
  const int32_t* bucket = bucket_of.data<int32_t>();
  with_master("relative_bias_forward", table.dtype(), [&]<class A>(std::type_identity<A>) {
    for (int64_t h = 0; h < table.size(0); ++h) {
      const A* from = table.data<A>() + h * table.size(1);
      A* to = bias.data<A>() + h * bias.size(1);
      for (int64_t k = 0; k < bias.size(1); ++k) to[k] = from[bucket[k]];
    }
  });
}

void relative_bias_backward(const Stream&, Tensor& d_table, Accum accum, const Tensor& d_bias,
                            const Tensor& bucket_of) {
  check_bias("relative_bias_backward", d_bias, d_table, bucket_of);
  const int32_t* bucket = bucket_of.data<int32_t>();
  with_master("relative_bias_backward", d_table.dtype(), [&]<class A>(std::type_identity<A>) {
    std::vector<double> sum(static_cast<size_t>(d_table.size(1)));
    for (int64_t h = 0; h < d_table.size(0); ++h) {
      std::fill(sum.begin(), sum.end(), 0.0);
      const A* from = d_bias.data<A>() + h * d_bias.size(1);
      for (int64_t k = 0; k < d_bias.size(1); ++k) {
        sum[static_cast<size_t>(bucket[k])] += static_cast<double>(from[k]);
      }
      A* to = d_table.data<A>() + h * d_table.size(1);
      with_accum(accum, [&](auto add) {
        for (int64_t b = 0; b < d_table.size(1); ++b) {
          put(add, to, b, static_cast<A>(sum[static_cast<size_t>(b)]));
        }
      });
    }
  });
}

}  // namespace sw::kernels::cpu
