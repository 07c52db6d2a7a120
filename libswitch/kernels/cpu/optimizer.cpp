#include "libswitch/kernels/optimizer.h"

#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kRowBlock = 64;                     // rows of one task of a factored step
constexpr int64_t kFlatBlock = int64_t{1} << 14;      // elements of one task otherwise
constexpr int64_t kGroupElements = int64_t{1} << 20;  // entries worked on together stay in cache

int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

void check_master(const char* where, const char* name, const Tensor& x, int64_t elements,
                  DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "{}: {}: expected {} elements of {}, got {} {}", where, name, elements,
           dtype_name(dtype), x.defined() ? x.shape().str() : std::string("nothing"),
           x.defined() ? dtype_name(x.dtype()) : "");
}

// Copies weights[begin, end) into `value`, cast to its dtype; nothing when it is undefined.
template <class A>
void write_value(Tensor& value, const A* weights, int64_t begin, int64_t end) {
  if (!value) return;
  with_element("optimizer: value", value.dtype(), [&]<class V>(std::type_identity<V>) {
    V* to = value.data<V>();
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) store(to, i, weights[i]);
  });
}

// Sums of squares of one task: of the update and of the weight.
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
double step_factor(const Squares& squares, int64_t count, const AdafactorParams& params) {
  const double update_rms = std::sqrt(squares.update / static_cast<double>(count));
  const double weight_rms = std::sqrt(squares.weight / static_cast<double>(count));
  double factor = params.learning_rate;
  if (params.multiply_by_rms) factor *= std::max(weight_rms, params.epsilon2);
  // Written so that a NaN update stays visible in the weights.
  const double excess = update_rms / params.clip_threshold;
  return excess <= 1.0 ? factor : factor / excess;
}

// The factor of every batch entry from the sums of its blocks, and the rms of the whole update.
std::vector<double> step_factors(const std::vector<Squares>& partial, int64_t batch, int64_t blocks,
                                 int64_t count, bool one_rms, const AdafactorParams& params,
                                 double* update_rms) {
  std::vector<double> factors(static_cast<size_t>(batch));
  Squares all;
  for (int64_t b = 0; b < batch; ++b) {
    Squares entry;
    for (int64_t k = 0; k < blocks; ++k) entry += partial[static_cast<size_t>(b * blocks + k)];
    factors[static_cast<size_t>(b)] = step_factor(entry, count, params);
    all += entry;
  }
  if (one_rms) {
    std::fill(factors.begin(), factors.end(), step_factor(all, batch * count, params));
  }
  if (update_rms != nullptr) {
    *update_rms = std::sqrt(all.update / static_cast<double>(batch * count));
  }
  return factors;
}

template <class A>
struct Factored {
  A* weight;
  const A* gradient;
  A* row_moment;
  A* column_moment;
  int64_t rows;
  int64_t columns;
  int64_t blocks;
  const AdafactorParams& params;
  std::vector<A> row_factor;     // gradient_scale / sqrt(r / mean(r)), [batch, rows]
  std::vector<A> column_factor;  // 1 / sqrt(c), [batch, columns]

