#include "libswitch/tape/parameter.h"

#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/kernels/elementwise.h"

namespace sw {
namespace {

template <class T>
void draw(Tensor& weight, const Initializer& initializer, RngKey key) {
  T* w = weight.data<T>();
  parallel_for(weight.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto index = static_cast<uint64_t>(i);
      switch (initializer.kind) {
        case Initializer::Kind::constant: w[i] = static_cast<T>(initializer.scale); break;
        case Initializer::Kind::normal:
          w[i] = static_cast<T>(initializer.scale * random_normal(key, index));
          break;
        case Initializer::Kind::truncated_normal:
          w[i] = static_cast<T>(initializer.scale * random_truncated_normal(key, index));
          break;
        case Initializer::Kind::uniform:
          w[i] = static_cast<T>(initializer.scale * (2.0 * random_uniform(key, index) - 1.0));
          break;
      }
    }
  });
}

}  // namespace

Parameter::Parameter(ParameterSpec spec, DType compute, Device device) : spec_(std::move(spec)) {
  const DType master = master_dtype(compute);
  master_ = Tensor::empty(spec_.shape, master, device);
  if (compute != master && !spec_.master_only) {
    working_ = Tensor::empty(spec_.shape, compute, device);
  }
  slot_ = std::make_shared<GradientSlot>(spec_.shape, master, device);
}

void Parameter::refresh(const Stream& stream) {
  if (working_.defined()) kernels::cast(stream, working_, master_);
}

void Parameter::initialize(const Stream& stream, uint64_t seed) {
  const RngKey key = rng_key(seed, RngPurpose::init, spec_.name);
  if (master_.dtype() == DType::f64) {
    draw<double>(master_, spec_.initializer, key);
  } else {
    draw<float>(master_, spec_.initializer, key);
  }
  refresh(stream);
}

}  // namespace sw
