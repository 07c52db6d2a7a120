#include "libswitch/ops/embedding.h"

#include "libswitch/kernels/embedding.h"

namespace sw::ops {

Var embedding(Context& context, const Var& table, const Tensor& ids) {
  Tensor y = Tensor::empty({ids.elements(), table.value().size(1)}, table.value().dtype(),
                           context.device());
  kernels::embedding_forward(context.stream, y, table.value(), ids);
  Var output = context.output(std::move(y), {&table});
  if (context.records(output)) {
    context.tape->record([stream = context.stream, table = table.slot(), ids, dy = output.slot()] {
      if (!dy->is_set()) return;
      auto [d_table, accum] = table->target();
      kernels::embedding_backward(stream, d_table, accum, dy->gradient(), ids);
    });
  }
  return output;
}

kernels::CrossEntropySums cross_entropy(Context& context, const Var& hidden, const Var& table,
                                        const Tensor& targets,
                                        const kernels::CrossEntropyParams& params, Tensor logits) {
  SW_CHECK(hidden.value().rank() == 2 && table.value().rank() == 2 &&
               hidden.value().size(1) == table.value().size(1) &&
               targets.elements() == hidden.value().size(0),
           internal, "cross_entropy: hidden {}, table {}, targets {}", hidden.shape().str(),
           table.shape().str(), targets.shape().str());
  const bool records = context.tape != nullptr && hidden.needs_gradient();
  Tensor d_hidden, d_table;
  Accum accum = Accum::write;
  if (records) {
    d_hidden = Tensor::empty(hidden.shape(), hidden.value().dtype(), context.device());
    if (table.needs_gradient()) {
      auto target = table.slot()->target();
      d_table = target.tensor;
      accum = target.accum;
    }
  }
  kernels::CrossEntropySums sums;
  kernels::cross_entropy(context.stream, &sums, d_hidden, d_table, accum, logits, hidden.value(),
                         table.value(), targets, params);
  if (records) {
    context.tape->record([stream = context.stream, slot = hidden.slot(), d_hidden] {
      slot->adopt(stream, d_hidden);
    });
  }
  return sums;
}

}  // namespace sw::ops
