#include "libswitch/kernels/cross_entropy.h"

#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/loss_rows.h"
#include "libswitch/kernels/cpu/vector_math.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels::cpu {
namespace {

struct RowResult {
  double loss = 0;
  double log_likelihood = 0;
  double z_loss = 0;
  bool correct = false;
};

// Of one row in one part of the vocabulary; as in cross_entropy.h.
struct RowStatistics {
  double largest = 0;
  double sum = 0;
  double plain_sum = 0;  // 0 without label smoothing
  double target = 0;
  double first_is_target = 0;
};
static_assert(sizeof(RowStatistics) == kCrossEntropyStatistics * sizeof(double));

// Fixed factors of one call.
struct Scales {
  double logit_scale = 1;
  double weight = 1;
  double z_loss = 0;
  double smoothing = 0;
  int64_t classes = 0;        // logits that take part
  int64_t local_classes = 0;  // of these, in this part
  int64_t first = 0;          // the first of them
};

// Statistics of one row of raw products x [V]; its local_classes become exp(logit - largest).
// `target` counts from the part's first class.
template <class A>
RowStatistics row_statistics(A* x, int64_t target, const Scales& scales) {
  const int64_t classes = scales.local_classes;
  const bool held = target >= 0 && target < classes;
  const A factor = static_cast<A>(scales.logit_scale);
  const A top = lane_max<A>(classes, -std::numeric_limits<A>::infinity(),
                            [=](int64_t i) { return factor * x[i]; });
  RowStatistics row;
  row.largest = static_cast<double>(top);
  if (held) {
    const A at_target = factor * x[target];
    row.target = static_cast<double>(at_target);
    bool first = at_target >= top;
    for (int64_t i = 0; first && i < target; ++i) first = factor * x[i] < top;
    row.first_is_target = first ? 1 : 0;
  }
  if (scales.smoothing != 0) {
    row.plain_sum = long_sum<A>(classes, [=](int64_t i) { return factor * x[i]; });
  }
#pragma omp simd
  for (int64_t i = 0; i < classes; ++i) x[i] = vector_exp(factor * x[i] - top);
  row.sum = long_sum<A>(classes, [x](int64_t i) { return x[i]; });
  return row;
}

// A row of the whole vocabulary.
struct RowSums {
  double largest = 0, sum = 0, plain_sum = 0, target = 0, log_z = 0;
  bool correct = false;
};

// Joins the statistics that `parts` parts have of one row, `stride` rows apart, in order of parts.
// A target that is the first largest of its part is correct if no part before reaches it and none
// behind surpasses it.
RowSums join_parts(const RowStatistics* row, int64_t parts, int64_t stride) {
  RowSums all;
  all.largest = row->largest;
  for (int64_t p = 1; p < parts; ++p) all.largest = std::max(all.largest, row[p * stride].largest);
  bool beaten = false;
  for (int64_t p = 0; p < parts; ++p) {
    const RowStatistics& part = row[p * stride];
    // exp(0) for a lone part: nothing is rounded. A part without classes has sum 0.
    all.sum += part.sum * std::exp(part.largest - all.largest);
    all.plain_sum += part.plain_sum;
    all.target += part.target;
    if (part.first_is_target != 0) all.correct = part.largest >= all.largest && !beaten;
    beaten = beaten || part.largest >= all.largest;
  }
  all.log_z = all.largest + std::log(all.sum);
  return all;
}

RowResult row_result(const RowSums& row, const Scales& scales) {
  const double uniform = scales.smoothing / static_cast<double>(scales.classes);
  RowResult result;
  result.correct = row.correct;
  result.log_likelihood = row.target - row.log_z;
  result.z_loss = scales.z_loss * row.log_z * row.log_z;
  result.loss =
      row.log_z - (1.0 - scales.smoothing) * row.target - uniform * row.plain_sum + result.z_loss;
  return result;
}

// Gradient of the loss by the raw products, in d_logits [width] (which may be x), from what
// row_statistics left in x; `largest` is what it subtracted.
template <class A, class T>
void row_gradient(T* d_logits, const A* x, int64_t width, int64_t target, const RowSums& row,
                  double largest, const Scales& scales) {
  const int64_t classes = scales.local_classes;
  const bool held = target >= 0 && target < classes;
  const double uniform = scales.smoothing / static_cast<double>(scales.classes);
  const double outer = scales.weight * scales.logit_scale;
  const double slope =
      outer * (1.0 + 2.0 * scales.z_loss * row.log_z) / row.sum * std::exp(largest - row.largest);
  const A of_exp = static_cast<A>(slope);
  const A shift = static_cast<A>(outer * uniform);
  double target_value = 0;
  if (held) {
    target_value =
        slope * static_cast<double>(x[target]) - outer * uniform - outer * (1.0 - scales.smoothing);
  }
#pragma omp simd
  for (int64_t i = 0; i < classes; ++i) store(d_logits, i, x[i] * of_exp - shift);
  if (held) store(d_logits, target, static_cast<A>(target_value));
  std::fill(d_logits + classes, d_logits + width, T{});
}

template <class T>
void run(const Stream& stream, CrossEntropySums* sums, Tensor& d_hidden, Tensor& d_table,
         Accum accum_table, Tensor& logits, const Tensor& hidden, const Tensor& table,
         const int32_t* target, const Scales& scales,
         const std::function<Tensor(const Tensor&)>& gather) {
  using A = Acc<T>;
  const int64_t rows = hidden.size(0);
  const int64_t width = table.size(0);
  const bool gradient = d_hidden.defined();
  *sums = {};

  // Rows without target cost nothing, unless their logits are asked for.
  std::vector<int64_t> list;
  for (int64_t n = 0; n < rows; ++n) {
    if (target[n] >= 0 || logits.defined()) list.push_back(n);
  }
  const auto count = static_cast<int64_t>(list.size());
  const int64_t chunk = std::min(count, cross_entropy_chunk_rows(width));
  if (gradient && count < rows) fill(stream, d_hidden, 0.0);
  if (gradient && d_table && count == 0 && accum_table == Accum::write) fill(stream, d_table, 0.0);
  if (count == 0) return;

  Tensor products = Tensor::empty({chunk, width}, dtype_of<A>());
  Tensor d_products;
  if constexpr (!std::is_same_v<A, T>) {
    if (gradient) d_products = Tensor::empty({chunk, width}, dtype_of<T>());
  } else {
    d_products = products;
  }
  std::vector<RowResult> results(static_cast<size_t>(chunk));
  Tensor shared;
  if (gather) shared = Tensor::empty({chunk, kCrossEntropyStatistics}, DType::f64);
  const auto target_of = [&](int64_t k) {
    return target[list[static_cast<size_t>(k)]] - scales.first;
  };
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(count, begin + chunk);
    const Tensor inputs = gather_rows(hidden, list, begin, end);
    Tensor x = products.slice(0, end - begin);
    matmul(stream, x, inputs, Transpose::no, table, Transpose::yes, Accum::write);
    A* x_data = x.data<A>();
    T* d_data = gradient ? d_products.data<T>() : nullptr;
    RowStatistics* statistics =
        gather ? reinterpret_cast<RowStatistics*>(shared.data<double>()) : nullptr;
    A* wanted = logits ? logits.data<A>() : nullptr;
    const auto gradient_of = [&](int64_t k, const RowSums& row, double largest) {
      if (d_data == nullptr) return;
      row_gradient(d_data + k * width, x_data + k * width, width, target_of(begin + k), row,
                   largest, scales);
    };
    parallel_for(end - begin, 1, [&](int64_t k, int64_t) {
      const int64_t n = list[static_cast<size_t>(begin + k)];
      A* row = x_data + k * width;
      if (wanted != nullptr) {
        const A factor = static_cast<A>(scales.logit_scale);
        for (int64_t i = 0; i < width; ++i) wanted[n * width + i] = factor * row[i];
      }
      RowStatistics mine;
      if (target[n] < 0) {
        if (d_data != nullptr) std::fill_n(d_data + k * width, width, T{});
      } else {
        mine = row_statistics(row, target_of(begin + k), scales);
      }
      if (statistics != nullptr) {
        statistics[k] = mine;
      } else if (target[n] >= 0) {
        // The table is whole: the row is still in the cache.
        const RowSums all = join_parts(&mine, 1, 1);
        results[static_cast<size_t>(k)] = row_result(all, scales);
        gradient_of(k, all, mine.largest);
      }
    });
    if (statistics != nullptr) {
      const Tensor gathered = gather(shared.slice(0, end - begin));
      SW_CHECK(gathered.rank() == 3 && gathered.size(1) == end - begin &&
                   gathered.size(2) == kCrossEntropyStatistics,
               internal, "cross_entropy: gathered statistics {}", gathered.shape().str());
      const auto* parts = reinterpret_cast<const RowStatistics*>(gathered.data<double>());
      parallel_for(end - begin, 1, [&](int64_t k, int64_t) {
        if (target[list[static_cast<size_t>(begin + k)]] < 0) return;
        const RowSums all = join_parts(parts + k, gathered.size(0), end - begin);
        results[static_cast<size_t>(k)] = row_result(all, scales);
        gradient_of(k, all, statistics[k].largest);
      });
    }
    for (int64_t k = 0; k < end - begin; ++k) {
      if (target[list[static_cast<size_t>(begin + k)]] < 0) continue;
      const RowResult& result = results[static_cast<size_t>(k)];
      sums->loss += result.loss;
      sums->log_likelihood += result.log_likelihood;
      sums->z_loss += result.z_loss;
      sums->targets += 1;
      sums->correct += result.correct ? 1 : 0;
    }
    if (!gradient) continue;
    add_products(stream, d_hidden, d_table, begin == 0 ? accum_table : Accum::add, list, begin, end,
                 d_products.slice(0, end - begin), inputs, table);
  }
  sums->loss *= scales.weight;
  sums->z_loss *= scales.weight;
}

}  // namespace

