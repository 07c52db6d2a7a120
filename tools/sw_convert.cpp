// sw-convert: a Hugging Face folder to a checkpoint, and back.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/log.h"
#include "libswitch/base/timer.h"
#include "libswitch/base/version.h"
#include "libswitch/convert/conversion.h"
#include "libswitch/convert/target.h"
#include "libswitch/train/progress_line.h"
#include "tools/tool.h"

namespace {

namespace fs = std::filesystem;

struct Options {
  bool check = false, force = false;
  int64_t max_shard_size = 5'000'000'000;
};

sw::ToolDescription describe() {
  sw::ToolDescription tool;
  tool.name = "sw-convert";
  tool.summary = "Hugging Face folders (Switch, T5) to checkpoints and back";
  tool.usage = {"FOLDER MODEL.h5 [--check]", "CHECKPOINT FOLDER [--check]"};
  tool.examples = {"sw-convert switch-base-8 switch-base-8.h5 --check",
                   "sw-convert runs/a my-switch --max-shard-size 1G",
                   "sw-convert switch-base-8 - | sw-eval - --data heldout.swt"};
  tool.description =
      "FOLDER is a model of Hugging Face transformers: config.json, weights in safetensors or "
      "PyTorch's own files, one or many with an index, and spiece.model. A CHECKPOINT is a .h5 "
      "file, a run folder (its newest) or - for stdin; - as the target is a checkpoint on "
      "stdout.\n\n"
      "The model's structure is read off the names and shapes of its tensors; each disagreement "
      "with config.json is reported as a warning. Every tensor keeps its dtype, but for float16, "
      "which becomes float32. Tensors pass one by one, so memory does not grow with the model. "
      "Folders are written as safetensors; nothing bears the target's name before all of it is "
      "written.\n\n"
      "--check converts back in memory and compares every bit with the source; a difference is "
      "exit code 1.\n\n"
      "A converted model follows the conventions of transformers 4.52 to 4.57 (--conventions hf).";
  tool.positional_name = "FROM TO";
  tool.min_positionals = 2;
  tool.max_positionals = 2;
  tool.prints_results = true;
  tool.exit_notes = {{1, "--check found a difference"}};
  tool.see_also = {"sw-eval(1)", "sw-inspect-router(1)", "switch-checkpoint(5)"};
  return tool;
}

void declare(sw::OptionRegistry& r, Options& o) {
  r.group("convert", "Conversion");
  r.add("check", &o.check).help("convert back and compare every bit");
  r.add("force", &o.force)
      .help("replace what lies at TO")
      .details(
          "A folder is replaced only if it is empty or holds a config.json, and not the source.");
  r.add("max-shard-size", &o.max_shard_size)
      .at_least(1)
      .unit("bytes")
      .help("most bytes of weights in a file of a folder");
}

// A checkpoint on its way to stdout, which HDF5 cannot write to.
class Spool {
 public:
  Spool() {
    const char* parent = std::getenv("TMPDIR");
    std::string name =
        std::string(parent != nullptr && *parent != '\0' ? parent : "/tmp") + "/sw-convert-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) {
      sw::fail(sw::ErrorKind::cannot_create, "{}: cannot create: {}; TMPDIR names another folder",
               name, std::strerror(errno));
    }
    folder_ = name;
  }
  ~Spool() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;
  fs::path file() const { return folder_ / "model.h5"; }
  // The file has no name any more when its bytes go out, so that nothing stays behind whatever
  // ends the tool: the other end of the pipe above all.
  void send() const {
    const sw::FileDescriptor fd = sw::open_for_read(file());
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
    std::string buffer(size_t{1} << 20, '\0');
    for (;;) {
      const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      SW_CHECK(n >= 0, io, "{}: read failed: {}", file().string(), std::strerror(errno));
      if (n == 0) return;
      sw::write_stdout({buffer.data(), static_cast<size_t>(n)});
    }
  }

 private:
  fs::path folder_;
};

// A signal that asks the tool to end: what was begun is then removed, which for a large model is
// worth the wait until the next tensor. A second one ends it at once.
volatile std::sig_atomic_t received = 0;
struct Interrupted {};

void catch_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action.sa_handler = [](int which) { received = which; };
    action.sa_flags = SA_RESTART | SA_RESETHAND;
    ::sigaction(number, &action, nullptr);
  }
}

// From here on nothing has to be removed, and a signal ends the tool at once: also while it waits
// for a reader.
void release_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    std::signal(number, SIG_DFL);
  }
  if (received != 0) throw Interrupted();
}

std::string size_text(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 1e9 ? fmt::format("{:.1f} MB", 1e-6 * value)
                     : fmt::format("{:.1f} GB", 1e-9 * value);
}

class Progress {
 public:
  explicit Progress(sw::ProgressMode mode) : mode_(mode), line_(mode == sw::ProgressMode::bar) {}
  void show(const char* what, int64_t done, int64_t total) {
    const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
    const std::string text = fmt::format("{} {} of {}", what, size_text(done), size_text(total));
    line_.draw(share, text);
    if (mode_ != sw::ProgressMode::plain || since_.seconds() < 10) return;
    sw::log::info("{} ({:.0f} %)", text, 100 * share);
    since_ = sw::Timer();
  }
  void clear() { line_.clear(); }

 private:
  sw::ProgressMode mode_;
  sw::ProgressLine line_;
  sw::Timer since_;
};

bool is_model_folder(const std::string& from) {
  std::error_code error;
  if (from == "-" || !fs::is_directory(from, error)) return false;
  if (fs::exists(fs::path(from) / "config.json", error)) return true;
  for (const char* weights : {"model.safetensors", "model.safetensors.index.json",
                              "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    SW_CHECK(!fs::exists(fs::path(from) / weights, error), missing,
             "{}: {} without a config.json, which says what model it is", from, weights);
  }
  return false;
}

