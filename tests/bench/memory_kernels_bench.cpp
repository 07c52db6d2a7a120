// Rates of the kernels that move memory, on one thread by its processor time, beside a plain copy
// of the same tensors: bytes are those a kernel must read and write at least.
#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/activation.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/embedding.h"
#include "libswitch/kernels/norm.h"
#include "libswitch/kernels/routing.h"

namespace sw::kernels {
namespace {

const Stream kStream;
constexpr int64_t kTokens = 8192;
constexpr int64_t kWidth = 768;
constexpr int64_t kElements = kTokens * kWidth;

Tensor pattern(const Shape& shape, DType dtype) {
  Tensor x = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] =
        static_cast<float>(random_uniform(RngKey{1}, static_cast<uint64_t>(i))) - 0.5f;
  }
  return x.to(dtype);
}

void measure(const char* name, int64_t bytes, const std::function<void()>& kernel) {
  benchmark::RegisterBenchmark(name, [bytes, kernel](benchmark::State& state) {
    set_threads(1);
    for (auto _ : state) kernel();
    state.SetBytesProcessed(state.iterations() * bytes);
  });
}

void register_all(DType dtype, const std::string& suffix) {
  const int64_t size = element_bytes(dtype);
  const int64_t pass = kElements * size;
  const DType master = master_dtype(dtype);
  const Shape shape{kTokens, kWidth};
  const Tensor x = pattern(shape, dtype), b = pattern(shape, dtype), d = pattern(shape, dtype);
  Tensor y = pattern(shape, dtype), z = pattern(shape, dtype), none;
  Tensor wide = pattern(shape, DType::f32);
  const auto add = [&](const char* name, int64_t bytes, const std::function<void()>& kernel) {
    measure((std::string(name) + suffix).c_str(), bytes, kernel);
  };
  add("copy", 2 * pass,
      [=]() mutable { std::memcpy(y.raw(), x.raw(), static_cast<size_t>(pass)); });
  add("add", 3 * pass, [=]() mutable { scale(kStream, y, x, 1.0, Accum::add); });
  add("to_f32", pass + 4 * kElements,
      [=]() mutable { scale(kStream, wide, x, 1.0, Accum::write); });
  add("from_f32", pass + 4 * kElements,
      [=]() mutable { scale(kStream, y, wide, 1.0, Accum::write); });
  add("relu_forward", 2 * pass, [=]() mutable { relu_forward(kStream, y, x); });
  add("relu_backward", 3 * pass, [=]() mutable { relu_backward(kStream, y, Accum::write, x, d); });
  add("gated_forward", 3 * pass,
      [=]() mutable { gated_forward(kStream, y, x, b, Curve::gelu_tanh); });
  add("gated_backward", 5 * pass, [=]() mutable {
    gated_backward(kStream, y, Accum::write, z, Accum::write, x, b, d, Curve::gelu_tanh);
  });
  add("dropout", 2 * pass, [=]() mutable {
    dropout(kStream, y, Accum::write, x, DropoutParams{0.1, RngKey{7}, 0, 1});
  });
  add("dropout_shared", 2 * pass, [=]() mutable {
    dropout(kStream, y, Accum::write, x, DropoutParams{0.1, RngKey{7}, 0, 512});
  });
  add("jitter_cast", pass + 4 * kElements,
      [=]() mutable { jitter_cast(kStream, wide, Accum::write, x, 0.01, RngKey{7}, 0); });
  add("sum_of_squares", pass, [=] {
    double sum = 0;
    sum_of_squares(kStream, &sum, x);
    benchmark::DoNotOptimize(sum);
  });
  add("count_nonfinite", pass, [=] {
    int64_t count = 0;
    count_nonfinite(kStream, &count, x);
    benchmark::DoNotOptimize(count);
  });
  const Tensor gain = pattern({kWidth}, master);
  Tensor inv_rms = pattern({kTokens}, master), d_gain = pattern({kWidth}, master);
  add("norm_forward", 4 * pass,
      [=]() mutable { residual_norm_forward(kStream, y, z, inv_rms, x, b, gain, Tensor(), 1e-6); });
  add("norm_backward", 4 * pass, [=]() mutable {
    residual_norm_backward(kStream, y, Accum::write, none, Accum::write, d_gain, Accum::write, x,
                           inv_rms, gain, Tensor(), d, b);
  });
  Tensor table = pattern({32128, kWidth}, dtype), d_table = pattern({32128, kWidth}, master);
  Tensor ids = Tensor::empty({kTokens}, DType::i32), tokens = Tensor::empty({kTokens}, DType::i32);
  Tensor rows_of = Tensor::empty({kTokens, 1}, DType::i32);
  for (int64_t n = 0; n < kTokens; ++n) {
    const double u = static_cast<double>(random_uniform(RngKey{3}, static_cast<uint64_t>(n)));
    ids.data<int32_t>()[n] = static_cast<int32_t>(32128 * u * u * u);  // frequent ids first
    const auto other = static_cast<int32_t>(n * 4099 % kTokens);       // a permutation
    tokens.data<int32_t>()[n] = other;
    rows_of.data<int32_t>()[other] = static_cast<int32_t>(n);
  }
  const int64_t table_bytes = 32128 * kWidth * element_bytes(master);
  add("embedding_forward", 2 * pass,
      [=]() mutable { embedding_forward(kStream, y, table, ids, VocabularyPart{}); });
  add("embedding_backward", pass + table_bytes, [=]() mutable {
    embedding_backward(kStream, d_table, Accum::write, d, ids, VocabularyPart{});
  });
  const Tensor gate = pattern({kTokens, 1}, master);
  Tensor d_gate = pattern({kTokens, 1}, master);
  add("dispatch_forward", 2 * pass, [=]() mutable { dispatch_forward(kStream, y, x, tokens); });
  add("dispatch_backward", 2 * pass,
      [=]() mutable { dispatch_backward(kStream, y, Accum::write, x, rows_of); });
  add("combine_forward", 2 * pass,
      [=]() mutable { combine_forward(kStream, y, x, gate, rows_of, none); });
  add("combine_backward", 3 * pass, [=]() mutable {
    combine_backward(kStream, y, d_gate, none, Accum::write, x, gate, rows_of, tokens, Tensor(), d);
  });
}

}  // namespace
}  // namespace sw::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  sw::kernels::register_all(sw::DType::f32, "/f32");
  sw::kernels::register_all(sw::DType::bf16, "/bf16");
  benchmark::RunSpecifiedBenchmarks();
}
