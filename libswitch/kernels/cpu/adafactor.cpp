#include <cmath>
#include <numeric>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/adafactor_rows.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kRowBlock = 64;                     // rows of one task
constexpr int64_t kColumnBlock = 512;                 // columns of one task of the moments
constexpr int64_t kGroupElements = int64_t{1} << 20;  // matrices worked on together stay in cache
constexpr int64_t kPastCaches = int64_t{1} << 17;     // elements of a copy not worth their place

int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

void check_size(const char* name, const Tensor& x, int64_t elements, DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "adafactor: {}: expected {} elements of {}, got {} {}", name, elements,
           dtype_name(dtype), x.defined() ? x.shape().str() : std::string("nothing"),
           x.defined() ? dtype_name(x.dtype()) : "");
}

// A block of rows of one matrix of the batch.
struct RowBlock {
  int64_t entry, begin, end;
  // By its number, blocks of a matrix one after the other.
  RowBlock(int64_t task, const AdafactorPart& part) {
    const int64_t blocks = blocks_of(part.rows, kRowBlock);
    entry = task / blocks;
    begin = task % blocks * kRowBlock;
    end = std::min(part.rows, begin + kRowBlock);
  }
  static int64_t count(const AdafactorPart& part) {
    return part.batch * blocks_of(part.rows, kRowBlock);
  }
};

template <class A>
void sum_squares(double* row_sums, double* column_sums, const A* gradient,
                 const AdafactorPart& part) {
  const int64_t columns = part.columns, blocks = blocks_of(part.rows, kRowBlock);
  // By block, unless there is one only.
  Tensor by_block;
  double* block_sums = column_sums;
  if (blocks > 1) {
    by_block = Tensor::empty({part.batch * blocks, columns}, DType::f64);
    block_sums = by_block.data<double>();
  }
  parallel_for(RowBlock::count(part), 1, [&](int64_t task, int64_t) {
    const RowBlock block(task, part);
    const int64_t first = block.entry * part.rows + block.begin;
    const A* g = gradient + first * columns;
    std::vector<A> column(static_cast<size_t>(columns), A{0});
    sum_rows(g, block.end - block.begin, columns, row_sums + first, column.data());
    double* to = block_sums + task * columns;
    const A* c = column.data();
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) to[j] = static_cast<double>(c[j]);
  });
  if (blocks == 1) return;
  const int64_t pieces = blocks_of(columns, kColumnBlock);
  parallel_for(part.batch * pieces, 1, [&](int64_t task, int64_t) {
    const int64_t entry = task / pieces, begin = task % pieces * kColumnBlock;
    const int64_t n = std::min(columns - begin, kColumnBlock);
    double total[kColumnBlock] = {};
    for (int64_t k = 0; k < blocks; ++k) {
      const double* from = block_sums + (entry * blocks + k) * columns + begin;
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) total[j] += from[j];
    }
    std::copy_n(total, n, column_sums + entry * columns + begin);
  });
}

// The running mean after one more sum of `n` squares of unscaled gradients.
template <class A>
A next_moment(A before, double sum, int64_t n, const AdafactorParams& params) {
  const double scale = params.gradient_scale * params.gradient_scale;
  const double mean = scale * sum / static_cast<double>(n) + params.epsilon1;
  return static_cast<A>(params.beta2 * static_cast<double>(before) + (1.0 - params.beta2) * mean);
}

// Sums of squares of an update and of a weight.
struct Squares {
  double update = 0;
  double weight = 0;
  Squares& operator+=(const Squares& other) {
    update += other.update;
    weight += other.weight;
    return *this;
  }
};

// What every step multiplies its update by, from the sums of squares over `count` elements:
// learning rate, relative step and clipping.
double step_size(const Squares& squares, int64_t count, const AdafactorParams& params) {
  const double update_rms = std::sqrt(squares.update / static_cast<double>(count));
  const double weight_rms = std::sqrt(squares.weight / static_cast<double>(count));
  double size = params.learning_rate;
  if (params.multiply_by_rms) size *= std::max(weight_rms, params.epsilon2);
  // Written so that a NaN update stays visible in the weights.
  const double excess = update_rms / params.clip_threshold;
  return excess <= 1.0 ? size : size / excess;
}

Squares sum_of(const Tensor& squares) {
  const double* s = squares.data<double>();
  Squares all;
  for (int64_t i = 0; i < squares.elements() / 2; ++i) all += {s[2 * i], s[2 * i + 1]};
  return all;
}

// Tensors of a step of matrices [first, end) of a batch.
struct Group {
  AdafactorPart part;
  Tensor weight, value, gradient, row_moment, column_moment, weight_squares;
  Tensor row_sums, column_sums, row_totals, row_factor, column_factor, squares, step_sizes;
};

