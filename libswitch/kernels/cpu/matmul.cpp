#include "libswitch/kernels/matmul.h"

#include <vector>

#include "libswitch/kernels/cpu/matmul_blocks.h"

namespace sw::kernels::cpu {
namespace {

// A tensor seen as a matrix: all dimensions but the last are rows.
struct Matrix {
  int64_t rows = 0, columns = 0;
};

Matrix as_matrix(const Tensor& x, const char* where, const char* name) {
  SW_CHECK(x.defined() && x.rank() >= 1, internal, "{}: {}: expected a matrix, got {}", where, name,
           x.defined() ? x.shape().str() : std::string("nothing"));
  int64_t rows = 1;
  for (int i = 0; i + 1 < x.rank(); ++i) rows *= x.size(i);
  return {rows, x.size(-1)};
}

void check_dtypes(const char* where, const Tensor& c, const Tensor& a, const Tensor& b) {
  const bool wide = a.dtype() == DType::bf16 && c.dtype() == DType::f32;
  SW_CHECK(is_floating(a.dtype()) && a.dtype() == b.dtype() && (c.dtype() == a.dtype() || wide),
           internal, "{}: operands {} and {} cannot give {}", where, dtype_name(a.dtype()),
           dtype_name(b.dtype()), dtype_name(c.dtype()));
}

// Address of element i.
const void* at(const Tensor& x, int64_t i) {
  return static_cast<const char*>(x.raw()) + i * element_bytes(x.dtype());
}
void* at(Tensor& x, int64_t i) {
  return static_cast<char*>(x.raw()) + i * element_bytes(x.dtype());
}

// offsets[0..E], checked.
const int32_t* checked_offsets(const char* where, const Tensor& offsets, int64_t experts,
                               int64_t rows) {
  check_tensor(where, "offsets", offsets, Shape{experts + 1}, DType::i32);
  const int32_t* o = offsets.data<int32_t>();
  for (int64_t e = 0; e <= experts; ++e) {
    const int64_t low = e == 0 ? 0 : o[e - 1];
    const int64_t high = e == 0 ? 0 : rows;
    SW_CHECK(o[e] >= low && o[e] <= high, internal,
             "{}: offsets[{}] is {}, expected {} to {} (rows are {})", where, e, o[e], low, high,
             rows);
  }
  return o;
}

}  // namespace

void matmul(const Stream&, Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
            Transpose transpose_b, Accum accum) {
  const Matrix ma = as_matrix(a, "matmul", "a");
  const Matrix mb = as_matrix(b, "matmul", "b");
  const Matrix mc = as_matrix(c, "matmul", "c");
  check_dtypes("matmul", c, a, b);
  const int64_t m = transpose_a == Transpose::yes ? ma.columns : ma.rows;
  const int64_t k = transpose_a == Transpose::yes ? ma.rows : ma.columns;
  const int64_t k_of_b = transpose_b == Transpose::yes ? mb.columns : mb.rows;
  const int64_t n = transpose_b == Transpose::yes ? mb.rows : mb.columns;
  SW_CHECK(k == k_of_b && mc.rows == m && mc.columns == n, internal,
           "matmul: a {}{} times b {}{} cannot give c {}", a.shape().str(),
           transpose_a == Transpose::yes ? " transposed" : "", b.shape().str(),
           transpose_b == Transpose::yes ? " transposed" : "", c.shape().str());
  multiply({{m, n, k, a.raw(), ma.columns, transpose_a == Transpose::yes, b.raw(), mb.columns,
             transpose_b == Transpose::yes, c.raw(), mc.columns}},
           a.dtype(), c.dtype(), accum);
}

void grouped_matmul(const Stream&, Tensor& c, const Tensor& a, const Tensor& b,
                    Transpose transpose_b, const Tensor& offsets, Accum accum) {
  const char* where = "grouped_matmul";
  SW_CHECK(b.defined() && b.rank() == 3, internal, "{}: b: expected [E, K, N]", where);
  const int64_t experts = b.size(0);
  const int64_t k = transpose_b == Transpose::yes ? b.size(2) : b.size(1);
  const int64_t n = transpose_b == Transpose::yes ? b.size(1) : b.size(2);
  const Matrix ma = as_matrix(a, where, "a");
  const Matrix mc = as_matrix(c, where, "c");
  check_dtypes(where, c, a, b);
  SW_CHECK(ma.columns == k && mc.columns == n && ma.rows == mc.rows, internal,
           "{}: a {} times b {}{} cannot give c {}", where, a.shape().str(), b.shape().str(),
           transpose_b == Transpose::yes ? " transposed" : "", c.shape().str());
  const int32_t* o = checked_offsets(where, offsets, experts, ma.rows);
  std::vector<Product> products;
  for (int64_t e = 0; e < experts; ++e) {
    products.push_back({o[e + 1] - o[e], n, k, at(a, o[e] * k), k, false, at(b, e * k * n),
                        b.size(2), transpose_b == Transpose::yes, at(c, o[e] * n), n});
  }
  multiply(products, a.dtype(), c.dtype(), accum);
}

void grouped_matmul_weight_gradient(const Stream&, Tensor& d_b, const Tensor& a, const Tensor& d_c,
                                    const Tensor& offsets, Accum accum) {
  const char* where = "grouped_matmul_weight_gradient";
  SW_CHECK(d_b.defined() && d_b.rank() == 3, internal, "{}: d_b: expected [E, K, N]", where);
  const int64_t experts = d_b.size(0), k = d_b.size(1), n = d_b.size(2);
  const Matrix ma = as_matrix(a, where, "a");
  const Matrix mc = as_matrix(d_c, where, "d_c");
  check_dtypes(where, d_b, a, d_c);
  SW_CHECK(d_b.dtype() == master_dtype(a.dtype()), internal, "{}: d_b: expected {}, got {}", where,
           dtype_name(master_dtype(a.dtype())), dtype_name(d_b.dtype()));
  SW_CHECK(ma.columns == k && mc.columns == n && ma.rows == mc.rows, internal,
           "{}: a {} and d_c {} cannot give d_b {}", where, a.shape().str(), d_c.shape().str(),
           d_b.shape().str());
  const int32_t* o = checked_offsets(where, offsets, experts, ma.rows);
  std::vector<Product> products;
  for (int64_t e = 0; e < experts; ++e) {
    products.push_back({k, n, o[e + 1] - o[e], at(a, o[e] * k), k, true, at(d_c, o[e] * n), n,
                        false, at(d_b, e * k * n), n});
  }
  multiply(products, a.dtype(), d_b.dtype(), accum);
}

}  // namespace sw::kernels::cpu
