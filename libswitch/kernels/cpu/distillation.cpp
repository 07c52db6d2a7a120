#include "libswitch/kernels/distillation.h"

#include <cmath>
#include <limits>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/loss_rows.h"
#include "libswitch/kernels/cpu/vector_math.h"
#include "libswitch/kernels/elementwise.h"
#include "libswitch/kernels/matmul.h"

namespace sw::kernels::cpu {
namespace {

// A logit that no class has: its exponential is 0 beside any other.
constexpr double kNoLogit = -1e30;

// Of one row in one part of the vocabulary, x: the student's logits, y: the teacher's, t the
// temperature.
struct RowStatistics {
  double largest = 0;          // x
  double sum = 0;              // Σ exp(x - largest)
  double plain_sum = 0;        // Σ x; 0 without label smoothing
  double target = 0;           // x of the target, 0 where another part holds it
  double first_is_target = 0;  // 1 if the target is the first of the largest
  double soft_sum = 0;         // Σ exp((x - largest) / t)
  double teacher_largest = 0;  // y
  double teacher_sum = 0;      // Σ exp((y - teacher_largest) / t)
  double teacher_dot = 0;      // Σ exp((y - teacher_largest) / t) · x / t
  double teacher_target = 0;   // y of the target / t, 0 where another part holds it
};
static_assert(sizeof(RowStatistics) == kDistillationStatistics * sizeof(double));

// Fixed factors of one call.
struct Scales {
  double logit_scale = 1, teacher_scale = 1;
  double weight = 1, z_loss = 0, smoothing = 0;
  double soft_weight = 0, temperature = 1;
  int64_t classes = 0, local_classes = 0, first = 0;  // as in cross_entropy
};

// Of the rows x and y of raw products; x becomes the student's logits, y the teacher's
// exponentials. `target` counts from the part's first class.
template <class A>
RowStatistics row_statistics(A* x, A* y, int64_t target, const Scales& scales) {
  const int64_t n = scales.local_classes;
  const bool held = target >= 0 && target < n;
  const A factor = static_cast<A>(scales.logit_scale);
  const A teacher = static_cast<A>(scales.teacher_scale);
  const A cold = static_cast<A>(1 / scales.temperature);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] *= factor;
    y[i] *= teacher;
  }
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  const A top = lane_max<A>(n, kLowest, [x](int64_t i) { return x[i]; });
  const A teacher_top = lane_max<A>(n, kLowest, [y](int64_t i) { return y[i]; });
  RowStatistics row;
  row.largest = static_cast<double>(top);
  row.teacher_largest = static_cast<double>(teacher_top);
  if (held) {
    row.target = static_cast<double>(x[target]);
    row.teacher_target = static_cast<double>(y[target]) / scales.temperature;
    bool first = x[target] >= top;
    for (int64_t i = 0; first && i < target; ++i) first = x[i] < top;
    row.first_is_target = first ? 1 : 0;
  }
  if (scales.smoothing != 0) row.plain_sum = long_sum<A>(n, [x](int64_t i) { return x[i]; });
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = vector_exp((y[i] - teacher_top) * cold);
  row.sum = long_sum<A>(n, [=](int64_t i) { return vector_exp(x[i] - top); });
  row.soft_sum = scales.temperature == 1
                     ? row.sum
                     : long_sum<A>(n, [=](int64_t i) { return vector_exp((x[i] - top) * cold); });
  row.teacher_sum = long_sum<A>(n, [y](int64_t i) { return y[i]; });
  row.teacher_dot = long_sum<A>(n, [=](int64_t i) { return y[i] * (x[i] * cold); });
  return row;
}

// A row of the whole vocabulary.
struct RowSums {
  RowStatistics all;
  double log_z = 0, soft_log_z = 0;
  bool correct = false;
};

