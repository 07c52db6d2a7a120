#include <cmath>
#include <cstdint>

#include "tests/oracle/oracle.h"

namespace sw::oracle {
namespace {

uint32_t fnv1a(const std::string& text) {
  uint32_t x = 2166136261u;
  for (const char c : text) x = (x ^ static_cast<uint8_t>(c)) * 16777619u;
  return x;
}

// The next of a tensor's numbers in [-1, 1).
double next_number(uint32_t& x) {
  x = 1664525u * x + 1013904223u;
  return (static_cast<double>(x >> 8) - 8388608.0) / 8388608.0;
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

double map_value(const std::string& name, double t, double scale) {
  if (contains(name, "norm")) return 1.0 + std::floor(256.0 * t) / 2048.0;
  if (name == "shared.weight" || name == "lm_head.weight" ||
      contains(name, "relative_attention_bias")) {
    return t;
  }
  if (contains(name, "classifier")) return t * scale;
  return (contains(name, ".q.") ? t / 4 : t / 2) * scale;
}

// The slice of one Hugging Face tensor within ours: all of it, or one expert's matrix.
struct Slice {
  int64_t begin = 0, rows = 1, columns = 1;
};
Slice slice_of(const Parameter& parameter, const HfTensor& tensor) {
  const Shape& shape = parameter.spec().shape;
  Slice slice;
  slice.columns = shape[-1];
  slice.rows = shape.elements() / slice.columns;
  if (tensor.expert >= 0) {
    slice.rows = shape[1];
    slice.begin = tensor.expert * shape[1] * shape[2];
  }
  return slice;
}

template <class T>
void fill(Parameter& parameter, const HfTensor& tensor, double scale, const std::string& prefix) {
  const Slice slice = slice_of(parameter, tensor);
  T* w = parameter.master().data<T>() + slice.begin;
  uint32_t x = fnv1a(prefix + tensor.name);
  const auto next = [&] { return static_cast<T>(map_value(tensor.name, next_number(x), scale)); };
  if (tensor.transpose) {
    for (int64_t c = 0; c < slice.columns; ++c) {
      for (int64_t r = 0; r < slice.rows; ++r) w[r * slice.columns + c] = next();
    }
  } else {
    for (int64_t i = 0; i < slice.rows * slice.columns; ++i) w[i] = next();
  }
}

}  // namespace

void fill_weights(Model& model, HfFamily family, double scale, const std::string& prefix) {
  for (auto& parameter : model.parameters()) {
    for (const HfTensor& tensor : hf_tensors(parameter->name(), family, model.config().experts)) {
      if (parameter->master().dtype() == DType::f64) {
        fill<double>(*parameter, tensor, scale, prefix);
      } else {
        fill<float>(*parameter, tensor, scale, prefix);
      }
    }
    parameter->refresh(Stream{});
  }
}

Json describe_parameters(const Model& model, HfFamily family, bool weights) {
  Json out = Json::object();
  for (const auto& parameter : model.parameters()) {
    const bool present = weights || parameter->gradient().is_set();
    const std::vector<double> values =
        !present  ? std::vector<double>(static_cast<size_t>(parameter->spec().elements()), 0.0)
        : weights ? parameter->master().to_vector()
                  : parameter->gradient().gradient().to_vector();
    for (const HfTensor& tensor : hf_tensors(parameter->name(), family, model.config().experts)) {
      const Slice slice = slice_of(*parameter, tensor);
      double squares = 0, product = 0;
      uint32_t x = fnv1a(tensor.name);
      // Their row-major order, so that element and number meet.
      for (int64_t i = 0; i < slice.rows * slice.columns; ++i) {
        const int64_t at = tensor.transpose ? i % slice.rows * slice.columns + i / slice.rows : i;
        const double value = values[static_cast<size_t>(slice.begin + at)];
        squares += value * value;
        product += value * next_number(x);
      }
      out[tensor.name] = {{"l2", std::sqrt(squares)},
                          {"first", values[static_cast<size_t>(slice.begin)]},
                          {"product", product}};
    }
  }
  return out;
}

double gradient_norm(const Model& model) {
  double squares = 0;
  for (const auto& parameter : model.parameters()) {
    if (!parameter->gradient().is_set()) continue;
    for (const double value : parameter->gradient().gradient().to_vector()) {
      squares += value * value;
    }
  }
  return std::sqrt(squares);
}

}  // namespace sw::oracle