// Three readings of the gradient: its moments, the size of the update, the update. Every reading
// starts where the one before ended, so that it finds in cache what fits there. Small matrices are
// taken one to a thread, larger ones in groups by all threads.
void factored_step(Tensor& weight, Tensor& value, Tensor& row_moment, Tensor& column_moment,
                   Tensor& weight_squares, bool squares_known, const Tensor& gradient,
                   int64_t batch, int64_t rows, int64_t columns, bool one_rms,
                   const AdafactorParams& params, double* update_rms) {
  const Stream stream;
  const int64_t count = rows * columns;
  Tensor row_sums = Tensor::empty({batch, rows}, DType::f64);
  Tensor column_sums = Tensor::empty({batch, columns}, DType::f64);
  Tensor row_totals = Tensor::empty({batch}, DType::f64);
  Tensor row_factor = Tensor::empty({batch, rows}, weight.dtype());
  Tensor column_factor = Tensor::empty({batch, columns}, weight.dtype());
  Tensor squares = Tensor::empty({batch, 2}, DType::f64);
  Tensor step_sizes = Tensor::empty({batch}, DType::f64);
  const auto group_of = [&](int64_t first, int64_t end) {
    const auto matrices = [&](const Tensor& x) {
      return x ? x.view({batch, x.elements() / batch}).slice(first, end) : x;
    };
    return Group{{end - first, rows, columns, rows, columns},
                 matrices(weight),
                 matrices(value),
                 matrices(gradient),
                 matrices(row_moment),
                 matrices(column_moment),
                 matrices(weight_squares),
                 row_sums.slice(first, end),
                 column_sums.slice(first, end),
                 row_totals.slice(first, end),
                 row_factor.slice(first, end),
                 column_factor.slice(first, end),
                 squares.slice(first, end),
                 step_sizes.slice(first, end)};
  };
  const auto update = [&](Group& g) {
    adafactor_update(stream, g.weight, g.value, g.weight_squares, g.gradient, g.row_factor,
                     g.column_factor, g.step_sizes, g.part);
  };
  const auto begin_step = [&](int64_t first, int64_t end) {
    Group g = group_of(first, end);
    adafactor_sums(stream, g.row_sums, g.column_sums, g.gradient, g.part);
    adafactor_moments(stream, g.row_moment, g.column_moment, g.row_totals, g.column_factor,
                      g.row_sums, g.column_sums, g.part, params);
    adafactor_squares(stream, g.squares, g.row_factor, g.weight, g.gradient, g.row_moment,
                      g.row_totals, g.column_factor, squares_known ? g.weight_squares : Tensor(),
                      g.part, params);
    if (one_rms) return;
    adafactor_step_sizes(stream, g.step_sizes, g.squares, count, false, params);
    update(g);
  };
  const bool one_to_a_thread = count <= kGroupElements && batch >= 2 * num_threads();
  const int64_t group = one_to_a_thread ? 1 : std::clamp<int64_t>(kGroupElements / count, 1, batch);
  const int64_t groups = blocks_of(batch, group);
  // Calls fn(first, end) for all groups: inside a task of this loop, kernels run in one thread.
  const auto each_group = [&](bool backwards, const auto& fn) {
    const auto one = [&](int64_t i) {
      const int64_t first = (backwards ? groups - 1 - i : i) * group;
      fn(first, std::min(batch, first + group));
    };
    if (one_to_a_thread) return parallel_for(groups, 1, [&](int64_t i, int64_t) { one(i); });
    for (int64_t i = 0; i < groups; ++i) one(i);
  };
  each_group(false, begin_step);
  if (one_rms) {
    adafactor_step_sizes(stream, step_sizes, squares, count, true, params);
    each_group(true, [&](int64_t first, int64_t end) {
      Group g = group_of(first, end);
      update(g);
    });
  }
  if (update_rms != nullptr) {
    *update_rms = std::sqrt(sum_of(squares).update / static_cast<double>(batch * count));
  }
}

void unfactored_step(Tensor& weight, Tensor& value, Tensor& moment, const Tensor& gradient,
                     int64_t batch, int64_t count, bool one_rms, const AdafactorParams& params,
                     double* update_rms) {
  const Stream stream;
  Tensor squares = Tensor::empty({batch, 2}, DType::f64);
  Tensor step_sizes = Tensor::empty({batch}, DType::f64);
  adafactor_unfactored_squares(stream, squares, moment, weight, gradient, batch, count, params);
  adafactor_step_sizes(stream, step_sizes, squares, count, one_rms, params);
  adafactor_unfactored_update(stream, weight, value, gradient, moment, step_sizes, batch, count,
                              params);
  if (update_rms != nullptr) {
    *update_rms = std::sqrt(sum_of(squares).update / static_cast<double>(batch * count));
  }
}

}  // namespace

