#include "libswitch/train/options.h"

#include <cpuid.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/version.h"

namespace sw {

DatasetOptions DataOptions::dataset_options(uint64_t seed) const {
  DatasetOptions out;
  out.input_length = input_length;
  out.target_length = target_length;
  out.corruption.noise_density = noise_density;
  out.corruption.mean_span = mean_span;
  out.seed = seed;
  out.temperature = temperature;
  return out;
}

namespace {
constexpr int64_t kMaxPositions = int64_t{1} << 20;
constexpr int64_t kMaxRows = int64_t{1} << 30;
constexpr int64_t kMaxSteps = int64_t{1} << 32;  // times the rows, a number of 64 bits
}  // namespace

void declare_data_options(OptionRegistry& r, DataOptions& o, const DataOptionUse& use) {
  r.group("data", "Data");
  Option& data = r.add("data", &o.data);
  if (use.required) data.required();
  data.value_name("FILE[=WEIGHT]")
      .completes_files()
      .help("token shard to train on; more than one are mixed; - is stdin")
      .details(
          "Without weights a source counts by its size. stdin is spooled into the run folder.");
  r.add("eval-data", &o.eval_data)
      .value_name("FILE")
      .completes_files()
      .help("token shard to evaluate on");
  Option& input_length = r.add("input-length", &o.input_length);
  if (use.least_input_length == 0) input_length.default_text("512; for tasks their own");
  input_length.range(use.least_input_length, kMaxPositions)
      .unit("tokens")
      .help("encoder positions");
  r.add("target-length", &o.target_length)
      .range(0, kMaxPositions)
      .unit("tokens")
      .default_text("what the input length gives")
      .help("decoder positions");
  r.add(use.mixture_temperature, &o.temperature)
      .above(0)
      .advanced()
      .help("of the mixture of sources without weights")
      .details("A source is drawn in proportion to its size to the power of 1/temperature.");
  r.add("noise-density", &o.noise_density)
      .above(0)
      .below(1)
      .advanced()
      .help("share of the tokens that span corruption takes out");
  r.add("mean-span", &o.mean_span).at_least(1).advanced().help("mean length of a span in tokens");
  r.add("eval-tokens", &o.eval_tokens)
      .at_least(0)
      .advanced()
      .default_text("all")
      .help("tokens of each --eval-data file to evaluate on");
  r.add("vocab", &o.vocab)
      .value_name("V.model")
      .advanced()
      .default_text("the one that the data name, if it is there")
      .help("SentencePiece model to keep in the checkpoints");
}

void declare_learning_options(OptionRegistry& r, LearningOptions& o, int64_t least_steps) {
  r.group("train", "Training");
  r.add("steps", &o.steps)
      .value_name("N")
      .range(least_steps, kMaxSteps)
      .required()
      .help("optimizer steps in all");
  r.add("max-tokens", &o.max_tokens)
      .at_least(0)
      .advanced()
      .default_text("no limit")
      .help("end earlier, after so many input and target tokens");
  r.add("batch", &o.batch).value_name("ROWS").range(1, kMaxRows).help("sequences a step");
  r.add("seed", &o.seed).help("of weights, data order, corruption, dropout and jitter");
  r.add_choice("optimizer", &o.optimizer, {"adafactor", "adamw"}).help("optimizer");
  r.add("schedule", &o.schedule)
      .choices({"rsqrt", "constant", "linear", "cosine"})
      .default_text("rsqrt; adamw: linear")
      .help("learning rate over the steps");
  r.add("lr", &o.lr)
      .above(0)
      .default_text("rsqrt: 1; else adafactor: 0.01, adamw: 0.001")
      .help("learning rate; rsqrt: divided by sqrt(max(step, warmup))");
  r.add("warmup", &o.warmup)
      .at_least(0)
      .unit("steps")
      .default_text("rsqrt: 10000; else a tenth of the steps, at most 1000")
      .help("rsqrt: constant for so many steps; else the rate rises");
  r.add("final-lr", &o.final_lr)
      .range(0, 1)
      .advanced()
      .help("linear, cosine: share of the rate that is left at the end");
  r.add("weight-decay", &o.weight_decay).at_least(0).advanced().help("adamw: decoupled decay");
  r.add("beta1", &o.beta1).at_least(0).below(1).advanced().help("adamw: decay of the mean");
  r.add("beta2", &o.beta2).at_least(0).below(1).advanced().help("adamw: decay of the square");
  r.add("clip-norm", &o.clip_norm)
      .at_least(0)
      .advanced()
      .default_text("off")
      .help("scale gradients down to this global norm");
  r.add("canonical-ranks", &o.canonical_ranks)
      .at_least(0)
      .check("a power of two",
             [](const OptionScalar& v) {
               const auto n = static_cast<uint64_t>(std::get<int64_t>(v));
               return n == 0 || std::has_single_bit(n);
             })
      .default_text("the data ranks at the run's start")
      .help("equal shards a batch is cut into, for the same bits on up to as many ranks");
  r.add("accumulate", &o.accumulate)
      .at_least(1)
      .advanced()
      .help("micro-batches within a shard, to save memory");
  r.add("shard-optimizer", &o.shard_optimizer)
      .advanced()
      .help("each rank keeps the optimizer state of its share of the parameters only")
      .details(
          "Saves memory with several data ranks, at one more broadcast of the weights a step; "
          "the bits are the same.");
  r.add_choice("dtype", &o.dtype, {"auto", "fp32", "bf16"})
      .help("of activations; auto: bf16 where the processor multiplies it");
}

void declare_run_options(OptionRegistry& r, RunOptions& o) {
  r.group("run", "Run");
  r.add("run", &o.run).value_name("DIR").required().help("run folder, created where needed");
  r.add("device", &o.device).value_name("auto|cpu|cuda[:i]").help("where to compute");
  r.add("mesh", &o.mesh)
      .value_name("data=N,expert=N,model=N")
      .default_text("all ranks on data, experts spread over them")
      .help("how the ranks of mpirun share the work")
      .details(
          "data cuts the batch, expert (a divisor of data) spreads the experts, model cuts heads, "
          "d_ff and vocabulary. Axes left out are chosen. Losses and weights are the same to the "
          "last bit on any data and expert sizes, and to rounding on any model size.")
      .check("AXIS=SIZE, separated by commas", [](const OptionScalar& v) {
        parse_mesh_shape(std::get<std::string>(v));
        return true;
      });
  r.add_choice("recompute", &o.recompute, {"none", "layer", "full"})
      .help("what is computed again in the backward pass to save memory");
  r.add("eval-every", &o.eval_every)
      .at_least(0)
      .unit("steps")
      .help("evaluate on --eval-data; 0: at the end only");
  r.add("save-every", &o.save_every)
      .at_least(0)
      .unit("steps")
      .help("commit a checkpoint; 0: at the end only");
  r.add("async-checkpoint", &o.async_checkpoint)
      .help("write periodic checkpoints in the background")
      .details(
          "From a copy in memory, which is all that a step waits for. It takes as much memory "
          "as weights and optimizer state, and one core while it writes.");
  r.add("keep-last", &o.keep_last).at_least(2).help("checkpoints to keep");
  r.add("log-every", &o.log_every)
      .at_least(0)
      .unit("steps")
      .default_text("ten seconds")
      .help("between lines of the log; metrics.jsonl has every step");
  r.add("tensorboard", &o.tensorboard)
      .help("write events for TensorBoard into the run folder")
      .details(
          "Every figure of metrics.jsonl, and every 50 steps histograms of the experts' loads, in "
          "tensorboard/. A start that resumes adds a file of its own. Training never waits "
          "for it.");
  r.add("max-time", &o.max_time)
      .default_text("no limit")
      .help("stop in time with a checkpoint and exit code 75");
  r.add("resume", &o.resume)
      .value_name("auto|never|PATH")
      .help("go on from the run folder, from nothing, or from a checkpoint");
  r.add("peak-gflops", &o.peak_gflops)
      .at_least(0)
      .advanced()
      .scope(Scope::local)
      .default_text("measured at every start, in about half a second")
      .help("peak of all ranks' matrix products, for the share of it; 0: no such share");
  r.add("hang-timeout", &o.hang_timeout)
      .advanced()
      .default_text("60s, or 8 times the longest step")
      .help("end with exit code 82 when nothing goes on for so long; 0: never")
      .details(
          "With several ranks each has a watchdog. A save, and reading the checkpoint at the "
          "start, "
          "may take ten times as long. The message tells what every rank is at; stack-rank-N.txt "
          "in "
          "the run folder where it stands.");
  r.add("check-replicas", &o.check_replicas)
      .at_least(0)
      .unit("steps")
      .advanced()
      .help("compare weights that several ranks hold alike; 0: never")
      .details("A difference ends the run with exit code 81 and names ranks and hosts.");
  r.add_choice("on-spike", &o.on_spike,
               {{"warn", OnSpike::warn},
                {"skip", OnSpike::skip},
                {"rollback", OnSpike::rollback},
                {"stop", OnSpike::stop}})
      .advanced()
      .help("when a loss or gradient is far above what was: go on, skip the step, go back, or end")
      .details(
          "That is a loss six standard deviations above its running mean, or a gradient norm of "
          "ten times its running mean, after the first hundred steps. Steps that are not finite "
          "are skipped in any case. Rollback goes back to the last checkpoint and on behind the "
          "data read since, also after ten skipped steps in a row, twice at most. Stop, and what "
          "rollbacks do not help, end with exit code 80.");
  r.add("allow-changes", &o.allow_changes)
      .advanced()
      .help("resume although options of the training changed (rates, dropout, loss weights)");
}

void LearningOptions::resolve(int64_t data_ranks) {
  const bool adamw = optimizer == "adamw";
  if (!schedule) schedule = adamw ? "linear" : "rsqrt";
  const bool rsqrt = *schedule == "rsqrt";
  if (!lr) lr = rsqrt ? (adamw ? 0.1 : 1.0) : (adamw ? 1e-3 : 1e-2);
  if (!warmup) {
    const bool rises = *schedule != "constant" || adamw;
    warmup = rsqrt ? 10000 : rises ? std::min<int64_t>(1000, steps / 10) : 0;
  }
  if (canonical_ranks == 0) {
    canonical_ranks = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(data_ranks)));
  }
  dtype = compute_dtype_option(compute_dtype(dtype));
}

