#include "libswitch/tape/parameter.h"

#include <algorithm>

#include "libswitch/base/parallel.h"
#include "libswitch/base/rng.h"
#include "libswitch/kernels/elementwise.h"

namespace sw {
namespace {

double draw_one(const Initializer& initializer, RngKey key, uint64_t index) {
  switch (initializer.kind) {
    case Initializer::Kind::constant: return initializer.scale;
    case Initializer::Kind::normal: return initializer.scale * random_normal(key, index);
    case Initializer::Kind::truncated_normal:
      return initializer.scale * random_truncated_normal(key, index);
    case Initializer::Kind::uniform:
      return initializer.scale * (2.0 * random_uniform(key, index) - 1.0);
  }
  return 0;
}

// The box of a weight of that shape, each element by its index in the whole.
template <class T>
void draw(Tensor& weight, const Shape& shape, const Rectangle& box, const Initializer& initializer,
          RngKey key) {
  T* w = weight.data<T>();
  const int64_t line = shape.rank() > 0 ? weight.size(-1) : 1;
  parallel_for(weight.elements(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t line_end = std::min(end, (i / line + 1) * line);
      const int64_t ahead = index_in_whole(shape, box, i) - i;
      for (; i < line_end; ++i) {
        w[i] = static_cast<T>(draw_one(initializer, key, static_cast<uint64_t>(i + ahead)));
      }
    }
  });
}

}  // namespace

Parameter::Parameter(ParameterSpec spec, DType compute, Device device, const Mesh& mesh)
    : spec_(std::move(spec)),
      placement_(placement_of(spec_.axes)),
      rectangle_(local_part(spec_.name, spec_.shape, placement_, mesh)) {
  const DType master = master_dtype(compute);
  const Shape local = shape_of(rectangle_, spec_.shape.rank());
  master_ = Tensor::empty(local, master, device);
  if (compute != master && !spec_.master_only) working_ = Tensor::empty(local, compute, device);
  slot_ = std::make_shared<GradientSlot>(local, master, device);
}

void Parameter::refresh(const Stream& stream) {
  ++refreshes_;
  if (working_.defined()) kernels::cast(stream, working_, master_);
}

void Parameter::initialize(const Stream& stream, uint64_t seed) {
  const RngKey key = rng_key(seed, RngPurpose::init, spec_.name);
  if (master_.dtype() == DType::f64) {
    draw<double>(master_, spec_.shape, rectangle_, spec_.initializer, key);
  } else {
    draw<float>(master_, spec_.shape, rectangle_, spec_.initializer, key);
  }
  refresh(stream);
}

}  // namespace sw
