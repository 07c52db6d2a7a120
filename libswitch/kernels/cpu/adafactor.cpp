#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/vectors.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kRowBlock = 64;                     // rows of one task
constexpr int kTileRows = 4;                          // rows summed side by side
constexpr int64_t kColumnBlock = 512;                 // columns of one task of the moments
constexpr int64_t kGroupElements = int64_t{1} << 20;  // matrices worked on together stay in cache

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

// `Rows` rows from g on, whose sums of squares by row and by column stay in registers.
template <int Rows, class A>
void sum_tile(const A* g, int64_t columns, double* row_sums, A* column) {
  using Tag = hn::CappedTag<A, 32 / sizeof(A)>;
  constexpr Tag tag;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag()));
  hn::Vec<Tag> row[Rows][2];
  for (auto& lanes : row) lanes[0] = lanes[1] = hn::Zero(tag);
  int64_t j = 0;
  for (; j + 2 * kLanes <= columns; j += 2 * kLanes) {
    hn::Vec<Tag> low = hn::LoadU(tag, column + j);
    hn::Vec<Tag> high = hn::LoadU(tag, column + j + kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const hn::Vec<Tag> x = hn::LoadU(tag, g + r * columns + j);
      const hn::Vec<Tag> y = hn::LoadU(tag, g + r * columns + j + kLanes);
      row[r][0] = hn::MulAdd(x, x, row[r][0]);
      row[r][1] = hn::MulAdd(y, y, row[r][1]);
      low = hn::MulAdd(x, x, low);
      high = hn::MulAdd(y, y, high);
    }
    hn::StoreU(low, tag, column + j);
    hn::StoreU(high, tag, column + j + kLanes);
  }
  for (int r = 0; r < Rows; ++r) {
    A sum = hn::GetLane(hn::SumOfLanes(tag, hn::Add(row[r][0], row[r][1])));
    for (int64_t k = j; k < columns; ++k) {
      const A square = g[r * columns + k] * g[r * columns + k];
      sum += square;
      column[k] += square;
    }
    row_sums[r] = static_cast<double>(sum);
  }
}

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
    double* row = row_sums + first;
    std::vector<A> column(static_cast<size_t>(columns), A{0});
    int64_t i = block.begin;
    for (; i + kTileRows <= block.end; i += kTileRows, g += kTileRows * columns, row += kTileRows) {
      sum_tile<kTileRows>(g, columns, row, column.data());
    }
    for (; i < block.end; ++i, g += columns, ++row) sum_tile<1>(g, columns, row, column.data());
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
  Tensor weight, value, gradient, row_moment, column_moment, row_factor, column_factor, squares,
      step_sizes;
};