// Joins the statistics that `parts` parts have of one row, `stride` rows apart, in order of parts.
RowSums join_parts(const RowStatistics* row, int64_t parts, int64_t stride, double temperature) {
  RowSums out;
  RowStatistics& all = out.all;
  all.largest = row->largest;
  all.teacher_largest = row->teacher_largest;
  for (int64_t p = 1; p < parts; ++p) {
    all.largest = std::max(all.largest, row[p * stride].largest);
    all.teacher_largest = std::max(all.teacher_largest, row[p * stride].teacher_largest);
  }
  bool beaten = false;
  for (int64_t p = 0; p < parts; ++p) {
    const RowStatistics& part = row[p * stride];
    // exp(0) for a lone part: nothing is rounded. A part without classes has sums of 0.
    const double teacher = std::exp((part.teacher_largest - all.teacher_largest) / temperature);
    all.sum += part.sum * std::exp(part.largest - all.largest);
    all.soft_sum += part.soft_sum * std::exp((part.largest - all.largest) / temperature);
    all.teacher_sum += part.teacher_sum * teacher;
    all.teacher_dot += part.teacher_dot * teacher;
    all.plain_sum += part.plain_sum;
    all.target += part.target;
    all.teacher_target += part.teacher_target;
    if (part.first_is_target != 0) out.correct = part.largest >= all.largest && !beaten;
    beaten = beaten || part.largest >= all.largest;
  }
  out.log_z = all.largest + std::log(all.sum);
  out.soft_log_z = all.largest / temperature + std::log(all.soft_sum);
  return out;
}

struct RowResult {
  double loss = 0, log_likelihood = 0, z_loss = 0, soft = 0, teacher_log_likelihood = 0;
  bool correct = false;
};

RowResult row_result(const RowSums& row, const Scales& s) {
  const RowStatistics& all = row.all;
  const double uniform = s.smoothing / static_cast<double>(s.classes);
  RowResult out;
  out.correct = row.correct;
  out.log_likelihood = all.target - row.log_z;
  out.z_loss = (1 - s.soft_weight) * s.z_loss * row.log_z * row.log_z;
  out.soft = row.soft_log_z - all.teacher_dot / all.teacher_sum;
  out.teacher_log_likelihood =
      all.teacher_target - all.teacher_largest / s.temperature - std::log(all.teacher_sum);
  const double hard = row.log_z - (1 - s.smoothing) * all.target - uniform * all.plain_sum;
  const double soft = out.soft + s.z_loss * row.soft_log_z * row.soft_log_z;
  out.loss = (1 - s.soft_weight) * hard + out.z_loss +
             s.soft_weight * s.temperature * s.temperature * soft;
  return out;
}

// Gradient of the loss by the raw products, in d_logits [width] (which may be x), from what
// row_statistics left in x and y; `teacher_largest` is what it subtracted there.
template <class A, class T>
void row_gradient(T* d_logits, const A* x, const A* y, int64_t width, int64_t target,
                  const RowSums& row, double teacher_largest, const Scales& s) {
  const int64_t n = s.local_classes;
  const bool held = target >= 0 && target < n;
  const double t = s.temperature;
  const double outer = s.weight * s.logit_scale;
  const double of_hard = outer * (1 - s.soft_weight);
  const double of_soft = outer * s.soft_weight * t;  // t² of the loss, 1/t of the logit
  const double hard_slope = of_hard * (1 + 2 * s.z_loss * row.log_z) / row.all.sum;
  const double soft_slope = of_soft * (1 + 2 * s.z_loss * row.soft_log_z) / row.all.soft_sum;
  const A teacher = static_cast<A>(of_soft / row.all.teacher_sum *
                                   std::exp((teacher_largest - row.all.teacher_largest) / t));
  const A shift = static_cast<A>(of_hard * s.smoothing / static_cast<double>(s.classes));
  const A top = static_cast<A>(row.all.largest), cold = static_cast<A>(1 / t);
  const A hard = static_cast<A>(hard_slope), soft = static_cast<A>(soft_slope);
  double target_value = 0;
  if (held) {
    const double over = static_cast<double>(x[target]) - row.all.largest;
    target_value = hard_slope * std::exp(over) + soft_slope * std::exp(over / t) -
                   static_cast<double>(teacher * y[target]) - static_cast<double>(shift) -
                   of_hard * (1 - s.smoothing);
  }
  if (t == 1) {
    const A both = static_cast<A>(hard_slope + soft_slope);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      store(d_logits, i, vector_exp(x[i] - top) * both - teacher * y[i] - shift);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const A over = x[i] - top;
      store(d_logits, i,
            vector_exp(over) * hard + vector_exp(over * cold) * soft - teacher * y[i] - shift);
    }
  }
  if (held) store(d_logits, target, static_cast<A>(target_value));
  std::fill(d_logits + n, d_logits + width, T{});
}