// FROM is neither a folder of a model nor, it seems, a checkpoint: says what was expected of
// whoever wants the checkpoint TO.
void check_source(const std::string& from, const std::string& to) {
  std::error_code error;
  const fs::path path(from);
  SW_CHECK(!from.empty(), usage, "FROM is empty; give a folder of Hugging Face or a checkpoint");
  SW_CHECK(from == "-" || fs::exists(path, error), missing, "{}: cannot open: {}", from,
           std::strerror(ENOENT));
  const std::string suffix = path.extension().string();
  SW_CHECK(fs::is_directory(path, error) ||
               (suffix != ".safetensors" && suffix != ".bin" && suffix != ".json"),
           usage, "{}: a file of a model; give the folder that holds it, with its config.json",
           from);
  if (to != "-" && fs::path(to).extension() != ".h5") return;
  // A run folder has a newest checkpoint.
  SW_CHECK(!fs::is_directory(path, error) || fs::exists(path / "latest", error) ||
               fs::exists(path / "checkpoints", error),
           missing,
           "{}: no config.json in this folder; expected a folder of Hugging Face: config.json, "
           "weights, spiece.model",
           from);
}

void check_target(bool imports, const std::string& from, const std::string& to, bool replace) {
  const bool checkpoint = to == "-" || fs::path(to).extension() == ".h5";
  if (imports) {
    SW_CHECK(
        checkpoint, usage,
        "{}: {} is a folder of Hugging Face, so TO is a checkpoint; give a name that ends with "
        ".h5, or - for stdout",
        to, from);
    if (to == "-") {
      sw::require_not_terminal(STDOUT_FILENO, "a checkpoint", "redirect it or name a .h5 file");
    }
    return;
  }
  SW_CHECK(to != "-", usage, "-: a folder cannot go to stdout; name one");
  SW_CHECK(!checkpoint, usage,
           "{}: {} is no folder of Hugging Face (no config.json), so TO is one; give a folder's "
           "name",
           to, from);
  // The shell may have opened a file that lies in TO.
  std::error_code error;
  if (from == "-") {
    sw::check_folder_target(to, replace, fs::read_symlink("/proc/self/fd/0", error));
  }
}

int convert(const Options& options, sw::ToolRun& tool) {
  const std::string& from = tool.arguments.at(0);
  const std::string& to = tool.arguments.at(1);
  // Nothing here is spread over ranks; the first does it.
  if (sw::launcher_rank() != 0) return 0;
  const bool imports = is_model_folder(from);
  if (!imports) check_source(from, to);
  check_target(imports, from, to, options.force);
  SW_CHECK(!tool.common.json || to != "-", usage,
           "--json: stdout is the checkpoint's when TO is -; name a .h5 file");
  Progress progress(tool.progress());
  const char* stage = "converted";
  sw::ConversionOptions conversion;
  conversion.max_shard_bytes = options.max_shard_size;
  conversion.replace = options.force;
  conversion.dry_run = tool.common.dry_run;
  conversion.argv = {tool.tool.name, from, to};
  conversion.tool = fmt::format("{} {}", tool.tool.name, sw::version());
  conversion.progress = [&](int64_t done, int64_t total) {
    if (received != 0) throw Interrupted();
    progress.show(stage, done, total);
  };

  std::optional<Spool> spool;
  std::optional<sw::CheckpointReader> reader;
  fs::path file = to;
  sw::ConversionReport report;
  if (!imports) reader = sw::open_checkpoint(from);
  catch_signals();
  if (imports) {
    if (to == "-") file = spool.emplace().file();
    report = sw::convert_from_hugging_face(from, file, conversion);
  } else {
    report = sw::convert_to_hugging_face(*reader, to, conversion);
  }
  progress.clear();
  for (const std::string& note : report.notes) sw::log::warn("{}", note);
  sw::log::info("{} tensors, {}{}", report.tensors, size_text(report.bytes),
                report.files > 1 ? fmt::format(", {} files", report.files) : "");
  if (tool.common.dry_run) return 0;

  std::vector<std::string> differences;
  if (options.check) {
    stage = "compared";
    if (imports) reader.emplace(file);
    differences = sw::compare_conversion(imports ? from : to, *reader, !imports, conversion);
    progress.clear();
    for (const std::string& difference : differences) sw::log::error("{}", difference);
    if (differences.empty()) sw::log::info("converted back: every tensor is the source's");
  }
  const bool equal = differences.empty();
  if (spool) {
    if (!equal) return 1;
    release_signals();
    spool->send();
  } else if (tool.common.json) {
    nlohmann::ordered_json out = {{"from", from},
                                  {"to", to},
                                  {"tensors", report.tensors},
                                  {"bytes", report.bytes},
                                  {"files", report.files}};
    if (imports) out["digest"] = report.digest;
    out["notes"] = report.notes;
    if (options.check) out["differences"] = differences;
    using Json = nlohmann::ordered_json;
    sw::write_stdout(out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  } else if (equal) {
    sw::write_stdout(to + "\n");
  }
  return equal ? 0 : 1;
}

int run(const Options& options, sw::ToolRun& tool) {
  try {
    return convert(options, tool);
  } catch (const Interrupted&) {
    const int number = received;
    std::signal(number, SIG_DFL);
    std::raise(number);
    return 128 + number;
  }
}

}  // namespace

int main(int argc, char** argv) {
  return sw::run_tool<Options>(argc, argv, describe(), declare, run);
}