void adafactor_sums(const Stream&, Tensor& row_sums, Tensor& column_sums, const Tensor& gradient,
                    const AdafactorPart& part) {
  check_size("row_sums", row_sums, part.batch * part.rows, DType::f64);
  check_size("column_sums", column_sums, part.batch * part.columns, DType::f64);
  check_size("gradient", gradient, part.batch * part.rows * part.columns, gradient.dtype());
  with_master("adafactor_sums", gradient.dtype(), [&]<class A>(std::type_identity<A>) {
    sum_squares(row_sums.data<double>(), column_sums.data<double>(), gradient.data<A>(), part);
  });
}

void adafactor_moments(const Stream&, Tensor& row_moment, Tensor& column_moment, Tensor& row_totals,
                       Tensor& column_factor, const Tensor& row_sums, const Tensor& column_sums,
                       const AdafactorPart& part, const AdafactorParams& params) {
  const DType dtype = row_moment.dtype();
  const int64_t rows = part.rows, columns = part.columns;
  check_size("row_moment", row_moment, part.batch * rows, dtype);
  check_size("column_moment", column_moment, part.batch * columns, dtype);
  check_size("column_factor", column_factor, part.batch * columns, dtype);
  check_size("row_totals", row_totals, part.batch, DType::f64);
  const double* of_rows = row_sums.data<double>();
  const double* of_columns = column_sums.data<double>();
  with_master("adafactor_moments", dtype, [&]<class A>(std::type_identity<A>) {
    const int64_t pieces = 1 + blocks_of(columns, kColumnBlock);
    parallel_for(part.batch * pieces, 1, [&](int64_t task, int64_t) {
      const int64_t entry = task / pieces;
      if (task % pieces == 0) {
        A* r = row_moment.data<A>() + entry * rows;
        double total = 0;
        for (int64_t i = 0; i < rows; ++i) {
          r[i] = next_moment(r[i], of_rows[entry * rows + i], part.whole_columns, params);
          total += static_cast<double>(r[i]);
        }
        row_totals.data<double>()[entry] = total;
        return;
      }
      const int64_t first = (task % pieces - 1) * kColumnBlock;
      const int64_t begin = entry * columns + first;
      const int64_t end = begin + std::min(kColumnBlock, columns - first);
      A* c = column_moment.data<A>();
      A* factor = column_factor.data<A>();
      for (int64_t j = begin; j < end; ++j) {
        c[j] = next_moment(c[j], of_columns[j], part.whole_rows, params);
        factor[j] = static_cast<A>(1.0 / std::sqrt(static_cast<double>(c[j])));
      }
    });
  });
}

void adafactor_squares(const Stream&, Tensor& squares, Tensor& row_factor, const Tensor& weight,
                       const Tensor& gradient, const Tensor& row_moment, const Tensor& row_totals,
                       const Tensor& column_factor, const Tensor& weight_squares,
                       const AdafactorPart& part, const AdafactorParams& params) {
  const DType dtype = weight.dtype();
  const int64_t columns = part.columns;
  check_size("squares", squares, 2 * part.batch, DType::f64);
  if (weight_squares) check_size("weight_squares", weight_squares, part.batch, DType::f64);
  const bool of_weight = params.multiply_by_rms && !weight_squares;
  check_size("row_factor", row_factor, part.batch * part.rows, dtype);
  check_size("weight", weight, part.batch * part.rows * columns, dtype);
  check_size("gradient", gradient, part.batch * part.rows * columns, dtype);
  const int64_t tasks = RowBlock::count(part);
  std::vector<Squares> by_block(static_cast<size_t>(tasks));
  with_master("adafactor_squares", dtype, [&]<class A>(std::type_identity<A>) {
    parallel_for(tasks, 1, [&](int64_t turn, int64_t) {
      const int64_t task = tasks - 1 - turn;  // the last rows summed are in cache
      const RowBlock block(task, part);
      const A* column = column_factor.data<A>() + block.entry * columns;
      const double mean =
          row_totals.data<double>()[block.entry] / static_cast<double>(part.whole_rows);
      Squares sum;
      for (int64_t i = block.begin; i < block.end; ++i) {
        const int64_t row = block.entry * part.rows + i;
        const A* g = gradient.data<A>() + row * columns;
        const A* w = of_weight ? weight.data<A>() + row * columns : nullptr;
        const auto moment = static_cast<double>(row_moment.data<A>()[row]);
        A& rounded = row_factor.data<A>()[row];
        rounded = static_cast<A>(params.gradient_scale / std::sqrt(moment / mean));
        const auto factor = static_cast<double>(rounded);
        const RowSquares<A> of_row = row_squares(g, column, w, columns);
        sum.update += factor * factor * static_cast<double>(of_row.update);
        sum.weight += static_cast<double>(of_row.weight);
      }
      by_block[static_cast<size_t>(task)] = sum;
    });
  });
  const int64_t blocks = blocks_of(part.rows, kRowBlock);
  double* out = squares.data<double>();
  for (int64_t entry = 0; entry < part.batch; ++entry) {
    Squares sum;
    for (int64_t k = 0; k < blocks; ++k) sum += by_block[static_cast<size_t>(entry * blocks + k)];
    out[2 * entry] = sum.update;
    out[2 * entry + 1] = weight_squares ? weight_squares.data<double>()[entry] : sum.weight;
  }
}

