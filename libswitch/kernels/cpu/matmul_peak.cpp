#include "libswitch/kernels/cpu/matmul_peak.h"

#include <omp.h>

#include <algorithm>
#include <oneapi/dnnl/dnnl.hpp>

#include "libswitch/base/parallel.h"
#include "libswitch/base/timer.h"
#include "libswitch/kernels/cpu/matmul_tile.h"
#include "libswitch/kernels/elementwise.h"

namespace sw::kernels::cpu {
namespace {

struct Size {
  int64_t m, n, k;
};
// Square, and projections and feed-forward layers of T5 base and of a small model.
constexpr Size kSizes[] = {
    {1024, 1024, 1024}, {2048, 768, 768}, {2048, 3072, 768}, {2048, 256, 1024}};

// Fewest seconds of one run() over about `seconds`, after one run that warms up.
template <class Run>
double best_of(double seconds, const Run& run) {
  run();
  double best = 1e30;
  const Timer total;
  do {
    const Timer one;
    run();
    best = std::min(best, one.seconds());
  } while (total.seconds() < seconds);
  return best;
}

// The matmul primitive with the weights plain or in the layout it likes best.
double primitive_seconds(const Size& s, dnnl::memory::data_type type, Tensor& a, Tensor& b,
                         Tensor& c, bool packed, double seconds) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc plain({s.k, s.n}, type, memory::format_tag::ab);
  const memory::desc any({s.k, s.n}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc description(
      dnnl::matmul::desc({{s.m, s.k}, type, memory::format_tag::ab}, packed ? any : plain,
                         {{s.m, s.n}, type, memory::format_tag::ab}),
      engine);
  memory from(plain, engine, b.raw());
  memory weights = from;
  if (description.weights_desc() != plain) {
    weights = memory(description.weights_desc(), engine);
    dnnl::reorder(from, weights).execute(stream, from, weights);
  }
  const dnnl::matmul primitive(description);
  const memory source(description.src_desc(), engine, a.raw());
  const memory destination(description.dst_desc(), engine, c.raw());
  return best_of(seconds, [&] {
    primitive.execute(
        stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, destination}});
  });
}

}  // namespace

double measure_matmul_peak(DType dtype, double seconds) {
  SW_CHECK(dtype == DType::f32 || dtype == DType::bf16, usage,
           "measure_matmul_peak: f32 or bf16 expected, got {}", dtype_name(dtype));
  if (dtype == DType::bf16 && !multiplies_bf16()) dtype = DType::f32;
  omp_set_num_threads(num_threads());
  const auto type =
      dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  double best = 0;
  for (const Size& s : kSizes) {
    Tensor a = Tensor::empty({s.m, s.k}, dtype);
    Tensor b = Tensor::empty({s.k, s.n}, dtype);
    Tensor c = Tensor::empty({s.m, s.n}, dtype);
    fill({}, a, 0.5);
    fill({}, b, 0.25);
    const double flops = 2.0 * static_cast<double>(s.m * s.n * s.k);
    for (const bool packed : {false, true}) {
      best = std::max(best, flops / primitive_seconds(s, type, a, b, c, packed, seconds));
    }
  }
  return best * 1e-9;
}

}  // namespace sw::kernels::cpu
