#include "libswitch/kernels/activation.h"

#include <cmath>
#include <numbers>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/vector_math.h"

namespace sw::kernels::cpu {
namespace {

void check_like(const char* where, const char* name, const Tensor& x, const Tensor& like) {
  SW_CHECK(x.defined() && x.elements() == like.elements() && x.dtype() == like.dtype(), internal,
           "{}: {}: expected {} {}, got {}", where, name, like.shape().str(),
           dtype_name(like.dtype()), x.defined() ? x.shape().str() : std::string("nothing"));
}

// The share of x that a curve lets through, and the curve's slope there.
template <class A>
struct Point {
  A share, slope;
};

// e^x, kept finite. x / (1 + e^-u) is x (1 + tanh(u / 2)) / 2, and what is missing to 1 is e^-u /
// (1 + e^-u): neither cancels.
template <class A>
inline A finite_exp(A x) {
  constexpr A kLargest = std::is_same_v<A, double> ? 700 : 85;
  return vector_exp(x > kLargest ? kLargest : x);
}

struct Relu {
  template <class A>
  static A value(A x) {
    return x < A{0} ? A{0} : x;
  }
  template <class A>
  static Point<A> at(A x) {
    const A share = x > A{0} ? A{1} : A{0};
    return {share, share};
  }
};

struct Gelu {
  template <class A>
  static A share(A x) {
    return A(0.5) * std::erfc(x * A(-1 / std::numbers::sqrt2));
  }
  template <class A>
  static A value(A x) {
    return x * share(x);
  }
  template <class A>
  static Point<A> at(A x) {
    constexpr double kDensity = std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // 1 / sqrt(2 pi)
    const A through = share(x);
    return {through, through + x * A(kDensity) * vector_exp(A(-0.5) * x * x)};
  }
};

struct GeluTanh {
  static constexpr double kSlope = 2 * 0.79788456080286535588;  // 2 sqrt(2 / pi)
  static constexpr double kCubic = 0.044715;

  template <class A>
  static A exp_of(A x) {
    return finite_exp(-A(kSlope) * (x + A(kCubic) * x * x * x));
  }
  template <class A>
  static A value(A x) {
    return x / (A{1} + exp_of(x));
  }
  template <class A>
  static Point<A> at(A x) {
    const A e = exp_of(x);
    const A s = A{1} / (A{1} + e);
    const A slope = A(kSlope) * (A{1} + A(3 * kCubic) * x * x);
    return {s, s + x * s * (s * e) * slope};
  }
};

struct Silu {
  template <class A>
  static A value(A x) {
    return x / (A{1} + finite_exp(-x));
  }
  template <class A>
  static Point<A> at(A x) {
    const A e = finite_exp(-x);
    const A s = A{1} / (A{1} + e);
    return {s, s + x * s * (s * e)};
  }
};

template <class Fn>
void with_curve(Curve curve, const Fn& fn) {
  switch (curve) {
    case Curve::relu: return fn(Relu{});
    case Curve::gelu: return fn(Gelu{});
    case Curve::gelu_tanh: return fn(GeluTanh{});
    case Curve::silu: return fn(Silu{});
  }
}

// fn(curve, element type).
template <class Fn>
void with_curve_and_element(const char* where, Curve curve, DType dtype, const Fn& fn) {
  with_curve(curve, [&](auto shape) {
    with_element(where, dtype, [&](auto element) { fn(shape, element); });
  });
}

// The loops over [begin, end). There are so many of them that the compiler would leave calls in
// some, which then are not vectorised: flatten.
template <class C, class T>
[[gnu::flatten]] void curve_range(T* y, const T* x, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y, i, C::value(load(x, i)));
}

template <class C, class T, class Add>
[[gnu::flatten]] void curve_backward_range(Add add, T* d_x, const T* x, const T* d_y, int64_t begin,
                                           int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) put(add, d_x, i, load(d_y, i) * C::at(load(x, i)).slope);
}

template <class C, class T>
[[gnu::flatten]] void gated_range(T* y, const T* a, const T* b, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) store(y, i, C::value(load(a, i)) * load(b, i));
}

template <class T>
struct GatedGradient {
  T *d_a, *d_b;
  const T *a, *b, *d_y;
};

template <class C, class T, class AddA, class AddB>
[[gnu::flatten]] void gated_backward_range(AddA add_a, AddB add_b, const GatedGradient<T>& g,
                                           int64_t begin, int64_t end) {
  const GatedGradient<T> p = g;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const auto x = load(p.a, i);
    const auto d = load(p.d_y, i);
    const auto other = load(p.b, i);
    const auto point = C::at(x);
    put(add_a, p.d_a, i, d * other * point.slope);
    put(add_b, p.d_b, i, d * x * point.share);
  }
}

}  // namespace

void curve_forward(const Stream&, Tensor& y, const Tensor& x, Curve curve) {
  check_like("curve_forward", "y", y, x);
  with_curve_and_element(
      "curve_forward", curve, x.dtype(), [&]<class C, class T>(C, std::type_identity<T>) {
        T* to = y.data<T>();
        const T* from = x.data<T>();
        parallel_for(x.elements(), kElementGrain,
                     [&](int64_t begin, int64_t end) { curve_range<C>(to, from, begin, end); });
      });
}

void curve_backward(const Stream&, Tensor& d_x, Accum accum, const Tensor& x, const Tensor& d_y,
                    Curve curve) {
  check_like("curve_backward", "d_x", d_x, x);
  check_like("curve_backward", "d_y", d_y, x);
  with_curve_and_element(
      "curve_backward", curve, x.dtype(), [&]<class C, class T>(C, std::type_identity<T>) {
        T* to = d_x.data<T>();
        const T* in = x.data<T>();
        const T* from = d_y.data<T>();
        with_accum(accum, [&](auto add) {
          parallel_for(x.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
            curve_backward_range<C>(add, to, in, from, begin, end);
          });
        });
      });
}

void gated_forward(const Stream&, Tensor& y, const Tensor& a, const Tensor& b, Curve curve) {
  check_like("gated_forward", "y", y, a);
  check_like("gated_forward", "b", b, a);
  with_curve_and_element(
      "gated_forward", curve, a.dtype(), [&]<class C, class T>(C, std::type_identity<T>) {
        T* to = y.data<T>();
        const T* gate = a.data<T>();
        const T* linear = b.data<T>();
        parallel_for(a.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
          gated_range<C>(to, gate, linear, begin, end);
        });
      });
}

void gated_backward(const Stream&, Tensor& d_a, Accum accum_a, Tensor& d_b, Accum accum_b,
                    const Tensor& a, const Tensor& b, const Tensor& d_y, Curve curve) {
  constexpr const char* kWhere = "gated_backward";
  check_like(kWhere, "b", b, a);
  check_like(kWhere, "d_a", d_a, a);
  check_like(kWhere, "d_b", d_b, a);
  check_like(kWhere, "d_y", d_y, a);
  with_curve_and_element(kWhere, curve, a.dtype(), [&]<class C, class T>(C, std::type_identity<T>) {
    const GatedGradient<T> gradient{d_a.data<T>(), d_b.data<T>(), a.data<T>(), b.data<T>(),
                                    d_y.data<T>()};
    with_accum(accum_a, [&](auto add_a) {
      with_accum(accum_b, [&](auto add_b) {
        parallel_for(a.elements(), kElementGrain, [&](int64_t begin, int64_t end) {
          gated_backward_range<C>(add_a, add_b, gradient, begin, end);
        });
      });
    });
  });
}

}  // namespace sw::kernels::cpu