// The teacher's raw products of the rows [begin, end) of `list`, in y [rows, width].
template <class A>
void teacher_products(const Stream& stream, Tensor& y, const TeacherLogits& teacher,
                      const std::vector<int64_t>& list, int64_t begin, int64_t end, int64_t first) {
  if (teacher.hidden) {
    const Tensor inputs = gather_rows(teacher.hidden, list, begin, end);
    matmul(stream, y, inputs, Transpose::no, teacher.table, Transpose::yes, Accum::write);
    return;
  }
  const int64_t width = y.size(1), k = teacher.ids.size(1);
  A* out = y.data<A>();
  parallel_for(end - begin, 1, [&](int64_t row, int64_t) {
    A* at = out + row * width;
    std::fill_n(at, width, static_cast<A>(kNoLogit));
    const int64_t n = list[static_cast<size_t>(begin + row)];
    const int32_t* ids = teacher.ids.data<int32_t>() + n * k;
    const float* logits = teacher.logits.data<float>() + n * k;
    for (int64_t i = 0; i < k; ++i) {
      const int64_t id = ids[i] - first;
      if (ids[i] >= 0 && id >= 0 && id < width) at[id] = static_cast<A>(logits[i]);
    }
  });
}

template <class T>
void run(const Stream& stream, DistillationSums* sums, Tensor& d_hidden, Tensor& d_table,
         Accum accum_table, const Tensor& hidden, const Tensor& table, const TeacherLogits& teacher,
         const int32_t* target, const Scales& scales,
         const std::function<Tensor(const Tensor&)>& gather) {
  using A = Acc<T>;
  const int64_t rows = hidden.size(0), width = table.size(0);
  const bool gradient = d_hidden.defined();
  *sums = {};
  std::vector<int64_t> list;  // rows without target cost nothing
  for (int64_t n = 0; n < rows; ++n) {
    if (target[n] >= 0) list.push_back(n);
  }
  const auto count = static_cast<int64_t>(list.size());
  const int64_t chunk = std::min(count, cross_entropy_chunk_rows(width));
  if (gradient && count < rows) fill(stream, d_hidden, 0.0);
  if (gradient && d_table && count == 0 && accum_table == Accum::write) fill(stream, d_table, 0.0);
  if (count == 0) return;

  Tensor products = Tensor::empty({chunk, width}, dtype_of<A>());
  Tensor teachers = Tensor::empty({chunk, width}, dtype_of<A>());
  Tensor d_products = products;
  if constexpr (!std::is_same_v<A, T>) {
    if (gradient) d_products = Tensor::empty({chunk, width}, dtype_of<T>());
  }
  std::vector<RowResult> results(static_cast<size_t>(chunk));
  Tensor shared = Tensor::empty({chunk, kDistillationStatistics}, DType::f64);
  auto* statistics = reinterpret_cast<RowStatistics*>(shared.data<double>());
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(count, begin + chunk);
    const Tensor inputs = gather_rows(hidden, list, begin, end);
    Tensor x = products.slice(0, end - begin), y = teachers.slice(0, end - begin);
    matmul(stream, x, inputs, Transpose::no, table, Transpose::yes, Accum::write);
    teacher_products<A>(stream, y, teacher, list, begin, end, scales.first);
    A* x_data = x.data<A>();
    A* y_data = y.data<A>();
    T* d_data = gradient ? d_products.data<T>() : nullptr;
    const auto target_of = [&](int64_t k) {
      return target[list[static_cast<size_t>(begin + k)]] - scales.first;
    };
    const auto finish = [&](int64_t k, const RowSums& row) {
      results[static_cast<size_t>(k)] = row_result(row, scales);
      if (d_data == nullptr) return;
      row_gradient(d_data + k * width, x_data + k * width, y_data + k * width, width, target_of(k),
                   row, statistics[k].teacher_largest, scales);
    };
    parallel_for(end - begin, 1, [&](int64_t k, int64_t) {
      statistics[k] = row_statistics(x_data + k * width, y_data + k * width, target_of(k), scales);
      // The table is whole: the row is still in the cache.
      if (!gather) finish(k, join_parts(statistics + k, 1, 1, scales.temperature));
    });
    if (gather) {
      const Tensor gathered = gather(shared.slice(0, end - begin));
      SW_CHECK(gathered.rank() == 3 && gathered.size(1) == end - begin &&
                   gathered.size(2) == kDistillationStatistics,
               internal, "distillation: gathered statistics {}", gathered.shape().str());
      const auto* parts = reinterpret_cast<const RowStatistics*>(gathered.data<double>());
      parallel_for(end - begin, 1, [&](int64_t k, int64_t) {
        finish(k, join_parts(parts + k, gathered.size(0), end - begin, scales.temperature));
      });
    }
    for (int64_t k = 0; k < end - begin; ++k) {
      const RowResult& result = results[static_cast<size_t>(k)];
      sums->student.loss += result.loss;
      sums->student.log_likelihood += result.log_likelihood;
      sums->student.z_loss += result.z_loss;
      sums->student.targets += 1;
      sums->student.correct += result.correct ? 1 : 0;
      sums->soft_cross_entropy += result.soft;
      sums->teacher_log_likelihood += result.teacher_log_likelihood;
    }
    if (!gradient) continue;
    add_products(stream, d_hidden, d_table, begin == 0 ? accum_table : Accum::add, list, begin, end,
                 d_products.slice(0, end - begin), inputs, table);
  }
  sums->student.loss *= scales.weight;
  sums->student.z_loss *= scales.weight;
}