OptimizerConfig LearningOptions::optimizer_config() const {
  OptimizerConfig config;
  config.kind = optimizer_kind(optimizer);
  config.weight_decay = weight_decay;
  config.beta1 = beta1;
  config.beta2 = beta2;
  config.shard = shard_optimizer;
  return config;
}

Schedule LearningOptions::schedule_config() const {
  Schedule out;
  out.kind = schedule_kind(schedule.value());
  out.rate = lr.value();
  out.warmup = warmup.value();
  out.total_steps = steps;
  out.final_share = final_lr;
  return out;
}

TrainerConfig trainer_config(const LearningOptions& learning, const RunOptions& run) {
  TrainerConfig config;
  config.steps = learning.steps;
  config.max_tokens = learning.max_tokens;
  config.max_seconds = run.max_time.count();
  config.eval_every = run.eval_every;
  config.save_every = run.save_every;
  config.keep_last = run.keep_last;
  config.async_checkpoint = run.async_checkpoint;
  config.tensorboard = run.tensorboard;
  config.check_replicas = run.check_replicas;
  config.on_spike = run.on_spike;
  config.log_every = run.log_every;
  config.schedule = learning.schedule_config();
  config.step.canonical_ranks = learning.canonical_ranks;
  config.step.accumulate = learning.accumulate;
  config.step.recompute = recompute_from(run.recompute);
  config.step.seed = learning.seed;
  config.step.clip_norm = learning.clip_norm;
  return config;
}

