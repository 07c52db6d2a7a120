#include "libswitch/train/step.h"

#include <bit>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/profile.h"
#include "libswitch/train/gradient_tree.h"

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
  out.log_likelihood = result.sums.log_likelihood;
  out.targets = result.sums.targets;
  out.correct = result.sums.correct;
  out.tokens = input.real_inputs + input.real_targets;
  out.layers = layer_statistics(model, result);
  return out;
}

void add_observations(StepResult& left, const StepResult& right) {
  left.loss += right.loss;
  left.cross_entropy += right.cross_entropy;
  left.aux_loss += right.aux_loss;
  left.z_loss += right.z_loss;
  left.log_likelihood += right.log_likelihood;
  left.targets += right.targets;
  left.correct += right.correct;
  left.tokens += right.tokens;
  for (size_t i = 0; i < left.layers.size(); ++i) left.layers[i].merge(right.layers[i]);
}

double parameter_bytes(const Model& model) {
  double sum = 0;
  for (const auto& parameter : model.parameters()) {
    sum += static_cast<double>(parameter->master().bytes());
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

void StepConfig::check_rows(int64_t rows) const {
  SW_CHECK(canonical_ranks >= 1 && std::has_single_bit(static_cast<uint64_t>(canonical_ranks)),
           usage, "canonical ranks: {}, expected a power of two", canonical_ranks);
  SW_CHECK(accumulate >= 1, usage, "accumulate: {} micro-batches, expected at least 1", accumulate);
  SW_CHECK(clip_norm >= 0 && std::isfinite(clip_norm), usage,
           "clip norm: {}, expected at least 0 (0: no clipping)", clip_norm);
  SW_CHECK(rows >= 1 && rows % (canonical_ranks * accumulate) == 0, usage,
           "batch: {} rows cannot be cut into {} canonical ranks x {} micro-batches; expected a "
           "multiple of {}",
           rows, canonical_ranks, accumulate, canonical_ranks * accumulate);
}

namespace {

// Part number `part` of `parts` as the model reads it.
ModelInput part_of_batch(const TokenRows& batch, const Conventions& conventions, int64_t parts,
                         int64_t part, const RealTokens& whole) {
  const ProfileRegion region("batch preparation");
  const int64_t rows = batch.rows / parts;
  return make_model_input(slice_rows(batch, part * rows, (part + 1) * rows), conventions, parts,
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

StepResult compute_gradients(Model& model, const TokenRows& batch, int64_t step,
                             const StepConfig& config, const ShardForward& forward,
                             const std::function<void()>& poll) {
  config.check_rows(batch.rows);
  const int64_t parts = config.canonical_ranks * config.accumulate;
  const RealTokens whole = count_real_tokens(batch);
  ForwardOptions options;
  options.recompute = config.recompute;

  model.clear_gradients();
  GradientTree gradients(model, config.canonical_ranks);
  Observations observations(&add_observations);
  for (int64_t shard = 0; shard < config.canonical_ranks; ++shard) {
    StepResult shard_sum;
    for (int64_t micro = 0; micro < config.accumulate; ++micro) {
      if (poll && shard + micro > 0) poll();
      const int64_t part = shard * config.accumulate + micro;
      const ModelInput input = part_of_batch(batch, model.config().conventions, parts, part, whole);
      Tape tape;
      Context context;
      context.training = true;
      context.tape = &tape;
      context.seed = config.seed;
      context.step = step;
      StepResult observed;
      try {
        const ForwardResult result = run_forward(forward, context, model, input, options);
        observed = observe(model, input, result);
        if (!std::isfinite(observed.loss)) return not_finite("loss is not finite");
        tape.backward();
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::diverged) throw;
        return not_finite(error.what());
      }
      if (micro == 0) {
        shard_sum = std::move(observed);
      } else {
        add_observations(shard_sum, observed);
      }
    }
    {
      const ProfileRegion region("gradient tree");
      gradients.push();
    }
    observations.push(std::move(shard_sum));
  }
  StepResult result = observations.finish();
  {
    const ProfileRegion region("gradient tree");
    gradients.finish();
  }
  {
    const ProfileRegion region("gradient norm", 0, parameter_bytes(model));
    result.grad_norm = gradient_norm(model);
  }
  if (!std::isfinite(result.grad_norm)) {
    result.finite = false;
    result.fault = "gradient is not finite";
  } else if (config.clip_norm > 0 && result.grad_norm > config.clip_norm) {
    result.gradient_scale = config.clip_norm / result.grad_norm;
  }
  return result;
}

StepResult training_step(Model& model, Optimizer& optimizer, const TokenRows& batch, int64_t step,
                         double learning_rate, const StepConfig& config,
                         const ShardForward& forward, const std::function<void()>& poll) {
  StepResult result = compute_gradients(model, batch, step, config, forward, poll);
  if (result.finite) {
    // Gradient and weight are read twice and the weight is written: means come before the update.
    const ProfileRegion region("optimizer", 0, 5 * parameter_bytes(model));
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
    const ModelInput input = part_of_batch(batch, model.config().conventions, shards, shard, whole);
    Context context;
    observations.push(observe(model, input, run_forward(forward, context, model, input, {})));
  }
  return observations.finish();
}

}  // namespace sw
