#include "libswitch/comm/combine.h"

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"

namespace sw {
namespace {

constexpr int64_t kGrain = 1 << 16;  // elements; smaller messages are combined by one thread

template <class T, class Op>
void map(void* out, const void* left, const void* right, int64_t n, Op op) {
  T* y = static_cast<T*>(out);
  const T* a = static_cast<const T*>(left);
  const T* b = static_cast<const T*>(right);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(op(a[i], b[i]));
  });
}

// Value is the type in which T is computed.
template <class T, class Value = T>
void combine_as(ReduceOp op, void* out, const void* left, const void* right, int64_t n) {
  switch (op) {
    case ReduceOp::sum: return map<T>(out, left, right, n, [](Value a, Value b) { return a + b; });
    case ReduceOp::max:  // a != a: NaN stays
      return map<T>(out, left, right, n, [](Value a, Value b) { return a != a || a >= b ? a : b; });
    case ReduceOp::min:
      return map<T>(out, left, right, n, [](Value a, Value b) { return a != a || a <= b ? a : b; });
  }
}

}  // namespace

void combine(ReduceOp op, DType dtype, void* out, const void* left, const void* right, int64_t n) {
  switch (dtype) {
    case DType::f32: return combine_as<float>(op, out, left, right, n);
    case DType::f64: return combine_as<double>(op, out, left, right, n);
    case DType::bf16: return combine_as<bf16, float>(op, out, left, right, n);
    case DType::i32: return combine_as<int32_t>(op, out, left, right, n);
    case DType::u8: break;
  }
  fail(ErrorKind::internal, "reduction: dtype {}, expected f32, f64, bf16 or i32",
       dtype_name(dtype));
}

void combine_pieces(ReduceOp op, DType dtype, void* pieces, int64_t count, int64_t n) {
  const int64_t bytes = n * element_bytes(dtype);
  add_in_order(count, [&](int64_t left, int64_t right) {
    char* sum = static_cast<char*>(pieces) + left * bytes;
    combine(op, dtype, sum, sum, static_cast<char*>(pieces) + right * bytes, n);
  });
}

}  // namespace sw