bool processor_multiplies_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool amx = (d >> 22 & 1) != 0;
  const unsigned subleaves = a;
  if (amx || subleaves < 1) return amx;
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  return (a >> 5 & 1) != 0;  // AVX512-BF16
}

DType compute_dtype(const std::string& name) {
  if (name == "auto") return processor_multiplies_bf16() ? DType::bf16 : DType::f32;
  if (name == "bf16") return DType::bf16;
  SW_CHECK(name == "fp32", usage, "dtype: unknown choice '{}', expected auto, fp32 or bf16", name);
  return DType::f32;
}

const char* compute_dtype_option(DType dtype) { return dtype == DType::bf16 ? "bf16" : "fp32"; }

Device compute_device(const std::string& name) {
  if (name == "auto" || name == "cpu") return {};
  const std::string digits = name.size() > 5 ? name.substr(5) : "";
  const bool numbered = name.starts_with("cuda:") && !digits.empty() && digits.size() <= 3 &&
                        std::all_of(digits.begin(), digits.end(), ::isdigit);
  SW_CHECK(name == "cuda" || numbered, usage,
           "--device: expected auto, cpu, cuda or cuda:N, got '{}'", name);
  for (const auto& [key, value] : build_info()) {
    if (key == "cuda" && value == "none") {
      fail(ErrorKind::device,
           "--device {}: this build has no CUDA backend; build with -DSW_CUDA=ON where the CUDA "
           "Toolkit is installed, or give --device cpu",
           name);
    }
  }
  return {Device::Kind::cuda, numbered ? std::stoi(digits) : 0};
}

}  // namespace sw
