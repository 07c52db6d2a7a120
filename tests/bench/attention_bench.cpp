// Rates of attention at the shapes of T5, and their share of oneDNN's best matmul rate in this
// process. Flops: 4·T·S·Dh per head forward, 2.5 times that backward (five products instead of
// two); under causality half.
#include <benchmark/benchmark.h>

#include "libswitch/kernels/attention.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::kernels {
namespace {

double peak(DType dtype) {
  static const double f32 = cpu::measure_matmul_peak(DType::f32);
  static const double bf16 = cpu::measure_matmul_peak(DType::bf16);
  return dtype == DType::bf16 ? bf16 : f32;
}

Tensor filled(const Shape& shape, DType dtype) {
  Tensor x = Tensor::empty(shape, dtype);
  fill({}, x, 0.125);
  return x;
}

void attention_rate(benchmark::State& state, DType dtype, bool backward) {
  AttentionParams p;
  p.batch = state.range(0);
  p.heads = state.range(1);
  p.head_dim = 64;
  p.query_length = state.range(2);
  p.key_length = state.range(3);
  p.causal = state.range(4) != 0;
  p.dropout = static_cast<double>(state.range(5)) * 0.01;
  const Shape queries{p.batch * p.query_length, p.heads * p.head_dim};
  const Shape keys{p.batch * p.key_length, p.heads * p.head_dim};
  const Shape diagonals{p.heads, p.query_length + p.key_length - 1};
  const Tensor q = filled(queries, dtype), k = filled(keys, dtype), v = filled(keys, dtype);
  const Tensor d_out = filled(queries, dtype), bias = filled(diagonals, DType::f32), none;
  Tensor out = filled(queries, dtype);
  Tensor log_sum_exp = filled({p.batch, p.heads, p.query_length}, DType::f32);
  Tensor d_q = filled(queries, dtype), d_k = filled(keys, dtype), d_v = filled(keys, dtype);
  Tensor d_bias = filled(diagonals, DType::f32);
  attention_forward(Stream{}, out, log_sum_exp, q, k, v, bias, none, none, p);
  for (auto _ : state) {
    if (backward) {
      attention_backward(Stream{}, d_q, Accum::write, d_k, Accum::write, d_v, Accum::write, d_bias,
                         q, k, v, bias, none, none, out, log_sum_exp, d_out, p);
    } else {
      attention_forward(Stream{}, out, log_sum_exp, q, k, v, bias, none, none, p);
    }
  }
  const double flops = (backward ? 10.0 : 4.0) * (p.causal ? 0.5 : 1.0) *
                       static_cast<double>(p.batch * p.heads * p.query_length * p.key_length * 64);
  const double all = flops * static_cast<double>(state.iterations()) * 1e-9;
  state.counters["GFLOP/s"] = benchmark::Counter(all, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(all / peak(dtype), benchmark::Counter::kIsRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "H", "T", "S", "causal", "dropout%"});
  b->Args({8, 4, 256, 256, 0, 0});
  b->Args({8, 4, 64, 64, 1, 0});
  b->Args({8, 4, 64, 256, 0, 0});
  b->Args({4, 12, 512, 512, 0, 0});
  b->Args({4, 12, 512, 512, 0, 10});
  b->Args({4, 12, 114, 114, 1, 0});
  b->Args({4, 12, 114, 512, 0, 0});
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(attention_rate, forward_f32, DType::f32, false)->Apply(shapes);
BENCHMARK_CAPTURE(attention_rate, backward_f32, DType::f32, true)->Apply(shapes);
BENCHMARK_CAPTURE(attention_rate, forward_bf16, DType::bf16, false)->Apply(shapes);
BENCHMARK_CAPTURE(attention_rate, backward_bf16, DType::bf16, true)->Apply(shapes);

}  // namespace
}  // namespace sw::kernels