void adafactor_update(const Stream&, Tensor& weight, Tensor& value, Tensor& weight_squares,
                      const Tensor& gradient, const Tensor& row_factor, const Tensor& column_factor,
                      const Tensor& step_sizes, const AdafactorPart& part) {
  const DType dtype = weight.dtype();
  const int64_t columns = part.columns;
  check_size("weight", weight, part.batch * part.rows * columns, dtype);
  check_size("gradient", gradient, weight.elements(), dtype);
  check_size("step_sizes", step_sizes, part.batch, DType::f64);
  if (value) check_size("value", value, weight.elements(), value.dtype());
  if (weight_squares) check_size("weight_squares", weight_squares, part.batch, DType::f64);
  const int64_t tasks = RowBlock::count(part);
  std::vector<double> by_block(static_cast<size_t>(tasks));
  const bool past_caches = weight.elements() >= kPastCaches && columns % 32 == 0;
  with_master("adafactor_update", dtype, [&]<class A>(std::type_identity<A>) {
    with_value("adafactor_update", value, [&](auto* copy) {
      parallel_for(tasks, 1, [&](int64_t task, int64_t) {
        const RowBlock block(task, part);
        const A* column = column_factor.data<A>() + block.entry * columns;
        const double size = step_sizes.data<double>()[block.entry];
        double squares = 0;
        for (int64_t i = block.begin; i < block.end; ++i) {
          const int64_t row = block.entry * part.rows + i, at = row * columns;
          const A step = static_cast<A>(size * static_cast<double>(row_factor.data<A>()[row]));
          squares += static_cast<double>(update_row(weight.data<A>() + at, value_at(copy, at),
                                                    gradient.data<A>() + at, column, step, columns,
                                                    past_caches));
        }
        if (past_caches) streamed_rows_done();
        by_block[static_cast<size_t>(task)] = squares;
      });
    });
  });
  if (!weight_squares) return;
  const int64_t blocks = blocks_of(part.rows, kRowBlock);
  for (int64_t entry = 0; entry < part.batch; ++entry) {
    weight_squares.data<double>()[entry] = std::accumulate(
        by_block.begin() + entry * blocks, by_block.begin() + (entry + 1) * blocks, double{0});
  }
}

void adafactor_step_sizes(const Stream&, Tensor& step_sizes, const Tensor& squares, int64_t count,
                          bool one_rms, const AdafactorParams& params) {
  double* sizes = step_sizes.data<double>();
  const int64_t batch = step_sizes.elements(), n = squares.elements() / 2;
  check_size("squares", squares, one_rms ? 2 * n : 2 * batch, DType::f64);
  if (one_rms) {
    std::fill_n(sizes, batch, step_size(sum_of(squares), n * count, params));
    return;
  }
  const double* s = squares.data<double>();
  for (int64_t i = 0; i < batch; ++i) {
    sizes[i] = step_size({s[2 * i], s[2 * i + 1]}, count, params);
  }
}

void adafactor_step(const Stream&, Tensor& weight, Tensor& value, Tensor& row_moment,
                    Tensor& column_moment, Tensor& moment, Tensor& weight_squares,
                    bool squares_known, const Tensor& gradient, int64_t batch, int64_t rows,
                    int64_t columns, bool one_rms, const AdafactorParams& params,
                    double* update_rms) {
  const int64_t elements = batch * rows * columns;
  const DType dtype = weight.dtype();
  check_size("weight", weight, elements, dtype);
  check_size("gradient", gradient, elements, dtype);
  if (value) check_size("value", value, elements, value.dtype());
  if (row_moment) {
    check_size("row_moment", row_moment, batch * rows, dtype);
    check_size("column_moment", column_moment, batch * columns, dtype);
  } else {
    check_size("moment", moment, elements, dtype);
  }
  if (elements == 0) {
    if (update_rms != nullptr) *update_rms = 0;
  } else if (row_moment) {
    factored_step(weight, value, row_moment, column_moment, weight_squares, squares_known, gradient,
                  batch, rows, columns, one_rms, params, update_rms);
  } else {
    unfactored_step(weight, value, moment, gradient, batch, rows * columns, one_rms, params,
                    update_rms);
  }
}

}  // namespace sw::kernels::cpu
