#include "libswitch/kernels/routing.h"

#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/random_words.h"
#include "libswitch/kernels/cpu/vector_math.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::kernels::cpu {
namespace {

void check_size(const char* where, const char* name, const Tensor& x, int64_t elements,
                DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "{}: {}: expected {} elements of {}, got {} {}", where, name, elements,
           dtype_name(dtype), x.defined() ? x.shape().str() : std::string("nothing"),
           x.defined() ? dtype_name(x.dtype()) : "");
}

// Every entry in [-1, limit).
void check_indices(const char* where, const char* name, const Tensor& x, int64_t limit) {
  const int32_t* index = x.data<int32_t>();
  for (int64_t i = 0; i < x.elements(); ++i) {
    SW_CHECK(index[i] >= -1 && index[i] < limit, internal, "{}: {}[{}] = {} is not in [-1, {})",
             where, name, i, index[i], limit);
  }
}

int64_t width_of(const Tensor& x) { return x.rank() == 0 ? 1 : x.size(-1); }

// out = Σ over the choices of one token, in order, of gate[c] · rows[row[c]] (or +=; gate null: 1).
// `sum` is scratch of `width` elements. Returns false, and leaves out alone, when there is no row.
template <class Add, class T>
bool sum_choices(Add add, T* out, const T* rows, const int32_t* row, const Acc<T>* gate,
                 int64_t choices, int64_t width, Acc<T>* sum) {
  using A = Acc<T>;
  int64_t first = 0;
  while (first < choices && row[first] < 0) ++first;
  if (first == choices) return false;
  int64_t next = first + 1;
  while (next < choices && row[next] < 0) ++next;
  const T* in = rows + int64_t{row[first]} * width;
  const A g = gate == nullptr ? A{1} : gate[first];
  if (next == choices) {  // the one row of top-1 routing needs no scratch
    if (!Add::value && gate == nullptr) {
      std::copy_n(in, width, out);
    } else {
      map(
          add, out, width, [g](A value) { return g * value; }, in);
    }
    return true;
  }
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sum[i] = g * load(in, i);
  for (int64_t c = next; c < choices; ++c) {
    if (row[c] < 0) continue;
    const T* more = rows + int64_t{row[c]} * width;
    const A h = gate == nullptr ? A{1} : gate[c];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) sum[i] += h * load(more, i);
  }
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) put(add, out, i, sum[i]);
  return true;
}

}  // namespace

void jitter_cast(const Stream& stream, Tensor& y, Accum accum, const Tensor& x, double epsilon,
                 RngKey key, int64_t first_row) {
  SW_CHECK(y.defined() && y.elements() == x.elements(), internal,
           "jitter_cast: y must have the {} elements of x", x.elements());
  SW_CHECK(epsilon >= 0 && epsilon < 1 && first_row >= 0, usage,
           "jitter_cast: jitter {} is not in [0, 1)", epsilon);
  if (epsilon == 0) return scale(stream, y, x, 1.0, accum);
  const int64_t width = width_of(x);
  constexpr int64_t kRun = 1024;  // draws at a time
  with_element("jitter_cast", y.dtype(), [&]<class To>(std::type_identity<To>) {
    with_element("jitter_cast", x.dtype(), [&]<class From>(std::type_identity<From>) {
      using A = std::common_type_t<Acc<To>, Acc<From>>;
      To* to = y.data<To>();
      const From* from = x.data<From>();
      const A low = static_cast<A>(1.0 - epsilon);
      const A range = static_cast<A>(2.0 * epsilon);
      with_accum(accum, [&](auto add) {
        parallel_for(x.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
          uint32_t words[kRun];
          for (int64_t start = begin; start < end; start += kRun) {
            const int64_t count = std::min(kRun, end - start);
            random_words(key, static_cast<uint64_t>(first_row * width + start),
                         {words, static_cast<size_t>(count)});
            To* out = to + start;
            const From* in = from + start;
#pragma omp simd
            for (int64_t i = 0; i < count; ++i) {
              const A u = static_cast<A>(uniform_of(words[i]));
              A value = static_cast<A>(load(in, i)) * (low + range * u);
              if constexpr (decltype(add)::value) value += static_cast<A>(load(out, i));
              store(out, i, value);
            }
          }
        });
      });
    });
  });
}

void router_softmax(const Stream&, Tensor& probabilities, Tensor& log_z, const Tensor& logits) {
  constexpr const char* kWhere = "router_softmax";
  const int64_t experts = width_of(logits);
  const int64_t rows = experts == 0 ? 0 : logits.elements() / experts;
  check_size(kWhere, "probabilities", probabilities, logits.elements(), logits.dtype());
  check_size(kWhere, "log_z", log_z, rows, logits.dtype());
  with_master(kWhere, logits.dtype(), [&]<class A>(std::type_identity<A>) {
    const A* in = logits.data<A>();
    A* out = probabilities.data<A>();
    A* z = log_z.data<A>();
    parallel_for(rows, row_grain(experts), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const A* x = in + n * experts;
        A* p = out + n * experts;
        A top = x[0];
        for (int64_t e = 1; e < experts; ++e) top = x[e] > top ? x[e] : top;
#pragma omp simd
        for (int64_t e = 0; e < experts; ++e) p[e] = vector_exp(x[e] - top);
        const A sum = lane_sum<A>(experts, [p](int64_t e) { return p[e]; });
        const A inverse = A{1} / sum;
#pragma omp simd
        for (int64_t e = 0; e < experts; ++e) p[e] *= inverse;
        z[n] = top + std::log(sum);
      }
    });
  });
}

