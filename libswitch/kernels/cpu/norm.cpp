#include "libswitch/kernels/norm.h"

#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kRowBlock = 64;  // rows whose part of d_scale is summed together

// Row length, the number of rows that precede it.
struct Rows {
  int64_t count = 0;
  int64_t width = 0;
};

Rows rows_of(const char* where, const Tensor& x) {
  SW_CHECK(x.defined() && x.rank() >= 1, internal, "{}: rows expected", where);
  const int64_t width = x.size(-1);
  return {width == 0 ? 0 : x.elements() / width, width};
}

void check_rows(const char* where, const char* name, const Tensor& tensor, const Tensor& like) {
  SW_CHECK(
      tensor.defined() && tensor.elements() == like.elements() && tensor.dtype() == like.dtype(),
      internal, "{}: {} must have the size and dtype of {}", where, name, like.shape().str());
}

void check_vector(const char* where, const char* name, const Tensor& tensor, int64_t size,
                  DType dtype) {
  SW_CHECK(tensor.defined() && tensor.elements() == size && tensor.dtype() == dtype, internal,
           "{}: {} must have {} elements of {}", where, name, size, dtype_name(dtype));
}

template <class T>
void forward(Tensor& residual_out, Tensor& normed, Tensor& inv_rms, const Tensor& residual_in,
             const Tensor& branch, const Tensor& scale, const Tensor& row_mask, double epsilon,
             Rows rows) {
  using A = Acc<T>;
  const int64_t width = rows.width;
  const T* in = residual_in.data<T>();
  const T* added = branch ? branch.data<T>() : nullptr;
  T* out = residual_out ? residual_out.data<T>() : nullptr;
  T* y = normed.data<T>();
  A* inverse = inv_rms.data<A>();
  const A* gain = scale.data<A>();
  const uint8_t* kept = row_mask ? row_mask.data<uint8_t>() : nullptr;
  parallel_for(rows.count, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const T* x = in + n * width;
      if (added != nullptr) {
        const T* b = added + n * width;
        T* r = out + n * width;
        map(
            std::false_type{}, r, width, [](A value, A more) { return value + more; }, x, b);
        x = r;
      } else if (out != nullptr && out != in) {
        std::copy_n(x, width, out + n * width);
      }
      const A squares = lane_sum<A>(width, [x](int64_t i) {
        const A value = load(x, i);
        return value * value;
      });
      const A factor = A{1} / std::sqrt(squares / static_cast<A>(width) + static_cast<A>(epsilon));
      inverse[n] = factor;
      T* row = y + n * width;
      if (kept != nullptr && kept[n] == 0) {
        std::fill_n(row, width, T{});
        continue;
      }
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) store(row, i, load(x, i) * factor * gain[i]);
    }
  });
}

template <class T>
void backward(Tensor& d_residual_in, Accum accum_residual, Tensor& d_branch, Accum accum_branch,
              Tensor& d_scale, Accum accum_scale, const Tensor& residual_out, const Tensor& inv_rms,
              const Tensor& scale, const Tensor& row_mask, const Tensor& d_normed,
              const Tensor& d_residual_out, Rows rows) {
  using A = Acc<T>;
  const int64_t width = rows.width;
  const int64_t blocks = (rows.count + kRowBlock - 1) / kRowBlock;
  const T* x_rows = residual_out.data<T>();
  const T* dy_rows = d_normed.data<T>();
  const T* through_rows = d_residual_out ? d_residual_out.data<T>() : nullptr;
  const A* inverse = inv_rms.data<A>();
  const A* gain = scale.data<A>();
  const uint8_t* kept = row_mask ? row_mask.data<uint8_t>() : nullptr;
  T* dx_rows = d_residual_in.data<T>();
  T* db_rows = d_branch ? d_branch.data<T>() : nullptr;
  if (db_rows == dx_rows) db_rows = nullptr;
  Tensor scratch = Tensor::zeros({std::max<int64_t>(blocks, 1), width}, dtype_of<A>());
  A* partial = scratch.data<A>();

  parallel_for(blocks, 1, [&](int64_t block, int64_t) {
    std::vector<A> gradient(static_cast<size_t>(width));
    A* sum = partial + block * width;
    A* d = gradient.data();
    const int64_t end = std::min(rows.count, (block + 1) * kRowBlock);
    for (int64_t n = block * kRowBlock; n < end; ++n) {
      const T* x = x_rows + n * width;
      const T* dy = dy_rows + n * width;
      if (kept != nullptr && kept[n] == 0) {
        std::fill_n(d, width, A{0});
      } else {
        const A factor = inverse[n];
        const A dot =
            lane_sum<A>(width, [=](int64_t i) { return load(dy, i) * gain[i] * load(x, i); });
        const A along = dot * factor * factor * factor / static_cast<A>(width);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const A value = load(x, i);
          const A g = load(dy, i);
          d[i] = g * gain[i] * factor - value * along;
          sum[i] += g * value * factor;
        }
      }
      if (through_rows != nullptr) {
        const T* through = through_rows + n * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) d[i] += load(through, i);
      }
      with_accum(accum_residual, [&](auto add) {
        T* dx = dx_rows + n * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) put(add, dx, i, d[i]);
      });
      if (db_rows != nullptr) {
        with_accum(accum_branch, [&](auto add) {
          T* db = db_rows + n * width;
#pragma omp simd
          for (int64_t i = 0; i < width; ++i) put(add, db, i, d[i]);
        });
      }
    }
  });

  if (!d_scale) return;
  A* out = d_scale.data<A>();
  parallel_for(width, 256, [&](int64_t begin, int64_t end) {
    A* first = partial;
    for (int64_t block = 1; block < blocks; ++block) {
      const A* next = partial + block * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) first[i] += next[i];
    }
    with_accum(accum_scale, [&](auto add) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) put(add, out, i, first[i]);
    });
  });
}

}  // namespace

