#include <cmath>
#include <vector>

#include "libswitch/base/parallel.h"
#include "libswitch/kernels/cpu/elements.h"
#include "libswitch/kernels/cpu/vectors.h"
#include "libswitch/kernels/optimizer.h"

namespace sw::kernels::cpu {
namespace {

constexpr int64_t kRowBlock = 64;                     // rows of one task of a factored step
constexpr int kTileRows = 4;                          // rows summed side by side
constexpr int64_t kColumnBlock = 512;                 // columns of one task of the moments
constexpr int64_t kFlatBlock = int64_t{1} << 14;      // elements of one unfactored task
constexpr int64_t kFlatRun = int64_t{1} << 11;        // of them worked on together: they stay in L1
constexpr int64_t kGroupElements = int64_t{1} << 20;  // entries worked on together stay in cache

int64_t blocks_of(int64_t n, int64_t block) { return (n + block - 1) / block; }

void check_size(const char* name, const Tensor& x, int64_t elements, DType dtype) {
  SW_CHECK(x.defined() && x.elements() == elements && x.dtype() == dtype, internal,
           "adafactor_step: {}: expected {} elements of {}, got {} {}", name, elements,
           dtype_name(dtype), x.defined() ? x.shape().str() : std::string("nothing"),
           x.defined() ? dtype_name(x.dtype()) : "");
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

// A factored step on [batch, rows, columns]; each matrix of the batch is an entry, cut into blocks
// of rows.
template <class A>
class Factored {
 public:
  Factored(Tensor& weight, Tensor& row_moment, Tensor& column_moment, const Tensor& gradient,
           int64_t batch, int64_t rows, int64_t columns, const AdafactorParams& params)
      : weight_(weight.data<A>()),
        gradient_(gradient.data<A>()),
        row_moment_(row_moment.data<A>()),
        column_moment_(column_moment.data<A>()),
        batch_(batch),
        rows_(rows),
        columns_(columns),
        blocks_(blocks_of(rows, kRowBlock)),
        group_(std::clamp<int64_t>(kGroupElements / (rows * columns), 1, batch)),
        params_(params),
        row_factor_(Tensor::empty({batch, rows}, dtype_of<A>())),
        column_factor_(Tensor::empty({batch, columns}, dtype_of<A>())),
        row_sums_(Tensor::empty({group_ * blocks_ * kRowBlock}, DType::f64)),
        column_sums_(Tensor::empty({group_ * blocks_ * columns}, DType::f64)),
        squares_(static_cast<size_t>(batch * blocks_)) {}

  // Three readings of the gradient: its moments, the size of the update, the update. Entries are
  // taken in groups and every reading starts where the one before ended, so that it finds in cache
  // what fits there.
  template <class V>
  void run(V* value, bool one_rms, double* update_rms) {
    std::vector<double> factors(static_cast<size_t>(batch_));
    const int64_t count = rows_ * columns_;
    Squares all;
    for (int64_t first = 0; first < batch_; first += group_) {
      const int64_t entries = std::min(group_, batch_ - first);
      sum(first, entries);
      moments(first, entries);
      squares(first, entries);
      for (int64_t entry = first; entry < first + entries; ++entry) {
        Squares own;
        for (int64_t k = 0; k < blocks_; ++k) {
          own += squares_[static_cast<size_t>(entry * blocks_ + k)];
        }
        factors[static_cast<size_t>(entry)] = step_factor(own, count, params_);
        all += own;
      }
      if (!one_rms) update(first, entries, factors, value);
    }
    if (one_rms) {
      std::fill(factors.begin(), factors.end(), step_factor(all, batch_ * count, params_));
      for (int64_t first = (batch_ - 1) / group_ * group_; first >= 0; first -= group_) {
        update(first, std::min(group_, batch_ - first), factors, value);
      }
    }
    if (update_rms != nullptr) {
      *update_rms = std::sqrt(all.update / static_cast<double>(batch_ * count));
    }
  }

 private:
  // Sums of g² by row and by column within each block of the group.
  void sum(int64_t first, int64_t entries) {
    double* row_sums = row_sums_.data<double>();
    double* column_sums = column_sums_.data<double>();
    parallel_for(entries * blocks_, 1, [&](int64_t task, int64_t) {
      const int64_t begin = task % blocks_ * kRowBlock;
      const int64_t end = std::min(rows_, begin + kRowBlock);
      const A* g = gradient_ + ((first + task / blocks_) * rows_ + begin) * columns_;
      std::vector<A> column(static_cast<size_t>(columns_), A{0});
      double* row = row_sums + task * kRowBlock;
      int64_t i = begin;
      for (; i + kTileRows <= end; i += kTileRows, g += kTileRows * columns_, row += kTileRows) {
        sum_tile<kTileRows>(g, row, column.data());
      }
      for (; i < end; ++i, g += columns_, ++row) sum_tile<1>(g, row, column.data());
      double* to = column_sums + task * columns_;
      const A* c = column.data();
#pragma omp simd
      for (int64_t j = 0; j < columns_; ++j) to[j] = static_cast<double>(c[j]);
    });
  }

  // `Rows` rows from g on, whose sums by row and by column stay in registers.
  template <int Rows>
  void sum_tile(const A* g, double* row_sums, A* column) const {
    using Tag = hn::CappedTag<A, 32 / sizeof(A)>;
    constexpr Tag tag;
    constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag()));
    hn::Vec<Tag> row[Rows][2];
    for (auto& lanes : row) lanes[0] = lanes[1] = hn::Zero(tag);
    int64_t j = 0;
    for (; j + 2 * kLanes <= columns_; j += 2 * kLanes) {
      hn::Vec<Tag> low = hn::LoadU(tag, column + j);
      hn::Vec<Tag> high = hn::LoadU(tag, column + j + kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const hn::Vec<Tag> x = hn::LoadU(tag, g + r * columns_ + j);
        const hn::Vec<Tag> y = hn::LoadU(tag, g + r * columns_ + j + kLanes);
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
      for (int64_t k = j; k < columns_; ++k) {
        const A square = g[r * columns_ + k] * g[r * columns_ + k];
        sum += square;
        column[k] += square;
      }
      row_sums[r] = static_cast<double>(sum);
    }
  }

  // New moments of the entries of the group and the factors that follow from them.
  void moments(int64_t first, int64_t entries) {
    const int64_t parts = 1 + blocks_of(columns_, kColumnBlock);
    parallel_for(entries * parts, 1, [&](int64_t task, int64_t) {
      const int64_t k = task / parts;
      if (task % parts == 0) {
        row_moments(first + k, row_sums_.data<double>() + k * blocks_ * kRowBlock);
      } else {
        const int64_t begin = (task % parts - 1) * kColumnBlock;
        column_moments(first + k, column_sums_.data<double>() + k * blocks_ * columns_, begin,
                       std::min(columns_, begin + kColumnBlock));
      }
    });
  }

  // The running mean after one more sum of `n` squares of unscaled gradients.
  A moment(A before, double sum, int64_t n) const {
    const double scale = params_.gradient_scale * params_.gradient_scale;
    const double mean = scale * sum / static_cast<double>(n) + params_.epsilon1;
    return static_cast<A>(params_.beta2 * static_cast<double>(before) +
                          (1.0 - params_.beta2) * mean);
  }

  void row_moments(int64_t entry, const double* sums) {
    A* r = row_moment_ + entry * rows_;
    double total = 0;
    for (int64_t i = 0; i < rows_; ++i) {
      r[i] = moment(r[i], sums[i], columns_);
      total += static_cast<double>(r[i]);
    }
    const double mean = total / static_cast<double>(rows_);
    A* factor = row_factor_.data<A>() + entry * rows_;
    for (int64_t i = 0; i < rows_; ++i) {
      factor[i] =
          static_cast<A>(params_.gradient_scale / std::sqrt(static_cast<double>(r[i]) / mean));
    }
  }

  void column_moments(int64_t entry, const double* sums, int64_t begin, int64_t end) {
    double total[kColumnBlock] = {};
    for (int64_t k = 0; k < blocks_; ++k) {
      const double* part = sums + k * columns_ + begin;
#pragma omp simd
      for (int64_t j = 0; j < end - begin; ++j) total[j] += part[j];
    }
    A* c = column_moment_ + entry * columns_ + begin;
    A* factor = column_factor_.data<A>() + entry * columns_ + begin;
    for (int64_t j = 0; j < end - begin; ++j) {
      c[j] = moment(c[j], total[j], rows_);
      factor[j] = static_cast<A>(1.0 / std::sqrt(static_cast<double>(c[j])));
    }
  }

  // Σu² and Σw² of each block, u = g · row factor · column factor.
  void squares(int64_t first, int64_t entries) {
    const int64_t tasks = entries * blocks_;
    parallel_for(tasks, 1, [&](int64_t turn, int64_t) {
      const int64_t task = tasks - 1 - turn;
      const int64_t entry = first + task / blocks_;
      const A* column = column_factor_.data<A>() + entry * columns_;
      const int64_t begin = task % blocks_ * kRowBlock;
      Squares block;
      for (int64_t i = begin; i < std::min(rows_, begin + kRowBlock); ++i) {
        const int64_t row = entry * rows_ + i;
        const A* g = gradient_ + row * columns_;
        const A* w = weight_ + row * columns_;
        const auto factor = static_cast<double>(row_factor_.data<A>()[row]);
        block.update += factor * factor * static_cast<double>(lane_sum<A>(columns_, [=](int64_t j) {
                          const A u = g[j] * column[j];
                          return u * u;
                        }));
        block.weight +=
            static_cast<double>(lane_sum<A>(columns_, [w](int64_t j) { return w[j] * w[j]; }));
      }
      squares_[static_cast<size_t>(first * blocks_ + task)] = block;
    });
  }

  template <class V>
  void update(int64_t first, int64_t entries, const std::vector<double>& factors, V* value) {
    parallel_for(entries * blocks_, 1, [&](int64_t task, int64_t) {
      const int64_t entry = first + task / blocks_;
      const A* column = column_factor_.data<A>() + entry * columns_;
      const int64_t begin = task % blocks_ * kRowBlock;
      for (int64_t i = begin; i < std::min(rows_, begin + kRowBlock); ++i) {
        const int64_t row = entry * rows_ + i;
        const A* g = gradient_ + row * columns_;
        A* w = weight_ + row * columns_;
        V* out = value_at(value, row * columns_);
        const A step = static_cast<A>(factors[static_cast<size_t>(entry)] *
                                      static_cast<double>(row_factor_.data<A>()[row]));
#pragma omp simd
        for (int64_t j = 0; j < columns_; ++j) {
          const A updated = w[j] - step * (g[j] * column[j]);
          w[j] = updated;
          store_value(out, j, updated);
        }
      }
    });
  }

  A* weight_;
  const A* gradient_;
  A* row_moment_;
  A* column_moment_;
  int64_t batch_, rows_, columns_;
  int64_t blocks_;  // of rows of one entry
  int64_t group_;   // entries
  const AdafactorParams& params_;
  Tensor row_factor_;             // [batch, rows]: gradient_scale / sqrt(r / mean(r))
  Tensor column_factor_;          // [batch, columns]: 1 / sqrt(c)
  Tensor row_sums_;               // of one group: [group, blocks, kRowBlock]
  Tensor column_sums_;            // of one group: [group, blocks, columns]
  std::vector<Squares> squares_;  // [batch, blocks]
};

template <class A, class V>
void unfactored_step(Tensor& weight, V* value, Tensor& moment, const Tensor& gradient,
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
  // Calls fn(offset, n) for the runs of a task's block.
  const auto each_run = [&](int64_t task, const auto& fn) {
    const int64_t begin = task % blocks * kFlatBlock;
    const int64_t end = std::min(count, begin + kFlatBlock);
    for (int64_t start = begin; start < end; start += kFlatRun) {
      fn(task / blocks * count + start, std::min(kFlatRun, end - start));
    }
  };
  parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
    Squares squares;
    each_run(task, [&](int64_t offset, int64_t n) {
      const A* w = weights + offset;
      const A* g = gradients + offset;
      A* m = moments + offset;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const A scaled = scale * g[i];
        m[i] = decay * m[i] + rest * (scaled * scaled + epsilon);
      }
      squares.update += static_cast<double>(lane_sum<A>(n, [=](int64_t i) {
        const A scaled = scale * g[i];
        return scaled * scaled / m[i];
      }));
      squares.weight += static_cast<double>(lane_sum<A>(n, [w](int64_t i) { return w[i] * w[i]; }));
    });
    partial[static_cast<size_t>(task)] = squares;
  });
  const std::vector<double> factors =
      step_factors(partial, batch, blocks, count, one_rms, params, update_rms);
  parallel_for(batch * blocks, 1, [&](int64_t task, int64_t) {
    const A step = static_cast<A>(factors[static_cast<size_t>(task / blocks)]) * scale;
    each_run(task, [&](int64_t offset, int64_t n) {
      A* w = weights + offset;
      const A* g = gradients + offset;
      const A* m = moments + offset;
      V* out = value_at(value, offset);
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        const A updated = w[i] - step * g[i] / std::sqrt(m[i]);
        w[i] = updated;
        store_value(out, i, updated);
      }
    });
  });
}

}  // namespace

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
    return;
  }
  with_master("adafactor_step", dtype, [&]<class A>(std::type_identity<A>) {
    with_value("adafactor_step", value, [&](auto* copy) {
      if (row_moment) {
        Factored<A>(weight, row_moment, column_moment, gradient, batch, rows, columns, params)
            .run(copy, one_rms, update_rms);
      } else {
        unfactored_step<A>(weight, copy, moment, gradient, batch, rows * columns, one_rms, params,
                           update_rms);
      }
    });
  });
}

}  // namespace sw::kernels::cpu