void router_softmax_backward(const Stream&, Tensor& d_logits, const Tensor& probabilities,
                             const Tensor& d_probabilities, const Tensor& d_log_z) {
  constexpr const char* kWhere = "router_softmax_backward";
  const int64_t experts = width_of(probabilities);
  const int64_t rows = experts == 0 ? 0 : probabilities.elements() / experts;
  const DType dtype = probabilities.dtype();
  check_size(kWhere, "d_logits", d_logits, probabilities.elements(), dtype);
  check_size(kWhere, "d_probabilities", d_probabilities, probabilities.elements(), dtype);
  if (d_log_z) check_size(kWhere, "d_log_z", d_log_z, rows, dtype);
  with_master(kWhere, dtype, [&]<class A>(std::type_identity<A>) {
    const A* prob = probabilities.data<A>();
    const A* d_prob = d_probabilities.data<A>();
    const A* d_z = d_log_z ? d_log_z.data<A>() : nullptr;
    A* out = d_logits.data<A>();
    parallel_for(rows, row_grain(experts), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const A* p = prob + n * experts;
        const A* dp = d_prob + n * experts;
        A* dx = out + n * experts;
        const A dot = lane_sum<A>(experts, [=](int64_t e) { return p[e] * dp[e]; });
        const A shift = (d_z == nullptr ? A{0} : d_z[n]) - dot;
#pragma omp simd
        for (int64_t e = 0; e < experts; ++e) dx[e] = p[e] * (dp[e] + shift);
      }
    });
  });
}

void dispatch_forward(const Stream&, Tensor& rows, const Tensor& x, const Tensor& row_token) {
  constexpr const char* kWhere = "dispatch_forward";
  const int64_t width = width_of(x);
  const int64_t count = row_token.elements();
  check_size(kWhere, "rows", rows, count * width, x.dtype());
  check_indices(kWhere, "row_token", row_token, width == 0 ? 0 : x.elements() / width);
  const int32_t* token = row_token.data<int32_t>();
  with_element(kWhere, x.dtype(), [&]<class T>(std::type_identity<T>) {
    const T* from = x.data<T>();
    T* to = rows.data<T>();
    parallel_for(count, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        if (token[r] < 0) {
          std::fill_n(to + r * width, width, T{});
        } else {
          std::copy_n(from + int64_t{token[r]} * width, width, to + r * width);
        }
      }
    });
  });
}

void dispatch_backward(const Stream&, Tensor& d_x, Accum accum, const Tensor& d_rows,
                       const Tensor& row_of) {
  constexpr const char* kWhere = "dispatch_backward";
  const int64_t width = width_of(d_x);
  const int64_t tokens = width == 0 ? 0 : d_x.elements() / width;
  const int64_t choices = width_of(row_of);
  check_size(kWhere, "row_of", row_of, tokens * choices, DType::i32);
  check_size(kWhere, "d_rows", d_rows, d_rows.elements(), d_x.dtype());
  check_indices(kWhere, "row_of", row_of, width == 0 ? 0 : d_rows.elements() / width);
  const int32_t* row = row_of.data<int32_t>();
  with_element(kWhere, d_x.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    const T* from = d_rows.data<T>();
    T* to = d_x.data<T>();
    with_accum(accum, [&](auto add) {
      parallel_for(tokens, row_grain(width), [&](int64_t begin, int64_t end) {
        std::vector<A> sum(static_cast<size_t>(width));
        for (int64_t n = begin; n < end; ++n) {
          T* out = to + n * width;
          const bool any = sum_choices(add, out, from, row + n * choices, static_cast<A*>(nullptr),
                                       choices, width, sum.data());
          if (!any && accum == Accum::write) std::fill_n(out, width, T{});
        }
      });
    });
  });
}

