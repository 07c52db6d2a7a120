// Inputs of a router from logits, and the softmax around it, for tests.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "libswitch/moe/router.h"

namespace sw {

/// A tensor of the given master dtype from doubles.
inline Tensor master_tensor(const Shape& shape, DType dtype, const std::vector<double>& values) {
  return Tensor::from(shape, values).to(dtype);
}

/// Probabilities and log Z of logits [N, E].
inline RouterInput input_of(const std::vector<double>& logits, int64_t experts,
                            DType dtype = DType::f32) {
  const int64_t tokens = static_cast<int64_t>(logits.size()) / experts;
  std::vector<double> p(logits.size()), log_z(static_cast<size_t>(tokens));
  for (int64_t n = 0; n < tokens; ++n) {
    const double* row = logits.data() + n * experts;
    const double largest = *std::max_element(row, row + experts);
    double sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(row[e] - largest);
    log_z[n] = largest + std::log(sum);
    for (int64_t e = 0; e < experts; ++e) p[n * experts + e] = std::exp(row[e] - largest) / sum;
  }
  RouterInput input;
  input.probabilities = master_tensor({tokens, experts}, dtype, p);
  input.log_z = master_tensor({tokens}, dtype, log_z);
  return input;
}

/// One token per entry, its choice by far the most probable.
inline RouterInput input_choosing(const std::vector<int>& choices, int64_t experts) {
  std::vector<double> logits(choices.size() * static_cast<size_t>(experts), 0.0);
  for (size_t n = 0; n < choices.size(); ++n) logits[n * experts + choices[n]] = 3;
  return input_of(logits, experts);
}

inline Tensor mask_of(const std::vector<uint8_t>& real) {
  return Tensor::from({static_cast<int64_t>(real.size())}, real);
}

/// Standard normal logits of a fixed stream.
inline std::vector<double> random_logits(int64_t tokens, int64_t experts, uint64_t seed) {
  std::vector<double> logits(static_cast<size_t>(tokens * experts));
  const RngKey key = rng_key(seed, RngPurpose::test, "logits");
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = random_normal(key, i);
  return logits;
}

/// d_logits = p·(d_p - Σ p·d_p) + d_log_z·p, row by row.
inline std::vector<double> softmax_gradient(const Tensor& probabilities, const Tensor& d_p,
                                            const Tensor& d_log_z) {
  const std::vector<double> p = probabilities.to_vector(), d = d_p.to_vector(),
                            d_z = d_log_z.to_vector();
  const int64_t experts = probabilities.size(1);
  std::vector<double> result(p.size());
  for (int64_t n = 0; n < probabilities.size(0); ++n) {
    double dot = 0;
    for (int64_t i = n * experts; i < (n + 1) * experts; ++i) dot += p[i] * d[i];
    for (int64_t i = n * experts; i < (n + 1) * experts; ++i) {
      result[i] = p[i] * (d[i] - dot + d_z[n]);
    }
  }
  return result;
}

inline std::vector<int32_t> ints(const Tensor& tensor) {
  return {tensor.data<int32_t>(), tensor.data<int32_t>() + tensor.elements()};
}

/// The kind of the sw::Error that fn throws; fails the test when it throws none.
template <class Fn>
ErrorKind thrown_kind(const Fn& fn, std::string* message = nullptr) {
  try {
    fn();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.kind();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorKind::internal;
}

}  // namespace sw
