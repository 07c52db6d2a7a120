#include "libswitch/train/resume.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "libswitch/base/error.h"
#include "libswitch/base/log.h"
#include "libswitch/io/checkpoint_folder.h"

namespace sw {
namespace {

// Where and for how long a run runs, what it reports: no bit of the weights depends on these. (Data
// are compared by their manifest and teachers by their digest, not by their names.)
const std::set<std::string_view> kFree = {"allow_changes",  "async_checkpoint",
                                          "baseline",       "best",
                                          "check_replicas", "data",
                                          "device",         "eval_capacity_factor",
                                          "eval_data",      "eval_every",
                                          "eval_task",      "eval_tokens",
                                          "from",           "hang_timeout",
                                          "keep_last",      "log_every",
                                          "max_time",       "max_tokens",
                                          "mesh",           "on_spike",
                                          "preset",         "recompute",
                                          "resume",         "run",
                                          "save_every",     "shard_optimizer",
                                          "steps",          "student",
                                          "task",           "teacher",
                                          "teacher_top_k",  "tensorboard",
                                          "vocab",          "write_teacher_logits"};

// A run may be steered by these on purpose.
const std::set<std::string_view> kSteering = {"aux_loss",
                                              "beta1",
                                              "beta2",
                                              "canonical_ranks",
                                              "capacity_factor",
                                              "clip_norm",
                                              "dropout",
                                              "expert_dropout",
                                              "final_lr",
                                              "input_dropout",
                                              "jitter",
                                              "label_smoothing",
                                              "lr",
                                              "min_capacity",
                                              "output_z_loss",
                                              "schedule",
                                              "warmup",
                                              "weight_decay",
                                              "z_loss"};

// At its default such an option stands for "whatever it was".
const std::set<std::string_view> kAutomatic = {"canonical_ranks", "dtype", "target_length",
                                               "vocab_size"};

constexpr const char* kNothing = "nothing";

std::string text_of(const Option& option) {
  std::string text;
  for (const OptionScalar& value : option.values()) {
    text += (text.empty() ? "" : ", ") + option.to_text(value);
  }
  return text.empty() ? kNothing : text;
}

}  // namespace

std::optional<std::filesystem::path> resume_point(const RunDirectory& run,
                                                  const std::string& choice) {
  const auto own = run.newest_checkpoint();
  if (choice == "auto") return own;
  if (choice == "never") {
    SW_CHECK(!own, usage,
             "--resume never: run folder {} holds checkpoints already ({}); give another --run, or "
             "remove them",
             run.path().string(), own->filename().string());
    return std::nullopt;
  }
  SW_CHECK(std::filesystem::exists(choice), missing,
           "--resume {}: there is no such checkpoint; expected auto, never, or a .h5 file or run "
           "folder",
           choice);
  const std::filesystem::path given = resolve_checkpoint(choice);
  if (!own) return given;
  std::error_code error;
  const bool inside = std::filesystem::equivalent(given.parent_path(), own->parent_path(), error);
  if (inside && !error) {
    SW_CHECK(
        std::filesystem::equivalent(given, *own, error), usage,
        "--resume {}: the run has gone on to {} since; give another --run to branch off there, "
        "or remove the later checkpoints",
        choice, own->string());
  } else {
    log::info("--resume {}: the run has checkpoints of its own and goes on from those", choice);
  }
  return own;
}

void adopt_options(OptionRegistry& registry, const CheckpointReader& reader,
                   const std::function<void(OptionRegistry&)>& declare, bool allow_changes) {
  const std::string file = reader.path().string();
  const std::string name = file + ": /meta/config.toml";
  const std::string& toml = reader.meta().config_toml;
  OptionRegistry then;
  declare(then);
  then.apply_toml(toml, name, Source::file, UnknownKeys::ignore);

  for (const auto& option : registry.options()) {
    const std::string& key = option->key();
    const Option* before = then.find(key);
    const bool given = option->origin().source != Source::fallback;
    if (option->scope() != Scope::resolved || before == nullptr || !given) continue;
    const std::string now = text_of(*option), was = text_of(*before);
    if (now == was) continue;
    if (kAutomatic.contains(key) && (now == "0" || now == "auto")) {
      // Set to its automatic value by hand: the run's value stands.
      option->assign(before->values(), Source::flag, before->origin().where);
      continue;
    }
    if (key == "steps") log::info("--steps {} (the run was started with {})", now, was);
    if (key == "from" || key == "student") {
      log::warn("--{} {} is not read: the run began with {} and goes on from its own checkpoint",
                option->name(), now, was);
    }
    if (kFree.contains(key)) continue;
    const std::string remedy = was == kNothing ? "leave it out" : "give " + was;
    SW_CHECK(kSteering.contains(key), usage,
             "{}: {} is {}, but {} was trained with {}; {}, or start another run with --run",
             option->origin().where, option->name(), now, file, was, remedy);
    SW_CHECK(allow_changes, usage,
             "{}: {} is {}, but {} was trained with {}; {}, or add --allow-changes to go on with "
             "the change",
             option->origin().where, option->name(), now, file, was, remedy);
    log::warn("{} changes from {} to {}", option->name(), was, now);
  }
  // What nobody set here is as it was.
  for (const auto& option : registry.options()) {
    const Option* before = then.find(option->key());
    const bool given = option->origin().source != Source::fallback;
    if (option->scope() != Scope::resolved || before == nullptr || given) continue;
    if (before->origin().source == Source::fallback) continue;
    option->assign(before->values(), Source::preset, before->origin().where);
  }
}

}  // namespace sw
