// sw-bench: the speed of whole training steps on this machine, and where their time goes.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/profile.h"
#include "libswitch/base/rng.h"
#include "libswitch/base/timer.h"
#include "libswitch/data/dataset.h"
#include "libswitch/data/shard_writer.h"
#include "libswitch/kernels/cpu/matmul_peak.h"
#include "libswitch/kernels/cpu/memory_peak.h"
#include "libswitch/nn/model_options.h"
#include "libswitch/tensor/allocator.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/options.h"
#include "libswitch/train/step.h"
#include "tools/tool.h"

namespace sw {
namespace {

struct Options {
  ModelOptions model;
  int64_t batch = 8, steps = 7, warmup = 2;
  std::optional<int64_t> input_length, target_length;
  std::string dtype = "auto", optimizer = "adafactor", recompute = "none";
  int64_t canonical_ranks = 0, accumulate = 1;
  uint64_t seed = 0;
  std::string mesh;
};

ToolDescription description() {
  ToolDescription tool;
  tool.name = "sw-bench";
  tool.summary = "the speed of training steps on this machine, and where their time goes";
  tool.usage = {"--preset P [--batch ROWS] [--input-length S] [--target-length T] [OPTION...]"};
  tool.examples = {"sw-bench --preset mini --experts 0",
                   "sw-bench --preset mini --json | jq .share_of_peak",
                   "mpirun -n 2 sw-bench --preset mini --threads 1"};
  tool.description =
      "Runs whole training steps on random text: span corruption, forward and backward pass, "
      "optimizer. The median step is reported, with a table of its operations by time.\n\n"
      "The share of peak counts the products of a forward pass three times, without recomputation, "
      "against the best that oneDNN's own large products reach in the same process.\n\n"
      "Of every operation the table has what it computes (GFLOP) and moves (MB: every operand "
      "once), which of the two binds it, given that peak and the rate at which memory streams, and "
      "the share of that bound that it reached. Above 100 %, operands were still in a cache.\n\n"
      "Presets narrower than 512 are measured at 256/64 positions and 8192 tokens of vocabulary, "
      "others at 512/114 and 32128, unless told otherwise.";
  tool.prints_results = true;
  tool.memory_hint = "lower --batch, or give --accumulate or --recompute full";
  tool.see_also = {"sw-pretrain(1)", "sw-plan(1)"};
  return tool;
}

void declare(OptionRegistry& registry, Options& o) {
  registry.group("bench", "Measurement");
  registry.add("steps", &o.steps).range(1, 1000000).help("steps measured; the median is reported");
  registry.add("warmup", &o.warmup).range(0, 1000).help("steps before these");
  registry.group("train", "Training");
  registry.add("batch", &o.batch).range(1, 1 << 20).unit("rows").help("rows of a step");
  registry.add("input-length", &o.input_length)
      .range(2, 1 << 20)
      .unit("tokens")
      .default_text("256 or 512, by width")
      .help("positions of the encoder");
  registry.add("target-length", &o.target_length)
      .range(1, 1 << 20)
      .unit("tokens")
      .default_text("64 or 114, by width")
      .help("positions of the decoder");
  registry.add_choice("dtype", &o.dtype, {"auto", "fp32", "bf16"})
      .help("precision of activations and products")
      .details("auto is bf16 where the processor multiplies it (AVX512-BF16 or AMX), else fp32.");
  registry.add_choice("recompute", &o.recompute, {"none", "layer", "full"})
      .help("compute activations again instead of keeping them");
  registry.add_choice("optimizer", &o.optimizer, {"adafactor", "adamw"}).help("update rule");
  registry.add("canonical-ranks", &o.canonical_ranks)
      .range(0, 1 << 20)
      .advanced()
      .default_text("the data ranks")
      .help("shards whose gradients are summed in one tree; a power of two");
  registry.add("mesh", &o.mesh)
      .value_name("data=N,expert=N,model=N")
      .default_text("all ranks on data, experts spread over them")
      .help("how the ranks of mpirun share the work");
  registry.add("accumulate", &o.accumulate)
      .range(1, 1 << 20)
      .advanced()
      .help("micro-batches of a shard");
  registry.add("seed", &o.seed).advanced().help("of weights, text and noise");
  declare_model_options(registry, o.model);
}

struct Plan {
  ModelConfig model;
  StepConfig step;
  MeshShape mesh;
  DType compute = DType::f32;
  int64_t rows = 0, input_length = 0, target_length = 0;
  double flops = 0;  // of a step: three forward passes
};

Plan make_plan(const Options& o, int64_t ranks) {
  SW_CHECK(!o.model.preset.empty(), usage, "no model; give --preset, mini for example");
  Plan plan;
  plan.model = o.model.resolve();
  const bool narrow = plan.model.d_model < 512;
  if (plan.model.vocab_size == 0) plan.model.vocab_size = narrow ? 8192 : 32128;
  plan.model.validate();
  SW_CHECK(plan.model.vocab_size >= 256, usage,
           "vocab size: {}, expected at least 256 (100 are sentinels)", plan.model.vocab_size);
  plan.rows = o.batch;
  plan.input_length = o.input_length.value_or(narrow ? 256 : 512);
  plan.target_length = o.target_length.value_or(narrow ? 64 : 114);
  plan.compute = compute_dtype(o.dtype);
  plan.mesh = resolve_mesh_shape(parse_mesh_shape(o.mesh), ranks, plan.model.experts);
  plan.step.canonical_ranks =
      o.canonical_ranks > 0
          ? o.canonical_ranks
          : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(plan.mesh.data)));
  plan.step.accumulate = o.accumulate;
  plan.step.recompute = recompute_from(o.recompute);
  plan.step.seed = o.seed;
  plan.step.check_rows(plan.rows, plan.mesh.data);
  plan.flops = 3 * forward_flops(plan.model, plan.input_length, plan.target_length) *
               static_cast<double>(plan.rows);
  // Weights and gradients in f32 are the least that a step needs.
  const double least = 8.0 * static_cast<double>(count_parameters(plan.model).total);
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  SW_CHECK(least < memory, usage,
           "preset {}: weights and gradients alone take {:.1f} GB and this machine has {:.1f} GB; "
           "take a smaller model or fewer --experts",
           o.model.preset, least * 1e-9, memory * 1e-9);
  return plan;
}