  // Sums of g² over one block of rows: row_sums [rows of the block], column_sums [columns].
  void sum_block(int64_t entry, int64_t block, double* row_sums, double* column_sums) const {
    const int64_t begin = block * kRowBlock;
    const int64_t end = std::min(rows, begin + kRowBlock);
    std::vector<A> column(static_cast<size_t>(columns), A{0});
    A* c = column.data();
    for (int64_t i = begin; i < end; ++i) {
      const A* g = gradient + (entry * rows + i) * columns;
      row_sums[i - begin] =
          static_cast<double>(lane_sum<A>(columns, [g](int64_t j) { return g[j] * g[j]; }));
#pragma omp simd
      for (int64_t j = 0; j < columns; ++j) c[j] += g[j] * g[j];
    }
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j) column_sums[j] = static_cast<double>(c[j]);
  }

  Squares squares_block(int64_t entry, int64_t block) const {
    const A* column = column_factor.data() + entry * columns;
    const int64_t end = std::min(rows, (block + 1) * kRowBlock);
    Squares squares;
    for (int64_t i = block * kRowBlock; i < end; ++i) {
      const int64_t row = entry * rows + i;
      const A* g = gradient + row * columns;
      const A* w = weight + row * columns;
      const auto factor = static_cast<double>(row_factor[static_cast<size_t>(row)]);
      squares.update += factor * factor * static_cast<double>(lane_sum<A>(columns, [=](int64_t j) {
                          const A u = g[j] * column[j];
                          return u * u;
                        }));
      squares.weight +=
          static_cast<double>(lane_sum<A>(columns, [w](int64_t j) { return w[j] * w[j]; }));
    }
    return squares;
  }

  void update_block(int64_t entry, int64_t block, double factor, Tensor& value) const {
    const A* column = column_factor.data() + entry * columns;
    const int64_t end = std::min(rows, (block + 1) * kRowBlock);
    for (int64_t i = block * kRowBlock; i < end; ++i) {
      const int64_t row = entry * rows + i;
      const A* g = gradient + row * columns;
      A* w = weight + row * columns;
      const A step =
          static_cast<A>(factor * static_cast<double>(row_factor[static_cast<size_t>(row)]));
#pragma omp simd
      for (int64_t j = 0; j < columns; ++j) w[j] -= step * (g[j] * column[j]);
      write_value(value, weight, row * columns, (row + 1) * columns);
    }
  }

  // New moments of one entry and the factors that follow from them.
  void moments(int64_t entry, const double* row_sums, const double* column_sums) {
    const double decay = params.beta2;
    const double scale = params.gradient_scale * params.gradient_scale;
    A* r = row_moment + entry * rows;
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const double mean = scale * row_sums[i] / static_cast<double>(columns) + params.epsilon1;
      r[i] = static_cast<A>(decay * static_cast<double>(r[i]) + (1.0 - decay) * mean);
      sum += static_cast<double>(r[i]);
    }
    const double mean_r = sum / static_cast<double>(rows);
    A* row = row_factor.data() + entry * rows;
    for (int64_t i = 0; i < rows; ++i) {
      row[i] =
          static_cast<A>(params.gradient_scale / std::sqrt(static_cast<double>(r[i]) / mean_r));
    }
    A* c = column_moment + entry * columns;
    A* column = column_factor.data() + entry * columns;
    for (int64_t j = 0; j < columns; ++j) {
      double total = 0;
      for (int64_t k = 0; k < blocks; ++k) total += column_sums[k * columns + j];
      const double mean = scale * total / static_cast<double>(rows) + params.epsilon1;
      c[j] = static_cast<A>(decay * static_cast<double>(c[j]) + (1.0 - decay) * mean);
      column[j] = static_cast<A>(1.0 / std::sqrt(static_cast<double>(c[j])));
    }
  }
};

template <class A>
void factored_step(Tensor& weight, Tensor& value, Tensor& row_moment, Tensor& column_moment,
                   const Tensor& gradient, int64_t batch, int64_t rows, int64_t columns,
                   bool one_rms, const AdafactorParams& params, double* update_rms) {
  const int64_t blocks = blocks_of(rows, kRowBlock);
  Factored<A> work{weight.data<A>(),
                   gradient.data<A>(),
                   row_moment.data<A>(),
                   column_moment.data<A>(),
                   rows,
                   columns,
                   blocks,
                   params,
                   {},
                   {}};
  work.row_factor.resize(static_cast<size_t>(batch * rows));
  work.column_factor.resize(static_cast<size_t>(batch * columns));
  std::vector<Squares> partial(static_cast<size_t>(batch * blocks));

  // Entries are taken in groups, so that the second reading of a gradient finds it in cache.
  const int64_t group = std::clamp<int64_t>(kGroupElements / (rows * columns), 1, batch);
  std::vector<double> row_sums(static_cast<size_t>(group * blocks * kRowBlock));
  std::vector<double> column_sums(static_cast<size_t>(group * blocks * columns));
  for (int64_t first = 0; first < batch; first += group) {
    const int64_t entries = std::min(group, batch - first);
    parallel_for(entries * blocks, 1, [&](int64_t task, int64_t) {
      work.sum_block(first + task / blocks, task % blocks, row_sums.data() + task * kRowBlock,
                     column_sums.data() + task * columns);
    });
    parallel_for(entries, 1, [&](int64_t k, int64_t) {
      work.moments(first + k, row_sums.data() + k * blocks * kRowBlock,
                   column_sums.data() + k * blocks * columns);
    });
    parallel_for(entries * blocks, 1, [&](int64_t task, int64_t) {
      partial[static_cast<size_t>(first * blocks + task)] =
          work.squares_block(first + task / blocks, task % blocks);
    });
  }
  const std::vector<double> factors =
      step_factors(partial, batch, blocks, rows * columns, one_rms, params, update_rms);
  parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
    work.update_block(task / blocks, task % blocks, factors[static_cast<size_t>(task / blocks)],
                      value);
  });
}

