// What a teacher says, cut to its largest logits.
#include <algorithm>
#include <numeric>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/kernels/matmul.h"
#include "libswitch/train/teacher_logits.h"

namespace sw {

kernels::TeacherLogits largest_logits(const Stream& stream, const kernels::TeacherLogits& said,
                                      const Tensor& targets, int64_t k) {
  const int64_t rows = said.hidden.size(0), width = said.table.size(0);
  SW_CHECK(k >= 1 && k <= width, usage, "largest logits: {} of {}", k, width);
  kernels::TeacherLogits out;
  out.ids = Tensor::empty({rows, k}, DType::i32);
  out.logits = Tensor::empty({rows, k}, DType::f32);
  const int64_t chunk = std::min(rows, kernels::cross_entropy_chunk_rows(width));
  Tensor products = Tensor::empty({chunk, width}, master_dtype(said.hidden.dtype()));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    Tensor x = products.slice(0, end - begin);
    kernels::matmul(stream, x, said.hidden.slice(begin, end), kernels::Transpose::no, said.table,
                    kernels::Transpose::yes, Accum::write);
    const Tensor single = x.dtype() == DType::f32 ? x : x.to(DType::f32);
    parallel_for(end - begin, 1, [&](int64_t row, int64_t) {
      const int64_t n = begin + row;
      int32_t* ids = out.ids.data<int32_t>() + n * k;
      float* logits = out.logits.data<float>() + n * k;
      if (targets.data<int32_t>()[n] < 0) {
        std::fill_n(ids, k, -1);
        std::fill_n(logits, k, 0.0F);
        return;
      }
      const float* values = single.data<float>() + row * width;
      std::vector<int32_t> order(static_cast<size_t>(width));
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
        return values[a] != values[b] ? values[a] > values[b] : a < b;
      });
      for (int64_t i = 0; i < k; ++i) {
        ids[i] = order[static_cast<size_t>(i)];
        logits[i] = static_cast<float>(said.logit_scale) * values[ids[i]];
      }
    });
  }
  return out;
}

}  // namespace sw