void combine_forward(const Stream&, Tensor& y, const Tensor& rows, const Tensor& gate,
                     const Tensor& row_of, const Tensor& dropped) {
  constexpr const char* kWhere = "combine_forward";
  const int64_t width = width_of(y);
  const int64_t tokens = width == 0 ? 0 : y.elements() / width;
  const int64_t choices = width_of(row_of);
  check_size(kWhere, "rows", rows, rows.elements(), y.dtype());
  check_size(kWhere, "row_of", row_of, tokens * choices, DType::i32);
  check_size(kWhere, "gate", gate, tokens * choices, master_dtype(y.dtype()));
  if (dropped) check_size(kWhere, "dropped", dropped, y.elements(), y.dtype());
  check_indices(kWhere, "row_of", row_of, width == 0 ? 0 : rows.elements() / width);
  const int32_t* row = row_of.data<int32_t>();
  with_element(kWhere, y.dtype(), [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    const T* from = rows.data<T>();
    const A* weight = gate.data<A>();
    const T* kept_back = dropped ? dropped.data<T>() : nullptr;
    T* to = y.data<T>();
    parallel_for(tokens, row_grain(width), [&](int64_t begin, int64_t end) {
      std::vector<A> sum(static_cast<size_t>(width));
      for (int64_t n = begin; n < end; ++n) {
        T* out = to + n * width;
        const A* g = weight + n * choices;
        if (sum_choices(std::false_type{}, out, from, row + n * choices, g, choices, width,
                        sum.data())) {
          continue;
        }
        if (kept_back == nullptr) {
          std::fill_n(out, width, T{});
          continue;
        }
        const T* in = kept_back + n * width;
        map(
            std::false_type{}, out, width, [f = g[0]](A value) { return f * value; }, in);
      }
    });
  });
}

void combine_backward(const Stream&, Tensor& d_rows, Tensor& d_gate, Tensor& d_dropped,
                      Accum accum_dropped, const Tensor& rows, const Tensor& gate,
                      const Tensor& row_of, const Tensor& row_token, const Tensor& dropped,
                      const Tensor& d_y) {
  constexpr const char* kWhere = "combine_backward";
  const int64_t width = width_of(d_y);
  const int64_t tokens = width == 0 ? 0 : d_y.elements() / width;
  const int64_t count = row_token.elements();
  const int64_t choices = width_of(row_of);
  const DType dtype = d_y.dtype();
  check_size(kWhere, "rows", rows, count * width, dtype);
  check_size(kWhere, "d_rows", d_rows, count * width, dtype);
  check_size(kWhere, "row_of", row_of, tokens * choices, DType::i32);
  check_size(kWhere, "gate", gate, tokens * choices, master_dtype(dtype));
  check_size(kWhere, "d_gate", d_gate, tokens * choices, master_dtype(dtype));
  if (dropped) check_size(kWhere, "dropped", dropped, d_y.elements(), dtype);
  if (d_dropped) check_size(kWhere, "d_dropped", d_dropped, d_y.elements(), dtype);
  check_indices(kWhere, "row_of", row_of, count);
  check_indices(kWhere, "row_token", row_token, tokens);
  const int32_t* row = row_of.data<int32_t>();
  const int32_t* token = row_token.data<int32_t>();
  with_element(kWhere, dtype, [&]<class T>(std::type_identity<T>) {
    using A = Acc<T>;
    const T* out_rows = rows.data<T>();
    const T* dy_rows = d_y.data<T>();
    const A* weight = gate.data<A>();
    const T* kept_back = dropped ? dropped.data<T>() : nullptr;
    T* dr_rows = d_rows.data<T>();
    T* dd_rows = d_dropped ? d_dropped.data<T>() : nullptr;
    A* dg_rows = d_gate.data<A>();

    // Rows that were read, each by one token and choice: their gradient and that of the gate.
    parallel_for(count, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        T* dr = dr_rows + r * width;
        const int64_t n = token[r];
        int64_t c = 0;
        while (n >= 0 && c < choices && row[n * choices + c] != r) ++c;
        if (n < 0 || c == choices) {
          std::fill_n(dr, width, T{});
          continue;
        }
        const A g = weight[n * choices + c];
        const T* dy = dy_rows + n * width;
        const T* out = out_rows + r * width;
        dg_rows[n * choices + c] =
            lane_sum<A>(width, [=](int64_t i) { return load(dy, i) * load(out, i); });
        map(
            std::false_type{}, dr, width, [g](A value) { return g * value; }, dy);
      }
    });
    // Choices without a row, and tokens without any.
    parallel_for(tokens, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* dy = dy_rows + n * width;
        A* dg = dg_rows + n * choices;
        bool any = false;
        for (int64_t c = 0; c < choices; ++c) {
          const int64_t r = row[n * choices + c];
          if (r < 0) {
            dg[c] = 0;
            continue;
          }
          any = true;
          SW_CHECK(token[r] == n, internal, "{}: token {} reads row {}, which belongs to {}",
                   kWhere, n, r, token[r]);
        }
        if (!any && kept_back != nullptr) {
          const T* out = kept_back + n * width;
          dg[0] = lane_sum<A>(width, [=](int64_t i) { return load(dy, i) * load(out, i); });
        }
        if (dd_rows == nullptr) continue;
        T* dd = dd_rows + n * width;
        if (any) {
          if (accum_dropped == Accum::write) std::fill_n(dd, width, T{});
          continue;
        }
        const A g = weight[n * choices];
        with_accum(accum_dropped, [&](auto add) {
          map(
              add, dd, width, [g](A value) { return g * value; }, dy);
        });
      }
    });
  });
}

}  // namespace sw::kernels::cpu
