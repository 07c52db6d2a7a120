#include <algorithm>
#include <array>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/train/adafactor.h"

namespace sw {
namespace {

// A rank-3 tensor taken in the order batch, rows, columns.
class Permutation {
 public:
  Permutation(const Shape& shape, const AdafactorView& view) {
    const std::array<int64_t, 3> strides = {shape[1] * shape[2], shape[2], 1};
    const std::array<int, 3> order = {view.batch_dimension, view.row_dimension,
                                      view.column_dimension};
    for (size_t i = 0; i < 3; ++i) {
      size_[i] = shape[order[i]];
      stride_[i] = strides[static_cast<size_t>(order[i])];
    }
  }
  Tensor permuted(const Tensor& stored) const {
    Tensor out = Tensor::empty({size_[0], size_[1], size_[2]}, stored.dtype());
    copy(stored, out, false);
    return out;
  }
  void put_back(const Tensor& permuted, Tensor& stored) const { copy(permuted, stored, true); }

 private:
  void copy(const Tensor& from, Tensor& to, bool back) const {
    if (from.dtype() == DType::f64) {
      copy_elements(from.data<double>(), to.data<double>(), back);
    } else {
      copy_elements(from.data<float>(), to.data<float>(), back);
    }
  }
  template <class T>
  void copy_elements(const T* from, T* to, bool back) const {
    // Where the first dimension is the dense one of the stored tensor, several of its lines are
    // taken together, so that cache lines are read and written as a whole.
    const int64_t together = stride_[2] == 1 ? 1 : kTogether;
    const int64_t blocks = (size_[0] + together - 1) / together;
    parallel_for(blocks * size_[1], 64 / together, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task / size_[1] * together, row = task % size_[1];
        const int64_t lines = std::min(together, size_[0] - first);
        for (int64_t j = 0; j < size_[2]; j += kRun) {
          const int64_t run = std::min(kRun, size_[2] - j);
          const int64_t here = (first * size_[1] + row) * size_[2] + j;
          const int64_t there = first * stride_[0] + row * stride_[1] + j * stride_[2];
          if (back) {
            copy_block(from + here, size_[1] * size_[2], 1, to + there, stride_[0], stride_[2],
                       lines, run);
          } else {
            copy_block(from + there, stride_[0], stride_[2], to + here, size_[1] * size_[2], 1,
                       lines, run);
          }
        }
      }
    });
  }

  // A block of `lines` x `run` elements with any strides, by way of a dense one: lines far apart
  // would push one another out of the cache.
  template <class T>
  static void copy_block(const T* from, int64_t from_line, int64_t from_step, T* to,
                         int64_t to_line, int64_t to_step, int64_t lines, int64_t run) {
    T block[kTogether * kRun];
    const auto each = [&](int64_t line_stride, const auto& fn) {
      if (line_stride == 1) {
        for (int64_t j = 0; j < run; ++j) {
          for (int64_t i = 0; i < lines; ++i) fn(i, j);
        }
      } else {
        for (int64_t i = 0; i < lines; ++i) {
          for (int64_t j = 0; j < run; ++j) fn(i, j);
        }
      }
    };
    each(from_line,
         [&](int64_t i, int64_t j) { block[i * kRun + j] = from[i * from_line + j * from_step]; });
    each(to_line,
         [&](int64_t i, int64_t j) { to[i * to_line + j * to_step] = block[i * kRun + j]; });
  }

  static constexpr int64_t kTogether = 16, kRun = 64;
  std::array<int64_t, 3> size_{};    // of the permuted tensor
  std::array<int64_t, 3> stride_{};  // of its dimensions in the stored tensor
};

// Moves blocks [first, second] of `bytes` each into the order [second, first].
void swap_blocks(const void* from, void* to, int64_t first, int64_t second, int64_t bytes) {
  parallel_for(first * second, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i % second * first + i / second;
      std::memcpy(static_cast<char*>(to) + at * bytes, static_cast<const char*>(from) + i * bytes,
                  static_cast<size_t>(bytes));
    }
  });
}

