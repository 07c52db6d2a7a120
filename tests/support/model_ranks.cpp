#include "tests/support/model_ranks.h"

#include "libswitch/comm/local/threads.h"
#include "libswitch/kernels/columns.h"
#include "tests/support/kernel_case.h"

namespace sw::test {

void on_model_ranks(int64_t ranks, const std::function<void(Context&, MeshPart)>& fn) {
  run_ranks(ranks, [&](World& world) {
    const Mesh mesh(world, {1, 1, ranks});
    Tape tape;
    Context context;
    context.mesh = &mesh;
    context.training = true;
    context.seed = 11;
    context.tape = &tape;
    fn(context, mesh.model_part());
  });
}

void expect_alike(Context& context, const Tensor& x, const std::string& what) {
  Tensor first = x.clone();
  context.mesh->model().broadcast(first, 0);
  expect_same_bits(x, first,
                   what + " on rank 0 and " + std::to_string(context.mesh->model().rank()));
}

Tensor columns_of(const Tensor& x, MeshPart part) {
  const int64_t columns = part.count(x.size(1));
  Tensor y = Tensor::empty({x.size(0), columns}, x.dtype());
  kernels::copy_columns(Stream{}, y, 0, x, part.begin(x.size(1)), columns);
  return y;
}

Tensor rows_of(const Tensor& x, MeshPart part) {
  const int64_t begin = part.begin(x.size(0));
  return x.slice(begin, begin + part.count(x.size(0))).clone();
}

}  // namespace sw::test