// A shard of random tokens under the temporary folder, gone with this object.
class RandomText {
 public:
  RandomText(int64_t vocab_size, int64_t tokens, uint64_t seed) {
    std::string name = (std::filesystem::temp_directory_path() / "sw-bench-XXXXXX").string();
    SW_CHECK(mkdtemp(name.data()) != nullptr, cannot_create, "{}: cannot be created", name);
    folder_ = name;
    ShardHeader header;
    header.vocab_size = static_cast<uint32_t>(vocab_size);
    header.token_bytes = vocab_size <= 65536 ? 2 : 4;
    header.json = "{}";
    AtomicFile file(path());
    ShardWriter writer(
        [&](const void* data, size_t n) { write_all(file.fd(), data, n, path().string()); },
        std::move(header));
    RngStream rng(rng_key(seed, RngPurpose::test));
    const auto pieces = static_cast<uint64_t>(vocab_size - 100 - 3);
    std::vector<int32_t> document(static_cast<size_t>(tokens));
    for (int32_t& token : document) token = static_cast<int32_t>(3 + rng.below(pieces));
    writer.append(document);
    writer.finish();
    file.commit();
  }
  ~RandomText() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  RandomText(const RandomText&) = delete;
  RandomText& operator=(const RandomText&) = delete;
  std::filesystem::path path() const { return folder_ / "random.swt"; }

 private:
  std::filesystem::path folder_;
};