void residual_norm_forward(const Stream&, Tensor& residual_out, Tensor& normed, Tensor& inv_rms,
                           const Tensor& residual_in, const Tensor& branch, const Tensor& scale,
                           const Tensor& row_mask, double epsilon) {
  constexpr const char* kWhere = "residual_norm_forward";
  const Rows rows = rows_of(kWhere, residual_in);
  const DType master = master_dtype(residual_in.dtype());
  check_rows(kWhere, "normed", normed, residual_in);
  check_vector(kWhere, "inv_rms", inv_rms, rows.count, master);
  check_vector(kWhere, "scale", scale, rows.width, master);
  if (branch) {
    check_rows(kWhere, "branch", branch, residual_in);
    check_rows(kWhere, "residual_out", residual_out, residual_in);
  }
  if (residual_out) check_rows(kWhere, "residual_out", residual_out, residual_in);
  if (row_mask) check_vector(kWhere, "row_mask", row_mask, rows.count, DType::u8);
  with_element(kWhere, residual_in.dtype(), [&]<class T>(std::type_identity<T>) {
    forward<T>(residual_out, normed, inv_rms, residual_in, branch, scale, row_mask, epsilon, rows);
  });
}

void residual_norm_backward(const Stream&, Tensor& d_residual_in, Accum accum_residual,
                            Tensor& d_branch, Accum accum_branch, Tensor& d_scale,
                            Accum accum_scale, const Tensor& residual_out, const Tensor& inv_rms,
                            const Tensor& scale, const Tensor& row_mask, const Tensor& d_normed,
                            const Tensor& d_residual_out) {
  constexpr const char* kWhere = "residual_norm_backward";
  const Rows rows = rows_of(kWhere, residual_out);
  const DType master = master_dtype(residual_out.dtype());
  check_rows(kWhere, "d_residual_in", d_residual_in, residual_out);
  check_rows(kWhere, "d_normed", d_normed, residual_out);
  if (d_branch) check_rows(kWhere, "d_branch", d_branch, residual_out);
  if (d_residual_out) check_rows(kWhere, "d_residual_out", d_residual_out, residual_out);
  check_vector(kWhere, "inv_rms", inv_rms, rows.count, master);
  check_vector(kWhere, "scale", scale, rows.width, master);
  if (d_scale) check_vector(kWhere, "d_scale", d_scale, rows.width, master);
  if (row_mask) check_vector(kWhere, "row_mask", row_mask, rows.count, DType::u8);
  with_element(kWhere, residual_out.dtype(), [&]<class T>(std::type_identity<T>) {
    backward<T>(d_residual_in, accum_residual, d_branch, accum_branch, d_scale, accum_scale,
                residual_out, inv_rms, scale, row_mask, d_normed, d_residual_out, rows);
  });
}

}  // namespace sw::kernels::cpu
