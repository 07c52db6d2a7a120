#include <cmath>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels::cpu {
namespace {

void check_size(const char* name, const Tensor& x, int64_t elements, DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "adamw_step: {}: expected {} elements of {}, got {} {}", name, elements,
           dtype_name(dtype), x.defined() ? x.shape().str() : std::string("nothing"),
           x.defined() ? dtype_name(x.dtype()) : "");
}

}  // namespace

void adamw_step(const Stream&, Tensor& weight, Tensor& value, Tensor& first_moment,
                Tensor& second_moment, const Tensor& gradient, const AdamWParams& params) {
  const DType dtype = weight.dtype();
  check_size("gradient", gradient, weight.elements(), dtype);
  check_size("first_moment", first_moment, weight.elements(), dtype);
  check_size("second_moment", second_moment, weight.elements(), dtype);
  if (value) check_size("value", value, weight.elements(), value.dtype());
  SW_CHECK(params.step >= 1, internal, "adamw_step: step {} counts from 1", params.step);
  const auto step = static_cast<double>(params.step);
  with_master("adamw_step", dtype, [&]<class A>(std::type_identity<A>) {
    A* w = weight.data<A>();
    A* m = first_moment.data<A>();
    A* v = second_moment.data<A>();
    const A* g = gradient.data<A>();
    const A scale = static_cast<A>(params.gradient_scale);
    const A beta1 = static_cast<A>(params.beta1);
    const A beta2 = static_cast<A>(params.beta2);
    const A rest1 = static_cast<A>(1.0 - params.beta1);
    const A rest2 = static_cast<A>(1.0 - params.beta2);
    // Both bias corrections: one in the rate, one beside the root.
    const A rate = static_cast<A>(params.learning_rate / (1.0 - std::pow(params.beta1, step)));
    const A correction = static_cast<A>(1.0 / std::sqrt(1.0 - std::pow(params.beta2, step)));
    const A epsilon = static_cast<A>(params.epsilon);
    const A shrink = static_cast<A>(1.0 - params.learning_rate * params.weight_decay);
    with_value("adamw_step", value, [&](auto* copy) {
      parallel_for(weight.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) {
          const A scaled = scale * g[i];
          const A mean = beta1 * m[i] + rest1 * scaled;
          const A square = beta2 * v[i] + rest2 * scaled * scaled;
          m[i] = mean;
          v[i] = square;
          const A updated =
              shrink * w[i] - rate * mean / (std::sqrt(square) * correction + epsilon);
          w[i] = updated;
          store_value(copy, i, updated);
        }
      });
    });
  });
}

}  // namespace sw::kernels::cpu