struct MeasuredStep {
  double seconds = 0;
  double comm_seconds = 0;  // in collectives, waiting included
  CommVolume sent;
  Profile profile;
};

struct Result {
  MeasuredStep median;
  double fastest = 0, slowest = 0;  // seconds
  double peak_flops = 0;            // a second
  double memory_rate = 0;           // bytes a second
  int64_t resident_bytes = 0, tensor_bytes = 0;
};

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

// What `rate` measures, in billions a second, of all ranks together.
template <class Rate>
double measure_of_all(World& world, const Rate& rate) {
  world.group().barrier();
  Tensor sum = Tensor::from({1}, std::vector<double>{1e9 * rate()});
  world.group().all_reduce(sum);
  return sum.data<double>()[0];
}

// The least time that an operation can take on this machine.
struct Bound {
  double seconds = 0;
  const char* name = nullptr;  // "flops" or "bytes"; null where neither is known
};

// Operations are those of one rank, peaks those of all.
Bound bound_of(const ProfileEntry& op, const Result& result, int64_t ranks) {
  const auto share = static_cast<double>(ranks);
  const double by_flops = share * op.flops / result.peak_flops;
  const double by_bytes = share * op.bytes / result.memory_rate;
  if (by_flops <= 0 && by_bytes <= 0) return {};
  if (by_flops >= by_bytes) return {by_flops, "flops"};
  return {by_bytes, "bytes"};
}

// Sent by this rank so far.
CommVolume volume(const Mesh& mesh) {
  CommVolume sum;
  for (const Group* group : {&mesh.data(), &mesh.expert(), &mesh.replica(), &mesh.model()}) {
    sum += group->volume();
  }
  return sum;
}

Result measure(World& world, const Plan& plan, const Options& o) {
  DatasetOptions data;
  data.input_length = plan.input_length;
  data.target_length = plan.target_length;
  data.seed = o.seed;
  const int64_t window = window_lengths(plan.input_length).tokens;
  const RandomText text(plan.model.vocab_size, std::max<int64_t>(100 * window, 1 << 18), o.seed);
  const Dataset dataset({{text.path(), 1.0}}, data);

  const auto matmul_peak = [&] { return kernels::cpu::measure_matmul_peak(plan.compute); };
  Result result;
  result.peak_flops = measure_of_all(world, matmul_peak);
  const Mesh mesh(world, plan.mesh);
  const MeshPart part = mesh.data_part();
  Model model(plan.model, plan.compute, {}, mesh);
  model.initialize(o.seed);
  OptimizerConfig optimizer_config;
  optimizer_config.kind = optimizer_kind(o.optimizer);
  const auto optimizer = make_optimizer(optimizer_config, model);

  Batch batch;
  std::vector<MeasuredStep> steps;
  for (int64_t step = 0; step < o.warmup + o.steps; ++step) {
    MeasuredStep measured;
    world.group().barrier();
    const CommVolume before = volume(mesh);
    const double comm_before = world.trace().seconds();
    {
      const ProfileRecording recording(measured.profile);
      const Timer timer;
      {
        const ProfileRegion region("span corruption");
        dataset.fill(static_cast<uint64_t>(step * plan.rows + part.begin(plan.rows)),
                     part.count(plan.rows), batch);
      }
      TokenRows rows;
      rows.rows = batch.rows;
      rows.input_length = batch.input_length, rows.target_length = batch.target_length;
      rows.inputs = batch.inputs, rows.targets = batch.targets;
      const StepResult done = training_step(model, *optimizer, rows, step, 1e-3, plan.step);
      measured.seconds = timer.seconds();
      SW_CHECK(done.finite, diverged, "step {}: {}", step, done.fault);
    }
    const CommVolume after = volume(mesh);
    measured.sent = {after.messages - before.messages, after.bytes - before.bytes};
    measured.comm_seconds = world.trace().seconds() - comm_before;
    log::debug("step {}: {:.3f} s", step, measured.seconds);
    if (step >= o.warmup) steps.push_back(std::move(measured));
  }
  std::sort(steps.begin(), steps.end(),
            [](const MeasuredStep& a, const MeasuredStep& b) { return a.seconds < b.seconds; });
  result.fastest = steps.front().seconds;
  result.slowest = steps.back().seconds;
  result.median = std::move(steps[(steps.size() - 1) / 2]);
  result.resident_bytes = peak_resident_bytes();
  result.tensor_bytes = allocator_stats().peak_bytes;
  // Other work on the machine and its clock change in the meantime: the better figure is the peak.
  result.peak_flops = std::max(result.peak_flops, measure_of_all(world, matmul_peak));
  result.memory_rate = measure_of_all(world, [] { return kernels::cpu::measure_memory_rate(); });
  return result;
}

