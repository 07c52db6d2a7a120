// Rates of matmul and of the experts' products, beside oneDNN's own on the same operands and, as
// `of_peak`, over the best rate of oneDNN in this process. The machine's noise hits both alike.
#include <benchmark/benchmark.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels {
namespace {

double peak(DType dtype) {
  static const double f32 = cpu::measure_matmul_peak(DType::f32);
  static const double bf16 = cpu::measure_matmul_peak(DType::bf16);
  return dtype == DType::bf16 ? bf16 : f32;
}

void report(benchmark::State& state, double flops, DType dtype) {
  const auto runs = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * runs * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_peak"] =
      benchmark::Counter(flops * runs * 1e-9 / peak(dtype), benchmark::Counter::kIsRate);
}

Tensor filled(const Shape& shape, DType dtype) {
  Tensor x = Tensor::empty(shape, dtype);
  fill({}, x, 0.5);
  return x;
}

// Layouts: 0: a·b (forward), 1: a·bᵀ (gradient of the input), 2: aᵀ·b (gradient of the weight).
void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"layout", "m", "n", "k"});
  for (const int layout : {0, 1}) {
    b->Args({layout, 2048, 256, 256});
    b->Args({layout, 2048, 1024, 256});
    b->Args({layout, 2048, 256, 1024});
    b->Args({layout, 4096, 768, 768});
    b->Args({layout, 4096, 3072, 768});
    b->Args({layout, 4096, 768, 3072});
  }
  b->Args({2, 256, 1024, 2048});
  b->Args({2, 1024, 256, 2048});
  b->Args({2, 768, 768, 4096});
  b->Args({2, 768, 3072, 4096});
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}

void matmul_rate(benchmark::State& state, DType dtype) {
  const int64_t m = state.range(1), n = state.range(2), k = state.range(3);
  const bool ta = state.range(0) == 2, tb = state.range(0) == 1;
  const Tensor a = filled(ta ? Shape{k, m} : Shape{m, k}, dtype);
  const Tensor b = filled(tb ? Shape{n, k} : Shape{k, n}, dtype);
  Tensor c = filled({m, n}, ta ? DType::f32 : dtype);
  for (auto _ : state) {
    matmul(Stream{}, c, a, ta ? Transpose::yes : Transpose::no, b,
           tb ? Transpose::yes : Transpose::no, Accum::write);
  }
  report(state, 2.0 * static_cast<double>(m * n * k), dtype);
}
BENCHMARK_CAPTURE(matmul_rate, f32, DType::f32)->Apply(sizes);
BENCHMARK_CAPTURE(matmul_rate, bf16, DType::bf16)->Apply(sizes);

void onednn_sgemm_rate(benchmark::State& state) {
  const int64_t m = state.range(1), n = state.range(2), k = state.range(3);
  const bool ta = state.range(0) == 2, tb = state.range(0) == 1;
  const Tensor a = filled(ta ? Shape{k, m} : Shape{m, k}, DType::f32);
  const Tensor b = filled(tb ? Shape{n, k} : Shape{k, n}, DType::f32);
  Tensor c = filled({m, n}, DType::f32);
  omp_set_num_threads(num_threads());
  for (auto _ : state) {
    dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1.0f, a.data<float>(), a.size(1),
               b.data<float>(), b.size(1), 0.0f, c.data<float>(), n);
  }
  report(state, 2.0 * static_cast<double>(m * n * k), DType::f32);
}
BENCHMARK(onednn_sgemm_rate)->Apply(sizes);

// Experts of equal load, and all rows at one expert.
void grouped_rate(benchmark::State& state, DType dtype) {
  const int64_t experts = 8, rows = state.range(0), k = state.range(1), n = state.range(2);
  const bool skewed = state.range(3) != 0;
  std::vector<int32_t> offsets(static_cast<size_t>(experts) + 1);
  for (int64_t e = 1; e <= experts; ++e) {
    offsets[static_cast<size_t>(e)] =
        static_cast<int32_t>(skewed ? (e > 3 ? rows : 0) : rows * e / experts);
  }
  const Tensor o = Tensor::from(Shape{experts + 1}, offsets);
  const Tensor a = filled({rows, k}, dtype), b = filled({experts, k, n}, dtype);
  const Tensor d_c = filled({rows, n}, dtype);
  Tensor c = filled({rows, n}, dtype), d_b = filled({experts, k, n}, DType::f32);
  const bool gradient = state.range(4) != 0;
  for (auto _ : state) {
    if (gradient) {
      grouped_matmul_weight_gradient(Stream{}, d_b, a, d_c, o, Accum::write);
    } else {
      grouped_matmul(Stream{}, c, a, b, Transpose::no, o, Accum::write);
    }
  }
  report(state, 2.0 * static_cast<double>(rows * n * k), dtype);
}
void expert_sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "k", "n", "skewed", "gradient"});
  for (const int gradient : {0, 1}) {
    for (const int skewed : {0, 1}) {
      b->Args({2048, 256, 1024, skewed, gradient});
      b->Args({4096, 768, 3072, skewed, gradient});
    }
  }
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(grouped_rate, f32, DType::f32)->Apply(expert_sizes);
BENCHMARK_CAPTURE(grouped_rate, bf16, DType::bf16)->Apply(expert_sizes);

}  // namespace
}  // namespace sw::kernels