template <class A>
void unfactored_step(Tensor& weight, Tensor& value, Tensor& moment, const Tensor& gradient,
                     int64_t batch, int64_t count, bool one_rms, const AdafactorParams& params,
                     double* update_rms) {
  A* weights = weight.data<A>();
  const A* gradients = gradient.data<A>();
  A* moments = moment.data<A>();
  const int64_t blocks = blocks_of(count, kFlatBlock);
  const A scale = static_cast<A>(params.gradient_scale);
  const A decay = static_cast<A>(params.beta2);
  const A rest = static_cast<A>(1.0 - params.beta2);
  const A epsilon = static_cast<A>(params.epsilon1);
  std::vector<Squares> partial(static_cast<size_t>(batch * blocks));
  const auto range = [&](int64_t task, const auto& fn) {
    const int64_t start = task % blocks * kFlatBlock;
    fn(task / blocks * count + start, std::min(kFlatBlock, count - start));
  };
  parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
    range(task, [&](int64_t offset, int64_t n) {
      const A* w = weights + offset;
      const A* g = gradients + offset;
      A* m = moments + offset;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const A scaled = scale * g[i];
        m[i] = decay * m[i] + rest * (scaled * scaled + epsilon);
      }
      Squares squares;
      squares.update = lane_sum<double>(n, [=](int64_t i) {
        const double u = static_cast<double>(scale * g[i]);
        return u * u / static_cast<double>(m[i]);
      });
      squares.weight = lane_sum<double>(
          n, [w](int64_t i) { return static_cast<double>(w[i]) * static_cast<double>(w[i]); });
      partial[static_cast<size_t>(task)] = squares;
    });
  });
  const std::vector<double> factors =
      step_factors(partial, batch, blocks, count, one_rms, params, update_rms);
  parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
    const A step = static_cast<A>(factors[static_cast<size_t>(task / blocks)]);
    range(task, [&](int64_t offset, int64_t n) {
      A* w = weights + offset;
      const A* g = gradients + offset;
      const A* m = moments + offset;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) w[i] -= step * (scale * g[i] / std::sqrt(m[i]));
      write_value(value, weights, offset, offset + n);
    });
  });
}

}  // namespace

void adafactor_step(const Stream&, Tensor& weight, Tensor& value, Tensor& row_moment,
                    Tensor& column_moment, Tensor& moment, const Tensor& gradient, int64_t batch,
                    int64_t rows, int64_t columns, bool one_rms, const AdafactorParams& params,
                    double* update_rms) {
  constexpr const char* kWhere = "adafactor_step";
  const int64_t elements = batch * rows * columns;
  const DType dtype = weight.dtype();
  check_master(kWhere, "weight", weight, elements, dtype);
  check_master(kWhere, "gradient", gradient, elements, dtype);
  if (value) check_master(kWhere, "value", value, elements, value.dtype());
  if (row_moment) {
    check_master(kWhere, "row_moment", row_moment, batch * rows, dtype);
    check_master(kWhere, "column_moment", column_moment, batch * columns, dtype);
  } else {
    check_master(kWhere, "moment", moment, elements, dtype);
  }
  if (elements == 0) {
    if (update_rms != nullptr) *update_rms = 0;
    return;
  }
  with_master(kWhere, dtype, [&]<class A>(std::type_identity<A>) {
    if (row_moment) {
      factored_step<A>(weight, value, row_moment, column_moment, gradient, batch, rows, columns,
                       one_rms, params, update_rms);
    } else {
      unfactored_step<A>(weight, value, moment, gradient, batch, rows * columns, one_rms, params,
                         update_rms);
    }
  });
}

void adamw_step(const Stream&, Tensor& weight, Tensor& value, Tensor& first_moment,
                Tensor& second_moment, const Tensor& gradient, const AdamWParams& params) {
  constexpr const char* kWhere = "adamw_step";
  const DType dtype = weight.dtype();
  check_master(kWhere, "gradient", gradient, weight.elements(), dtype);
  check_master(kWhere, "first_moment", first_moment, weight.elements(), dtype);
  check_master(kWhere, "second_moment", second_moment, weight.elements(), dtype);
  if (value) check_master(kWhere, "value", value, weight.elements(), value.dtype());
  SW_CHECK(params.step >= 1, internal, "{}: step {} counts from 1", kWhere, params.step);
  with_master(kWhere, dtype, [&]<class A>(std::type_identity<A>) {
    A* w = weight.data<A>();
    A* m = first_moment.data<A>();
    A* v = second_moment.data<A>();
    const A* g = gradient.data<A>();
    const auto step = static_cast<double>(params.step);
    const A scale = static_cast<A>(params.gradient_scale);
    const A beta1 = static_cast<A>(params.beta1);
    const A beta2 = static_cast<A>(params.beta2);
    const A rest1 = static_cast<A>(1.0 - params.beta1);
    const A rest2 = static_cast<A>(1.0 - params.beta2);
    const A rate = static_cast<A>(params.learning_rate / (1.0 - std::pow(params.beta1, step)));
    const A correction = static_cast<A>(1.0 / std::sqrt(1.0 - std::pow(params.beta2, step)));
    const A epsilon = static_cast<A>(params.epsilon);
    const A shrink = static_cast<A>(1.0 - params.learning_rate * params.weight_decay);
    parallel_for(weight.elements(), kFlatBlock, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const A scaled = scale * g[i];
        const A mean = beta1 * m[i] + rest1 * scaled;
        const A square = beta2 * v[i] + rest2 * scaled * scaled;
        m[i] = mean;
        v[i] = square;
        w[i] = shrink * w[i] - rate * mean / (std::sqrt(square) * correction + epsilon);
      }
      write_value(value, w, begin, end);
    });
  });
}

}  // namespace sw::kernels::cpu
