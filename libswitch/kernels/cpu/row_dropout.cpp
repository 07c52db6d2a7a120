#include "libswitch/kernels/row_dropout.h"

#include "libswitch/base/parallel.h"

namespace sw::kernels::cpu {
namespace {

template <class T>
void apply(Tensor& y, Accum accum, const Tensor& x, const Tensor& row_index,
           const RowDropoutParams& params) {
  const int64_t rows = x.size(0), width = x.size(1);
  const T* in = x.data<T>();
  T* out = y.data<T>();
  const int32_t* index = row_index.data<int32_t>();
  const int64_t total = params.total_columns == 0 ? width : params.total_columns;
  SW_CHECK(params.first_column >= 0 && params.first_column + width <= total, internal,
           "row_dropout: columns {} to {} of {}", params.first_column, params.first_column + width,
           total);
  const auto threshold = static_cast<float>(params.rate);
  const auto keep = static_cast<Acc<T>>(1.0 / (1.0 - params.rate));
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto base =
          static_cast<uint64_t>((params.first_row + index[r]) * total + params.first_column);
      for (int64_t f = 0; f < width; ++f) {
        const bool kept = random_uniform(params.key, base + static_cast<uint64_t>(f)) >= threshold;
        const Acc<T> value = kept ? static_cast<Acc<T>>(in[r * width + f]) * keep : Acc<T>(0);
        T& target = out[r * width + f];
        target =
            static_cast<T>(accum == Accum::write ? value : static_cast<Acc<T>>(target) + value);
      }
    }
  });
}

}  // namespace

void row_dropout(const Stream&, Tensor& y, Accum accum, const Tensor& x, const Tensor& row_index,
                 const RowDropoutParams& params) {
  switch (x.dtype()) {
    case DType::f32: return apply<float>(y, accum, x, row_index, params);
    case DType::bf16: return apply<bf16>(y, accum, x, row_index, params);
    case DType::f64: return apply<double>(y, accum, x, row_index, params);
    default: fail(ErrorKind::internal, "row_dropout: dtype {}", dtype_name(x.dtype()));
  }
}

}  // namespace sw::kernels::cpu
