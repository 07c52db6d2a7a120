#include "libswitch/ops/embedding.h"

#include "libswitch/base/profile.h"
#include "libswitch/kernels/columns.h"
#include "libswitch/kernels/embedding.h"
#include "libswitch/ops/model_parallel.h"

namespace sw::ops {

kernels::VocabularyPart vocabulary_part(const Context& context, const Var& table) {
  const MeshPart part = context.mesh->model_part();
  const int64_t rows = table.value().size(0);
  return {part.index * rows, part.parts * rows};
}

Var embedding(Context& context, const Var& table, const Tensor& ids) {
  const double rows_bytes = static_cast<double>(ids.elements() * table.value().size(1) *
                                                element_bytes(table.value().dtype()));
  const ProfileRegion region("embedding forward", 0, 2 * rows_bytes);
  Tensor y = Tensor::empty({ids.elements(), table.value().size(1)}, table.value().dtype(),
                           context.device());
  const kernels::VocabularyPart part = vocabulary_part(context, table);
  kernels::embedding_forward(context.stream, y, table.value(), ids, part);
  Var output = context.output(std::move(y), {&table});
  if (context.records(output)) {
    context.tape->record(
        [stream = context.stream, table = table.slot(), ids, part, dy = output.slot(), rows_bytes] {
          if (!dy->is_set()) return;
          const ProfileRegion region("embedding backward", 0, 3 * rows_bytes);
          auto [d_table, accum] = table->target();
          kernels::embedding_backward(stream, d_table, accum, dy->gradient(), ids, part);
        });
  }
  return sum_over_model(context, output);  // one rank has the row, the others zeros: exact
}

kernels::CrossEntropySums cross_entropy(Context& context, const Var& whole_hidden, const Var& table,
                                        const Tensor& targets, kernels::CrossEntropyParams params,
                                        Tensor logits) {
  SW_CHECK(whole_hidden.value().rank() == 2 && table.value().rank() == 2 &&
               whole_hidden.value().size(1) == table.value().size(1) &&
               targets.elements() == whole_hidden.value().size(0),
           internal, "cross_entropy: hidden {}, table {}, targets {}", whole_hidden.shape().str(),
           table.shape().str(), targets.shape().str());
  const Var hidden = copy_to_model(context, whole_hidden);
  Group& group = context.mesh->model();
  params.part = vocabulary_part(context, table);
  Tensor part_logits = logits;
  if (group.size() > 1) {
    params.gather_statistics = [&](const Tensor& mine) { return gathered_rows(group, mine); };
    if (logits.defined()) {
      part_logits =
          Tensor::empty({logits.size(0), table.value().size(0)}, logits.dtype(), context.device());
    }
  }
  const bool records = context.tape != nullptr && hidden.needs_gradient();
  // Forward and, when recording, both gradients in one pass: three products.
  const double products = records ? 3 : 1;
  const ProfileRegion region(
      "cross-entropy",
      2 * products * static_cast<double>(hidden.value().elements()) *
          static_cast<double>(table.value().size(0)),
      products * static_cast<double>(hidden.value().bytes() + table.value().bytes()));
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
  kernels::cross_entropy(context.stream, &sums, d_hidden, d_table, accum, part_logits,
                         hidden.value(), table.value(), targets, params);
  if (logits.defined() && group.size() > 1) {
    const Tensor all = gathered_columns(context.stream, group, part_logits);
    kernels::copy_columns(context.stream, logits, 0, all, 0, logits.size(1));
  }
  if (records) {
    context.tape->record([stream = context.stream, slot = hidden.slot(), d_hidden] {
      slot->adopt(stream, d_hidden);
    });
  }
  return sums;
}

}  // namespace sw::ops
