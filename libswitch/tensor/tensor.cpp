#include "libswitch/tensor/tensor.h"

#include <cstring>

#include "libswitch/tensor/allocator.h"

namespace sw {

struct Tensor::Storage {
  Storage(int64_t size, Device where) : bytes(size), device(where), block(allocate(size, where)) {}
  ~Storage() { release(block, bytes, device); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  int64_t bytes;
  Device device;
  void* block;
};

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.elements_ = shape.elements();
  tensor.dtype_ = dtype;
  tensor.storage_ = std::make_shared<Storage>(tensor.bytes(), device);
  tensor.data_ = tensor.storage_->block;
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  SW_CHECK(!device.is_cuda(), internal, "Tensor::zeros: use kernels::fill on {}", device.str());
  Tensor tensor = empty(shape, dtype, device);
  std::memset(tensor.raw(), 0, static_cast<size_t>(tensor.bytes()));
  return tensor;
}

template <class T>
Tensor Tensor::from(const Shape& shape, std::span<const T> values) {
  Tensor tensor = empty(shape, dtype_of<T>());
  SW_CHECK(tensor.elements() == static_cast<int64_t>(values.size()), internal,
           "Tensor::from: shape {} needs {} values, got {}", shape.str(), tensor.elements(),
           values.size());
  if (!values.empty()) std::memcpy(tensor.raw(), values.data(), values.size_bytes());
  return tensor;
}
template Tensor Tensor::from(const Shape&, std::span<const float>);
template Tensor Tensor::from(const Shape&, std::span<const double>);
template Tensor Tensor::from(const Shape&, std::span<const int32_t>);
template Tensor Tensor::from(const Shape&, std::span<const uint8_t>);
template Tensor Tensor::from(const Shape&, std::span<const bf16>);

Device Tensor::device() const { return storage_ ? storage_->device : Device{}; }

void Tensor::check_type(DType wanted) const {
  SW_CHECK(defined(), internal, "tensor: undefined, expected {}", dtype_name(wanted));
  SW_CHECK(dtype_ == wanted, internal, "tensor {}: dtype is {}, accessed as {}", shape_.str(),
           dtype_name(dtype_), dtype_name(wanted));
}

Tensor Tensor::view(const Shape& shape) const {
  SW_CHECK(shape.elements() == elements_, internal, "view: {} does not have the size of {}",
           shape.str(), shape_.str());
  Tensor tensor = *this;
  tensor.shape_ = shape;
  return tensor;
}

Tensor Tensor::slice(int64_t begin, int64_t end) const {
  SW_CHECK(rank() >= 1 && begin >= 0 && begin <= end && end <= size(0), internal,
           "slice: [{}, {}) of {}", begin, end, shape_.str());
  Tensor tensor = *this;
  const int64_t row = size(0) == 0 ? 0 : elements_ / size(0);
  tensor.shape_ = Shape{end - begin};
  for (int i = 1; i < rank(); ++i) tensor.shape_.push_back(size(i));
  tensor.elements_ = (end - begin) * row;
  tensor.data_ = static_cast<char*>(data_) + begin * row * element_bytes(dtype_);
  return tensor;
}

Tensor Tensor::operator[](int64_t i) const {
  Tensor tensor = slice(i, i + 1);
  tensor.shape_ = Shape(shape_.begin() + 1, shape_.end());
  return tensor;
}

Tensor Tensor::clone() const {
  SW_CHECK(!device().is_cuda(), internal, "Tensor::clone: use kernels::copy on {}", device().str());
  Tensor tensor = empty(shape_, dtype_, device());
  if (bytes() > 0) std::memcpy(tensor.raw(), raw(), static_cast<size_t>(bytes()));
  return tensor;
}

namespace {

template <class From, class To>
void convert(const Tensor& from, Tensor& to) {
  const From* x = from.data<From>();
  To* y = to.data<To>();
  for (int64_t i = 0; i < from.elements(); ++i) {
    y[i] = static_cast<To>(static_cast<Acc<From>>(x[i]));
  }
}

template <class To>
void convert_to(const Tensor& from, Tensor& to) {
  switch (from.dtype()) {
    case DType::f32: return convert<float, To>(from, to);
    case DType::f64: return convert<double, To>(from, to);
    case DType::bf16: return convert<bf16, To>(from, to);
    default: fail(ErrorKind::internal, "Tensor::to: from {}", dtype_name(from.dtype()));
  }
}

}  // namespace

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return clone();
  Tensor tensor = empty(shape_, dtype, device());
  switch (dtype) {
    case DType::f32: convert_to<float>(*this, tensor); break;
    case DType::f64: convert_to<double>(*this, tensor); break;
    case DType::bf16: convert_to<bf16>(*this, tensor); break;
    default: fail(ErrorKind::internal, "Tensor::to: to {}", dtype_name(dtype));
  }
  return tensor;
}

std::vector<double> Tensor::to_vector() const {
  std::vector<double> values(static_cast<size_t>(elements_));
  const auto copy = [&](const auto* x) {
    for (int64_t i = 0; i < elements_; ++i) values[static_cast<size_t>(i)] = x[i];
  };
  switch (dtype_) {
    case DType::f32: copy(data<float>()); break;
    case DType::f64: copy(data<double>()); break;
    case DType::i32: copy(data<int32_t>()); break;
    case DType::u8: copy(data<uint8_t>()); break;
    case DType::bf16: copy(data<bf16>()); break;
  }
  return values;
}

void check_tensor(const char* where, const char* name, const Tensor& tensor, const Shape& shape,
                  DType dtype) {
  SW_CHECK(tensor.defined() && tensor.shape() == shape && tensor.dtype() == dtype, internal,
           "{}: {}: expected {} {}, got {} {}", where, name, shape.str(), dtype_name(dtype),
           tensor.defined() ? tensor.shape().str() : std::string("nothing"),
           tensor.defined() ? dtype_name(tensor.dtype()) : "");
}

}  // namespace sw