// Three readings of the gradient: its moments, the size of the update, the update. Matrices are
// taken in groups and every reading starts where the one before ended, so that it finds in cache
// what fits there.
void factored_step(Tensor& weight, Tensor& value, Tensor& row_moment, Tensor& column_moment,
                   const Tensor& gradient, int64_t batch, int64_t rows, int64_t columns,
                   bool one_rms, const AdafactorParams& params, double* update_rms) {
  const Stream stream;
  const int64_t count = rows * columns;
  const int64_t group = std::clamp<int64_t>(kGroupElements / count, 1, batch);
  Tensor row_sums = Tensor::empty({group, rows}, DType::f64);
  Tensor column_sums = Tensor::empty({group, columns}, DType::f64);
  Tensor row_totals = Tensor::empty({group}, DType::f64);
  Tensor row_factor = Tensor::empty({batch, rows}, weight.dtype());
  Tensor column_factor = Tensor::empty({batch, columns}, weight.dtype());
  Tensor squares = Tensor::empty({batch, 2}, DType::f64);
  Tensor step_sizes = Tensor::empty({batch}, DType::f64);
  const auto matrices = [&](const Tensor& x, int64_t first, int64_t end) {
    return x ? x.view({batch, x.elements() / batch}).slice(first, end) : x;
  };
  const auto group_from = [&](int64_t first) {
    const int64_t end = std::min(batch, first + group);
    return Group{{end - first, rows, columns, rows, columns},
                 matrices(weight, first, end),
                 matrices(value, first, end),
                 matrices(gradient, first, end),
                 matrices(row_moment, first, end),
                 matrices(column_moment, first, end),
                 row_factor.slice(first, end),
                 column_factor.slice(first, end),
                 squares.slice(first, end),
                 step_sizes.slice(first, end)};
  };
  const auto update = [&](Group& g) {
    adafactor_update(stream, g.weight, g.value, g.gradient, g.row_factor, g.column_factor,
                     g.step_sizes, g.part);
  };
  for (int64_t first = 0; first < batch; first += group) {
    Group g = group_from(first);
    const int64_t n = g.part.batch;
    Tensor of_rows = row_sums.slice(0, n), of_columns = column_sums.slice(0, n);
    Tensor totals = row_totals.slice(0, n);
    adafactor_sums(stream, of_rows, of_columns, g.gradient, g.part);
    adafactor_moments(stream, g.row_moment, g.column_moment, totals, g.column_factor, of_rows,
                      of_columns, g.part, params);
    adafactor_squares(stream, g.squares, g.row_factor, g.weight, g.gradient, g.row_moment, totals,
                      g.column_factor, g.part, params);
    if (one_rms) continue;
    adafactor_step_sizes(stream, g.step_sizes, g.squares, count, false, params);
    update(g);
  }
  if (one_rms) {
    adafactor_step_sizes(stream, step_sizes, squares, count, true, params);
    for (int64_t first = (batch - 1) / group * group; first >= 0; first -= group) {
      Group g = group_from(first);
      update(g);
    }
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
                       const Tensor& column_factor, const AdafactorPart& part,
                       const AdafactorParams& params) {
  const DType dtype = weight.dtype();
  const int64_t columns = part.columns;
  check_size("squares", squares, 2 * part.batch, DType::f64);
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
        const A* w = weight.data<A>() + row * columns;
        const auto moment = static_cast<double>(row_moment.data<A>()[row]);
        A& rounded = row_factor.data<A>()[row];
        rounded = static_cast<A>(params.gradient_scale / std::sqrt(moment / mean));
        const auto factor = static_cast<double>(rounded);
        sum.update += factor * factor * static_cast<double>(lane_sum<A>(columns, [=](int64_t j) {
                        const A u = g[j] * column[j];
                        return u * u;
                      }));
        sum.weight +=
            static_cast<double>(lane_sum<A>(columns, [w](int64_t j) { return w[j] * w[j]; }));
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
    out[2 * entry + 1] = sum.weight;
  }
}

void adafactor_update(const Stream&, Tensor& weight, Tensor& value, const Tensor& gradient,
                      const Tensor& row_factor, const Tensor& column_factor,
                      const Tensor& step_sizes, const AdafactorPart& part) {
  const DType dtype = weight.dtype();
  const int64_t columns = part.columns;
  check_size("weight", weight, part.batch * part.rows * columns, dtype);
  check_size("gradient", gradient, weight.elements(), dtype);
  check_size("step_sizes", step_sizes, part.batch, DType::f64);
  if (value) check_size("value", value, weight.elements(), value.dtype());
  with_master("adafactor_update", dtype, [&]<class A>(std::type_identity<A>) {
    with_value("adafactor_update", value, [&](auto* copy) {
      parallel_for(RowBlock::count(part), 1, [&](int64_t task, int64_t) {
        const RowBlock block(task, part);
        const A* column = column_factor.data<A>() + block.entry * columns;
        const double size = step_sizes.data<double>()[block.entry];
        for (int64_t i = block.begin; i < block.end; ++i) {
          const int64_t row = block.entry * part.rows + i;
          const A* g = gradient.data<A>() + row * columns;
          A* w = weight.data<A>() + row * columns;
          auto* out = value_at(copy, row * columns);
          const A step = static_cast<A>(size * static_cast<double>(row_factor.data<A>()[row]));
#pragma omp simd
          for (int64_t j = 0; j < columns; ++j) {
            const A updated = w[j] - step * (g[j] * column[j]);
            w[j] = updated;
            store_value(out, j, updated);
          }
        }
      });
    });
  });
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
                    Tensor& column_moment, Tensor& moment, const Tensor& gradient, int64_t batch,
                    int64_t rows, int64_t columns, bool one_rms, const AdafactorParams& params,
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
    factored_step(weight, value, row_moment, column_moment, gradient, batch, rows, columns, one_rms,
                  params, update_rms);
  } else {
    unfactored_step(weight, value, moment, gradient, batch, rows * columns, one_rms, params,
                    update_rms);
  }
}

}  // namespace sw::kernels::cpu
