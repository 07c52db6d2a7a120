#include "libswitch/tape/checkpoint.h"

#include <memory>

namespace sw {

std::vector<Var> checkpoint(Context& context, const Segment& segment,
                            const std::vector<Var>& inputs) {
  if (context.tape == nullptr) return segment(context, inputs);

  auto replay = std::make_shared<ReplayStore>();
  Context first = context;
  first.tape = nullptr;
  first.replay = replay.get();
  first.replaying = false;
  std::vector<Var> outputs;
  for (const Var& output : segment(first, inputs)) {
    outputs.push_back(Var::leaf(output.value()));
  }

  std::vector<GradientSlotPtr> slots;
  for (const Var& output : outputs) slots.push_back(output.slot());
  context.tape->record([context, segment, inputs, replay, slots] {
    Tape tape;
    Context second = context;
    second.tape = &tape;
    second.replay = replay.get();
    second.replaying = true;
    replay->rewind();
    const std::vector<Var> outputs = segment(second, inputs);
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].needs_gradient() || !slots[i]->is_set()) continue;
      outputs[i].slot()->adopt(second.stream, slots[i]->gradient());
    }
    tape.backward();
  });
  return outputs;
}

}  // namespace sw
