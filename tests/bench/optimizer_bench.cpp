// Parameters a second of an optimizer step, on one thread by its processor time.
#include <benchmark/benchmark.h>

#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels {
namespace {

const Stream kStream;

Tensor pattern(const Shape& shape) {
  Tensor x = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < x.elements(); ++i) {
    x.data<float>()[i] = random_uniform(RngKey{1}, static_cast<uint64_t>(i)) - 0.5f;
  }
  return x;
}

// Arguments: batch, rows, columns, factored, one_rms.
void adafactor(benchmark::State& state) {
  set_threads(1);
  const int64_t batch = state.range(0), rows = state.range(1), columns = state.range(2);
  const bool factored = state.range(3) != 0;
  const Shape shape{batch, rows, columns};
  Tensor weight = pattern(shape), gradient = pattern(shape), row, column, moment;
  Tensor value = Tensor::zeros(shape, DType::bf16);
  if (factored) {
    row = Tensor::zeros({batch, rows}, DType::f32);
    column = Tensor::zeros({batch, columns}, DType::f32);
  } else {
    moment = Tensor::zeros(shape, DType::f32);
  }
  Tensor squares = factored ? Tensor::zeros({batch}, DType::f64) : Tensor();
  bool known = false;  // from the second step on, as in training
  AdafactorParams params;
  params.beta2 = 0.9;
  params.learning_rate = 1e-4;
  for (auto _ : state) {
    adafactor_step(kStream, weight, value, row, column, moment, squares, known, gradient, batch,
                   rows, columns, state.range(4) != 0, params, nullptr);
    known = factored;
  }
  state.SetItemsProcessed(state.iterations() * shape.elements());
}
BENCHMARK(adafactor)
    ->Args({1, 128, 512, 1, 1})
    ->Args({1, 256, 1024, 1, 1})
    ->Args({1, 768, 3072, 1, 1})
    ->Args({8, 128, 512, 1, 1})
    ->Args({8, 768, 3072, 1, 1})
    ->Args({8, 768, 3072, 1, 0})
    ->Args({1, 32128, 768, 1, 1})
    ->Args({1, 768, 3072, 0, 1});

void adamw(benchmark::State& state) {
  set_threads(1);
  const Shape shape{state.range(0)};
  Tensor weight = pattern(shape), gradient = pattern(shape);
  Tensor value = Tensor::zeros(shape, DType::bf16);
  Tensor m = Tensor::zeros(shape, DType::f32), v = Tensor::zeros(shape, DType::f32);
  for (auto _ : state) {
    adamw_step(kStream, weight, value, m, v, gradient, AdamWParams{});
  }
  state.SetItemsProcessed(state.iterations() * shape.elements());
}
BENCHMARK(adamw)->Arg(65536)->Arg(2359296);

// What memory allows: three arrays read, one of them written, as in an update.
void triad(benchmark::State& state) {
  const int64_t n = state.range(0);
  Tensor weight = pattern({n}), gradient = pattern({n});
  float* w = weight.data<float>();
  const float* g = gradient.data<float>();
  for (auto _ : state) {
    for (int64_t i = 0; i < n; ++i) w[i] -= 1e-9f * g[i];
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * n);
  state.SetBytesProcessed(state.iterations() * n * 12);
}
BENCHMARK(triad)->Arg(65536)->Arg(2359296)->Arg(8 * 2359296);

}  // namespace
}  // namespace sw::kernels