// x [batch, rows here, ...] of this rank's rows -> [batch / ranks, all rows, ...]: this rank's
// matrices.
Tensor rows_to_matrices(Group& group, const Tensor& x, int64_t batch) {
  const int64_t ranks = group.size(), matrix = x.elements() / batch;
  Tensor received = Tensor::empty({batch, matrix}, x.dtype());
  group.all_to_all(received, x.view({batch, matrix}));
  Tensor out = Tensor::empty({batch / ranks, ranks * matrix}, x.dtype());
  swap_blocks(received.raw(), out.raw(), ranks, batch / ranks, matrix * element_bytes(x.dtype()));
  return out;
}

// The way back; x [batch, rows here, ...] receives.
void matrices_to_rows(Group& group, const Tensor& matrices, Tensor& x, int64_t batch) {
  const int64_t ranks = group.size(), matrix = x.elements() / batch;
  Tensor sent = Tensor::empty({batch, matrix}, x.dtype());
  swap_blocks(matrices.raw(), sent.raw(), batch / ranks, ranks, matrix * element_bytes(x.dtype()));
  Tensor received = x.view({batch, matrix});
  group.all_to_all(received, sent);
}

void step(AdafactorWork& work, const Mesh& mesh, const kernels::AdafactorParams& params) {
  if (!work.staged()) return adafactor_fused(work, params);
  std::vector<AdafactorWork> alone{work};
  adafactor_staged(alone, mesh, params);
}

// The step where experts, the rows, are cut; tensors are permuted.
void step_of_matrices(const AdafactorWork& work, const Mesh& mesh,
                      const kernels::AdafactorParams& params) {
  Group& group = mesh.expert();
  const AdafactorTensors& whole = work.tensors;
  const int64_t batch = whole.weight.size(0), own = batch / group.size();
  AdafactorWork matrices = work;
  AdafactorTensors& t = matrices.tensors;
  t.weight = rows_to_matrices(group, whole.weight, batch);
  t.gradient = rows_to_matrices(group, whole.gradient, batch);
  t.row_moment = rows_to_matrices(group, whole.row_moment, batch);
  // Column moments are the same on all ranks of the group.
  t.column_moment = whole.column_moment.slice(group.rank() * own, (group.rank() + 1) * own);
  matrices.over_expert = AdafactorCut::batch;
  step(matrices, mesh, params);
  Tensor weight = whole.weight, row_moment = whole.row_moment, column_moment = whole.column_moment;
  matrices_to_rows(group, t.weight, weight, batch);
  matrices_to_rows(group, t.row_moment, row_moment, batch);
  group.all_gather(column_moment, t.column_moment);
}

}  // namespace

void adafactor_permuted(AdafactorWork& work, Parameter& parameter, const Mesh& mesh,
                        const kernels::AdafactorParams& params) {
  Tensor& weight = parameter.master();
  const Stream stream{weight.device()};
  SW_CHECK(!stream.device.is_cuda(), device,
           "adafactor: '{}' {} factors its expert dimension, which only the CPU does; take "
           "--adafactor-expert-rms each, or fewer experts than its width",
           parameter.name(), parameter.spec().shape.str());
  const Permutation permutation(weight.shape(), work.view);
  work.tensors.weight = permutation.permuted(weight);
  work.tensors.gradient = permutation.permuted(work.tensors.gradient);
  work.tensors.value = work.tensors.weight_squares = Tensor();
  work.tensors.squares_known = false;
  if (work.over_expert == AdafactorCut::rows) {
    step_of_matrices(work, mesh, params);
  } else {
    step(work, mesh, params);
  }
  permutation.put_back(work.tensors.weight, weight);
  parameter.refresh(stream);
}

void check_adafactor_permuted(const AdafactorWork& work, const Parameter& parameter,
                              const Mesh& mesh) {
  if (work.over_expert != AdafactorCut::rows) return;
  const int64_t matrices = parameter.master().size(work.view.batch_dimension);
  SW_CHECK(matrices % mesh.expert().size() == 0, usage,
           "mesh {}: adafactor factors the expert dimension of '{}' {}, whose {} matrices over "
           "experts do not divide among expert={}; take another expert size, or "
           "--adafactor-expert-rms each",
           mesh.shape().str(), parameter.name(), parameter.spec().shape.str(), matrices,
           mesh.expert().size());
}

}  // namespace sw
