// What every test of a kernel needs: inputs of odd sizes, tolerances that follow from the dtype and
// the length of a sum, and the checks that hold for all kernels (write against add, bits that do
// not depend on threads, gradients against finite differences).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libswitch/kernels/kernel.h"

namespace sw::test {

/// The element types every kernel supports.
inline constexpr DType kFloatTypes[] = {DType::f32, DType::bf16, DType::f64};
/// Sizes that catch wrong tails: below, at and beside the widths of vectors and blocks.
inline constexpr int64_t kOddSizes[] = {1, 3, 17, 65, 127};

/// scale times standard normals, rounded to dtype; a pure function of (seed, index).
Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed, double scale = 1);
/// Uniform in [low, high), rounded to dtype.
Tensor uniform_tensor(const Shape& shape, DType dtype, uint64_t seed, double low, double high);
/// Uniform i32 in [low, high).
Tensor random_ints(const Shape& shape, uint64_t seed, int32_t low, int32_t high);
/// Every element NaN: a destination in which an element that was not written shows.
Tensor nan_tensor(const Shape& shape, DType dtype);
/// The i32 vector of `values`.
Tensor int_tensor(const std::vector<int32_t>& values);

/// Distance between 1 and the next number: 2^-23, 2^-7, 2^-52.
double epsilon(DType dtype);

/// |got - want| <= absolute + relative·|want|.
struct Tolerance {
  double relative = 0;
  double absolute = 0;
};
/// For a sum of `terms` independent terms of magnitude about `scale`, computed in master precision
/// and rounded once to `dtype`: the rounding of the result, and 4·eps·terms·scale of the sum (its
/// partial sums grow like sqrt(terms), and so does the number of roundings that matter).
Tolerance sum_tolerance(DType dtype, int64_t terms, double scale = 1);
/// For an elementwise result: `ulps` units in the last place of dtype, and of `scale` near zero.
Tolerance ulp_tolerance(DType dtype, double ulps = 2, double scale = 1);

/// Compares every element; a failure names the first bad one, their number and the worst. NaN is
/// never close.
void expect_close(const Tensor& got, const std::vector<double>& want, Tolerance tolerance,
                  const std::string& what);
void expect_close(const Tensor& got, const Tensor& want, Tolerance tolerance,
                  const std::string& what);
void expect_same_bits(const Tensor& got, const Tensor& want, const std::string& what);

/// Runs `kernel`, which returns all it computed, with 1, 2 and 3 threads and expects the same bits.
void expect_thread_invariant(const std::function<std::vector<Tensor>()>& kernel,
                             const std::string& what);

/// `kernel(destination, accum)` fills one destination. Expects that write leaves nothing of what
/// was there (not even a NaN), and that add gives the old contents plus what write gives.
/// Returns what write gave. `terms` is the length of the sum in an element: a kernel may start it
/// from the old contents, so that their roundings mix.
Tensor expect_accumulates(const Shape& shape, DType dtype,
                          const std::function<void(Tensor&, Accum)>& kernel,
                          const std::string& what, int64_t terms = 1);

/// `gradient` [like x, f64] against central differences of `loss()`, which reads x (f64), at up to
/// `samples` elements of x spread over it.
void expect_gradient(const Tensor& gradient, Tensor& x, const std::function<double()>& loss,
                     const std::string& what, int64_t samples = 64);

/// Sets the number of threads for one scope.
class ThreadsScope {
 public:
  explicit ThreadsScope(int threads);
  ~ThreadsScope();
  ThreadsScope(const ThreadsScope&) = delete;
  ThreadsScope& operator=(const ThreadsScope&) = delete;

 private:
  int before_;
};

}  // namespace sw::test