void check_teacher(const char* where, const TeacherLogits& teacher, int64_t rows, int64_t width) {
  if (!teacher.hidden) {
    SW_CHECK(teacher.ids.defined() && teacher.ids.rank() == 2 && teacher.ids.size(0) == rows,
             internal, "{}: a teacher's hidden states or largest logits expected", where);
    check_tensor(where, "teacher logits", teacher.logits, teacher.ids.shape(), DType::f32);
    return;
  }
  SW_CHECK(teacher.hidden.rank() == 2 && teacher.hidden.size(0) == rows &&
               teacher.table.defined() && teacher.table.rank() == 2 &&
               teacher.table.size(0) == width && teacher.table.size(1) == teacher.hidden.size(1) &&
               teacher.table.dtype() == teacher.hidden.dtype(),
           internal, "{}: teacher's hidden [N, D] and table [V, D] of one dtype expected", where);
}

}  // namespace

void distillation(const Stream& stream, DistillationSums* sums, Tensor& d_hidden, Tensor& d_table,
                  Accum accum_table, const Tensor& hidden, const Tensor& table,
                  const TeacherLogits& teacher, const Tensor& targets,
                  const DistillationParams& params) {
  constexpr const char* kWhere = "distillation";
  SW_CHECK(hidden.defined() && hidden.rank() == 2 && table.defined() && table.rank() == 2 &&
               hidden.size(1) == table.size(1) && hidden.dtype() == table.dtype(),
           internal, "{}: hidden [N, D] and table [V, D] of one dtype expected", kWhere);
  const int64_t rows = hidden.size(0);
  check_tensor(kWhere, "targets", targets, {rows}, DType::i32);
  if (d_hidden) check_tensor(kWhere, "d_hidden", d_hidden, hidden.shape(), hidden.dtype());
  if (d_table) {
    check_tensor(kWhere, "d_table", d_table, table.shape(), master_dtype(hidden.dtype()));
  }
  SW_CHECK(!d_table || d_hidden, internal, "{}: d_table is given without d_hidden", kWhere);
  check_teacher(kWhere, teacher, rows, table.size(0));
  SW_CHECK(params.temperature > 0 && params.soft_weight >= 0 && params.soft_weight <= 1, usage,
           "{}: temperature {} and soft weight {}, expected above 0 and between 0 and 1", kWhere,
           params.temperature, params.soft_weight);
  const CrossEntropyParams& hard = params.hard;
  const int64_t first = hard.part.first, held = table.size(0);
  const int64_t total = hard.part.total == 0 ? held : hard.part.total;
  const int64_t classes = hard.vocab_size == 0 ? total : hard.vocab_size;
  SW_CHECK(classes > 0 && classes <= total, usage,
           "{}: vocabulary of {} does not fit a table of {} rows", kWhere, classes, total);
  SW_CHECK(first >= 0 && first + held <= total && (held == total || hard.gather_statistics),
           internal, "{}: rows {} to {} of {}", kWhere, first, first + held, total);
  const int32_t* target = targets.data<int32_t>();
  for (int64_t n = 0; n < rows; ++n) {
    SW_CHECK(target[n] >= -1 && target[n] < classes, usage,
             "{}: target {} at position {} is outside the vocabulary of {}", kWhere, target[n], n,
             classes);
  }
  Scales scales;
  scales.logit_scale = hard.logit_scale;
  scales.teacher_scale = teacher.hidden ? teacher.logit_scale : 1.0;
  scales.weight = hard.weight;
  scales.z_loss = hard.z_loss;
  scales.smoothing = hard.label_smoothing;
  scales.soft_weight = params.soft_weight;
  scales.temperature = params.temperature;
  scales.classes = classes;
  scales.local_classes = std::clamp<int64_t>(classes - first, 0, held);
  scales.first = first;
  with_element(kWhere, hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    run<T>(stream, sums, d_hidden, d_table, accum_table, hidden, table, teacher, target, scales,
           hard.gather_statistics);
  });
}

}  // namespace sw::kernels::cpu
