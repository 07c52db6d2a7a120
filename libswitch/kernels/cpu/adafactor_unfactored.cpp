#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kBlock = int64_t{1} << 14;  // elements of one task
constexpr int64_t kRun = int64_t{1} << 11;    // of them worked on together: they stay in L1

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

// Calls fn(entry, offset, n) for the runs of block number `task`; blocks of an entry follow each
// other.
template <class Fn>
void each_run(int64_t task, int64_t count, const Fn& fn) {
  const int64_t entry = task / blocks_of(count);
  const int64_t begin = task % blocks_of(count) * kBlock;
  const int64_t end = std::min(count, begin + kBlock);
  for (int64_t start = begin; start < end; start += kRun) {
    fn(entry, entry * count + start, std::min(kRun, end - start));
  }
}

void check_size(const char* name, const Tensor& x, int64_t elements, DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "adafactor without factors: {}: expected {} elements of {}", name, elements,
           dtype_name(dtype));
}

}  // namespace

void adafactor_unfactored_squares(const Stream&, Tensor& squares, Tensor& moment,
                                  const Tensor& weight, const Tensor& gradient, int64_t batch,
                                  int64_t count, const AdafactorParams& params) {
  const DType dtype = weight.dtype();
  check_size("squares", squares, 2 * batch, DType::f64);
  for (const Tensor* x : std::initializer_list<const Tensor*>{&moment, &weight, &gradient}) {
    check_size("moment, weight, gradient", *x, batch * count, dtype);
  }
  const int64_t blocks = blocks_of(count);
  std::vector<double> updates(static_cast<size_t>(batch * blocks)), weights(updates.size());
  with_master("adafactor_unfactored_squares", dtype, [&]<class A>(std::type_identity<A>) {
    const A scale = static_cast<A>(params.gradient_scale);
    const A decay = static_cast<A>(params.beta2);
    const A rest = static_cast<A>(1.0 - params.beta2);
    const A epsilon = static_cast<A>(params.epsilon1);
    parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
      double of_update = 0, of_weight = 0;
      each_run(task, count, [&](int64_t, int64_t offset, int64_t n) {
        const A* w = weight.data<A>() + offset;
        const A* g = gradient.data<A>() + offset;
        A* m = moment.data<A>() + offset;
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
          const A scaled = scale * g[i];
          m[i] = decay * m[i] + rest * (scaled * scaled + epsilon);
        }
        of_update += static_cast<double>(lane_sum<A>(n, [=](int64_t i) {
          const A scaled = scale * g[i];
          return scaled * scaled / m[i];
        }));
        of_weight += static_cast<double>(lane_sum<A>(n, [w](int64_t i) { return w[i] * w[i]; }));
      });
      updates[static_cast<size_t>(task)] = of_update;
      weights[static_cast<size_t>(task)] = of_weight;
    });
  });
  double* out = squares.data<double>();
  for (int64_t entry = 0; entry < batch; ++entry) {
    double update = 0, weight_sum = 0;
    for (auto k = static_cast<size_t>(entry * blocks);
         k < static_cast<size_t>((entry + 1) * blocks); ++k) {
      update += updates[k];
      weight_sum += weights[k];
    }
    out[2 * entry] = update;
    out[2 * entry + 1] = weight_sum;
  }
}

void adafactor_unfactored_update(const Stream&, Tensor& weight, Tensor& value,
                                 const Tensor& gradient, const Tensor& moment,
                                 const Tensor& step_sizes, int64_t batch, int64_t count,
                                 const AdafactorParams& params) {
  const DType dtype = weight.dtype();
  check_size("step_sizes", step_sizes, batch, DType::f64);
  for (const Tensor* x : std::initializer_list<const Tensor*>{&weight, &gradient, &moment}) {
    check_size("weight, gradient, moment", *x, batch * count, dtype);
  }
  if (value) check_size("value", value, batch * count, value.dtype());
  const double* sizes = step_sizes.data<double>();
  with_master("adafactor_unfactored_update", dtype, [&]<class A>(std::type_identity<A>) {
    with_value("adafactor_unfactored_update", value, [&](auto* copy) {
      const A scale = static_cast<A>(params.gradient_scale);
      parallel_for(batch * blocks_of(count), 1, [&](int64_t task, int64_t) {
        each_run(task, count, [&](int64_t entry, int64_t offset, int64_t n) {
          const A step = static_cast<A>(sizes[entry]) * scale;
          A* w = weight.data<A>() + offset;
          const A* g = gradient.data<A>() + offset;
          const A* m = moment.data<A>() + offset;
          auto* out = value_at(copy, offset);
#pragma omp simd
          for (int64_t i = 0; i < n; ++i) {
            const A updated = w[i] - step * g[i] / std::sqrt(m[i]);
            w[i] = updated;
            store_value(out, i, updated);
          }
        });
      });
    });
  });
}

}  // namespace sw::kernels::cpu