double per_second(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

std::string json_text(const Options& o, const Plan& plan, const Result& result) {
  const double seconds = result.median.seconds;
  const auto positions = static_cast<double>(plan.rows * (plan.input_length + plan.target_length));
  const double rate = plan.flops / seconds;
  nlohmann::ordered_json json = {{"preset", o.model.preset},
                                 {"experts", plan.model.experts},
                                 {"parameters", count_parameters(plan.model).total},
                                 {"dtype", compute_dtype_option(plan.compute)},
                                 {"device", "cpu"},
                                 {"threads", num_threads()},
                                 {"ranks", plan.mesh.ranks()},
                                 {"mesh", plan.mesh.str()},
                                 {"batch", plan.rows},
                                 {"input_length", plan.input_length},
                                 {"target_length", plan.target_length},
                                 {"vocab_size", plan.model.vocab_size},
                                 {"recompute", o.recompute},
                                 {"steps", o.steps},
                                 {"step_seconds", seconds},
                                 {"step_seconds_fastest", result.fastest},
                                 {"step_seconds_slowest", result.slowest},
                                 {"tokens_per_second", positions / seconds},
                                 {"gflops", rate * 1e-9},
                                 {"peak_gflops", result.peak_flops * 1e-9},
                                 {"share_of_peak", rate / result.peak_flops},
                                 {"memory_gigabytes_per_second", result.memory_rate * 1e-9},
                                 {"comm_share", result.median.comm_seconds / seconds},
                                 {"comm_messages", result.median.sent.messages},
                                 {"comm_bytes", result.median.sent.bytes},
                                 {"peak_memory_bytes", result.resident_bytes},
                                 {"peak_tensor_bytes", result.tensor_bytes}};
  auto ops = nlohmann::ordered_json::array();
  double bounds = 0;
  for (const ProfileEntry& op : result.median.profile.entries()) {
    const Bound bound = bound_of(op, result, plan.mesh.ranks());
    bounds += bound.seconds;
    nlohmann::ordered_json entry = {
        {"name", op.name},
        {"seconds", op.seconds},
        {"gflops", per_second(op.flops, op.seconds) * 1e-9},
        {"calls", op.calls},
        {"share_of_step", op.seconds / seconds},
        {"share_of_peak", per_second(op.flops, op.seconds) / result.peak_flops},
        {"gigabytes_per_second", per_second(op.bytes, op.seconds) * 1e-9},
        {"flops", op.flops},
        {"bytes", op.bytes},
        {"bound", nullptr},
        {"share_of_bound", nullptr}};
    if (bound.name != nullptr) {
      entry["bound"] = bound.name;
      entry["share_of_bound"] = per_second(bound.seconds, op.seconds);
    }
    ops.push_back(std::move(entry));
  }
  json["share_of_bounds"] = bounds / seconds;
  json["ops"] = ops;
  json["unaccounted_seconds"] = seconds - result.median.profile.seconds();
  return json.dump() + "\n";
}

std::string table_text(const Options& o, const Plan& plan, const Result& result) {
  const double seconds = result.median.seconds;
  const auto positions = static_cast<double>(plan.rows * (plan.input_length + plan.target_length));
  double bounds = 0;
  for (const ProfileEntry& op : result.median.profile.entries()) {
    bounds += bound_of(op, result, plan.mesh.ranks()).seconds;
  }
  std::string out = fmt::format(
      "{}, {} experts, {:.1f} M parameters | {} x {}/{} positions\n"
      "{} on cpu, {} threads | {:.1f} GFLOP/s, {:.1f} % of the peak of {:.1f}\n"
      "step {:.1f} ms, median of {} ({:.1f} to {:.1f}) | {:.0f} tokens/s\n"
      "peak memory {:.2f} GB resident, {:.2f} GB in tensors | memory streams {:.1f} GB/s\n"
      "the bounds of all operations add up to {:.1f} % of the step\n",
      o.model.preset, plan.model.experts,
      static_cast<double>(count_parameters(plan.model).total) * 1e-6, plan.rows, plan.input_length,
      plan.target_length, compute_dtype_option(plan.compute), num_threads(),
      plan.flops / seconds * 1e-9, 100 * plan.flops / seconds / result.peak_flops,
      result.peak_flops * 1e-9, seconds * 1e3, o.steps, result.fastest * 1e3, result.slowest * 1e3,
      positions / seconds, static_cast<double>(result.resident_bytes) * 1e-9,
      static_cast<double>(result.tensor_bytes) * 1e-9, result.memory_rate * 1e-9,
      100 * bounds / seconds);
  if (plan.mesh.ranks() > 1) {
    out += fmt::format(
        "{} ranks on mesh {} | rank 0: {:.1f} % of a step in collectives, {} messages, {:.2f} MB\n",
        plan.mesh.ranks(), plan.mesh.str(), 100 * result.median.comm_seconds / seconds,
        result.median.sent.messages, static_cast<double>(result.median.sent.bytes) * 1e-6);
  }
  out += fmt::format("\n{:<31}{:>5}{:>9}{:>7}{:>8}{:>8}{:>6}{:>6}\n", "operation", "calls", "ms",
                     "step %", "GFLOP", "MB", "bound", "% of");
  const auto amount = [](double value) {
    return value > 0 ? fmt::format("{:.2f}", value) : std::string("-");
  };
  for (const ProfileEntry& op : result.median.profile.entries()) {
    const Bound bound = bound_of(op, result, plan.mesh.ranks());
    out += fmt::format("{:<31}{:>5}{:>9.2f}{:>7.1f}{:>8}{:>8}{:>6}{:>6}\n", op.name, op.calls,
                       op.seconds * 1e3, 100 * op.seconds / seconds, amount(op.flops * 1e-9),
                       amount(op.bytes * 1e-6), bound.name == nullptr ? "-" : bound.name,
                       bound.name == nullptr
                           ? "-"
                           : fmt::format("{:.1f}", 100 * per_second(bound.seconds, op.seconds)));
  }
  const double rest = seconds - result.median.profile.seconds();
  out += fmt::format("{:<36}{:>9.2f}{:>7.1f}\n", "unaccounted", rest * 1e3, 100 * rest / seconds);
  return out;
}

int bench(const Options& options, ToolRun& run) {
  World& world = join_world(run);
  const Plan plan = make_plan(options, world.size());
  if (run.common.dry_run) {
    log::info("{} parameters, {:.1f} GFLOP a step", count_parameters(plan.model).total,
              plan.flops * 1e-9);
    return 0;
  }
  const Result result = measure(world, plan, options);
  if (world.rank() != 0) return 0;
  write_stdout(run.common.json ? json_text(options, plan, result)
                               : table_text(options, plan, result));
  return 0;
}

}  // namespace
}  // namespace sw

int main(int argc, char** argv) {
  return sw::run_tool<sw::Options>(argc, argv, sw::description(), sw::declare, sw::bench);
}
