#include "libswitch/train/step.h"

#include <bit>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/profile.h"
#include "libswitch/base/sum_tree.h"
#include "libswitch/moe/expert_exchange.h"
#include "libswitch/train/gradient_norm.h"
#include "libswitch/train/gradient_reduction.h"
#include "libswitch/train/step_faults.h"
#include "libswitch/train/step_sums.h"

namespace sw {
namespace {

ForwardResult run_forward(const ShardForward& forward, Context& context, const Model& model,
                          const ModelInput& input, const ForwardOptions& options) {
  return forward ? forward(context, model, input, options) : model.forward(context, input, options);
}

StepResult observe(const Model& model, const ModelInput& input, const ForwardResult& result) {
  const ProfileRegion region("router statistics");
  StepResult out;
  out.loss = result.loss;
  out.cross_entropy = result.cross_entropy;
  out.aux_loss = result.aux_loss;
  out.z_loss = result.router_z_loss;
  out.soft_cross_entropy = result.soft_cross_entropy;
  out.teacher_cross_entropy = result.teacher_cross_entropy;
  out.log_likelihood = result.sums.log_likelihood;
  out.targets = result.sums.targets;
  out.correct = result.sums.correct;
  out.tokens = input.real_inputs + input.real_targets;
  out.layers = layer_statistics(model, result);
  return out;
}

double parameter_bytes(const Model& model) {
  double sum = 0;
  for (const auto& parameter : model.parameters()) {
    sum += static_cast<double>(parameter->master().bytes());
  }
  return sum;
}

// What an update must move: the gradient is read twice, as its means come before the update; the
// weight is read and written, its working copy is written.
double update_bytes(const Model& model) {
  double sum = 4 * parameter_bytes(model);
  for (const auto& parameter : model.parameters()) {
    const Tensor& copy = parameter->working_copy();
    if (copy.defined()) sum += static_cast<double>(copy.bytes());
  }
  return sum;
}

using Observations = SumTree<StepResult, decltype(&add_observations)>;

StepResult not_finite(std::string fault) {
  StepResult result;
  result.finite = false;
  result.fault = std::move(fault);
  result.loss = std::nan("");
  return result;
}

}  // namespace

void StepConfig::check_rows(int64_t rows, int64_t data_ranks) const {
  SW_CHECK(canonical_ranks >= 1 && std::has_single_bit(static_cast<uint64_t>(canonical_ranks)),
           usage, "canonical ranks: {}, expected a power of two", canonical_ranks);
  SW_CHECK(accumulate >= 1, usage, "accumulate: {} micro-batches, expected at least 1", accumulate);
  SW_CHECK(clip_norm >= 0 && std::isfinite(clip_norm), usage,
           "clip norm: {}, expected at least 0 (0: no clipping)", clip_norm);
  SW_CHECK(rows >= 1 && rows % (canonical_ranks * accumulate) == 0, usage,
           "batch: {} rows cannot be cut into {} canonical ranks x {} micro-batches; expected a "
           "multiple of {}",
           rows, canonical_ranks, accumulate, canonical_ranks * accumulate);
  SW_CHECK(std::has_single_bit(static_cast<uint64_t>(data_ranks)), usage,
           "mesh: {} data ranks, expected a power of two; start {} or {}, or give ranks to model=",
           data_ranks, std::bit_floor(static_cast<uint64_t>(data_ranks)),
           std::bit_ceil(static_cast<uint64_t>(data_ranks)));
  SW_CHECK(
      data_ranks <= canonical_ranks, usage,
      "mesh: {} data ranks cannot share the run's {} canonical ranks; start at most {} data "
      "ranks, or give ranks to model=; a run that starts with --canonical-ranks {} can grow to "
      "as many, one that has begun goes on with it and --allow-changes, to other bits",
      data_ranks, canonical_ranks, canonical_ranks, data_ranks);
}

namespace {

// Part number `own` of `own_parts` of these rows, which is number `part` of the step's `parts`, as
// the model reads it.
ModelInput part_of_batch(const TokenRows& rows, const Conventions& conventions, int64_t own_parts,
                         int64_t own, int64_t parts, int64_t part, const RealTokens& whole) {
  const ProfileRegion region("batch preparation");
  const int64_t count = rows.rows / own_parts;
  return make_model_input(slice_rows(rows, own * count, (own + 1) * count), conventions, parts,
                          part, &whole);
}

}  // namespace

TokenRows slice_rows(const TokenRows& batch, int64_t begin, int64_t end) {
  TokenRows part = batch;
  part.rows = end - begin;
  const auto cut = [&](auto span, int64_t length) {
    if (span.empty()) return span;
    return span.subspan(static_cast<size_t>(begin * length),
                        static_cast<size_t>((end - begin) * length));
  };
  part.inputs = cut(batch.inputs, batch.input_length);
  part.targets = cut(batch.targets, batch.target_length);
  part.input_segments = cut(batch.input_segments, batch.input_length);
  part.target_segments = cut(batch.target_segments, batch.target_length);
  part.input_mask = cut(batch.input_mask, batch.input_length);
  return part;
}

namespace {

// Forward and backward of this rank's shards: gradients of its part of the batch in the model's
// slots, and what was observed. Goes through with every shard even when one is at fault, because
// other ranks count on it, unless there is no other.
StepResult run_shards(Model& model, GradientReduction& gradients, const TokenRows& rows,
                      const RealTokens& whole, int64_t step, const StepConfig& config,
                      const ShardForward& forward, const std::function<void()>& poll) {
  const Mesh& mesh = model.mesh();
  const bool alone = mesh.world().size() == 1;
  const MeshPart data = mesh.data_part();
  const int64_t shards = data.count(config.canonical_ranks);
  const int64_t own_parts = shards * config.accumulate, parts = data.parts * own_parts;
  ForwardOptions options;
  options.recompute = config.recompute;

  ExpertGradients expert_gradients(shards, config.accumulate);
  Observations observations(&add_observations);
  StepFault fault;
  const bool poisoned = fault_before_forward(model);
  for (int64_t shard = 0; shard < shards; ++shard) {
    StepResult shard_sum;
    for (int64_t micro = 0; micro < config.accumulate; ++micro) {
      if (poll && shard + micro > 0) poll();
      const int64_t part = shard * config.accumulate + micro;
      const ModelInput input = part_of_batch(rows, model.config().conventions, own_parts, part,
                                             parts, data.index * own_parts + part, whole);
      Tape tape;
      Context context;
      context.training = true;
      context.tape = &tape;
      context.seed = config.seed;
      context.step = step;
      context.expert_gradients = &expert_gradients;
      context.listener = &gradients;
      context.fault = &fault;
      const ForwardResult result = run_forward(forward, context, model, input, options);
      StepResult observed = observe(model, input, result);
      if (poisoned) observed.loss = std::nan("");
      if (!fault.found() && !std::isfinite(observed.loss)) fault.text = "loss is not finite";
      if (alone && fault.found()) return not_finite(fault.text);
      if (part + 1 == own_parts) gradients.expect_last();
      fault_before_backward(model);
      tape.backward();
      if (micro == 0) {
        shard_sum = std::move(observed);
      } else {
        add_observations(shard_sum, observed);
      }
    }
    if (shard + 1 < shards) gradients.push();
    observations.push(std::move(shard_sum));
  }
  StepResult result = observations.finish();
  result.finite = !fault.found();
  result.fault = fault.text;
  return result;
}

RealTokens count_over_ranks(Group& data, const TokenRows& rows) {
  const RealTokens own = count_real_tokens(rows);
  if (data.size() == 1) return own;
  return {data.all_reduce_value(own.inputs, ReduceOp::sum),
          data.all_reduce_value(own.targets, ReduceOp::sum)};
}

}  // namespace

StepResult compute_gradients(Model& model, const TokenRows& rows, int64_t step,
                             const StepConfig& config, const ShardForward& forward,
                             const std::function<void()>& poll) {
  const Mesh& mesh = model.mesh();
  config.check_rows(rows.rows * mesh.shape().data, mesh.shape().data);
  const RealTokens whole = count_over_ranks(mesh.data(), rows);

  model.clear_gradients();
  GradientReduction gradients(model, mesh.data_part().count(config.canonical_ranks));
  StepResult result = run_shards(model, gradients, rows, whole, step, config, forward, poll);
  if (mesh.world().size() == 1 && !result.finite) return result;
  gradients.finish();
  {
    const ProfileRegion region("sums over ranks");
    sum_over_ranks(mesh.data(), result);
  }
  {
    const ProfileRegion region("gradient norm", 0, parameter_bytes(model));
    result.grad_norm = gradient_norm(model);
  }
  const bool lost = !result.finite;
  if (!lost && !std::isfinite(result.grad_norm)) {
    result.finite = false;
    result.fault = "gradient is not finite";
  }
  share_fault(mesh.model(), result);
  if (lost) return not_finite(result.fault);
  if (result.finite && config.clip_norm > 0 && result.grad_norm > config.clip_norm) {
    result.gradient_scale = config.clip_norm / result.grad_norm;
  }
  return result;
}

StepResult training_step(Model& model, Optimizer& optimizer, const TokenRows& rows, int64_t step,
                         double learning_rate, const StepConfig& config,
                         const ShardForward& forward, const std::function<void()>& poll,
                         const std::function<void(StepResult&)>& judge) {
  StepResult result = compute_gradients(model, rows, step, config, forward, poll);
  if (result.fault.empty() && judge) judge(result);
  if (result.fault.empty()) {
    const ProfileRegion region("optimizer", 0, update_bytes(model));
    optimizer.apply(learning_rate, step, result.gradient_scale);
  }
  return result;
}

StepResult evaluate_batch(const Model& model, const TokenRows& batch, int64_t shards,
                          const ShardForward& forward) {
  SW_CHECK(shards >= 1 && batch.rows % shards == 0, usage,
           "evaluation: {} rows cannot be cut into {} equal shards", batch.rows, shards);
  const RealTokens whole = count_real_tokens(batch);
  Observations observations(&add_observations);
  for (int64_t shard = 0; shard < shards; ++shard) {
    const ModelInput input =
        part_of_batch(batch, model.config().conventions, shards, shard, shards, shard, whole);
    Context context;
    observations.push(observe(model, input, run_forward(forward, context, model, input, {})));
  }
  return observations.finish();
}

}  // namespace sw