void cross_entropy(const Stream& stream, CrossEntropySums* sums, Tensor& d_hidden, Tensor& d_table,
                   Accum accum_table, Tensor& logits, const Tensor& hidden, const Tensor& table,
                   const Tensor& targets, const CrossEntropyParams& params) {
  constexpr const char* kWhere = "cross_entropy";
  SW_CHECK(hidden.defined() && hidden.rank() == 2 && table.defined() && table.rank() == 2 &&
               hidden.size(1) == table.size(1) && hidden.dtype() == table.dtype(),
           internal, "{}: hidden [N, D] and table [V, D] of one dtype expected", kWhere);
  const int64_t rows = hidden.size(0);
  const DType master = master_dtype(hidden.dtype());
  check_tensor(kWhere, "targets", targets, {rows}, DType::i32);
  if (d_hidden) check_tensor(kWhere, "d_hidden", d_hidden, hidden.shape(), hidden.dtype());
  if (d_table) check_tensor(kWhere, "d_table", d_table, table.shape(), master);
  if (logits) check_tensor(kWhere, "logits", logits, {rows, table.size(0)}, master);
  SW_CHECK(!d_table || d_hidden, internal, "{}: d_table is given without d_hidden", kWhere);
  const int64_t first = params.part.first, held = table.size(0);
  const int64_t total = params.part.total == 0 ? held : params.part.total;
  const int64_t classes = params.vocab_size == 0 ? total : params.vocab_size;
  SW_CHECK(classes > 0 && classes <= total, usage,
           "{}: vocabulary of {} does not fit a table of {} rows", kWhere, classes, total);
  SW_CHECK(first >= 0 && first + held <= total && (held == total || params.gather_statistics),
           internal, "{}: rows {} to {} of {}", kWhere, first, first + held, total);
  const int32_t* target = targets.data<int32_t>();
  for (int64_t n = 0; n < rows; ++n) {
    SW_CHECK(target[n] >= -1 && target[n] < classes, usage,
             "{}: target {} at position {} is outside the vocabulary of {}", kWhere, target[n], n,
             classes);
  }
  const Scales scales{params.logit_scale,
                      params.weight,
                      params.z_loss,
                      params.label_smoothing,
                      classes,
                      std::clamp<int64_t>(classes - first, 0, held),
                      first};
  with_element(kWhere, hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    run<T>(stream, sums, d_hidden, d_table, accum_table, logits, hidden, table, target, scales,
           params.gather_statistics);
  });
}

}  // namespace sw::kernels::cpu
