#include "libswitch/convert/conversion.h"

#include <ctime>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/base/folder.h"
#include "libswitch/convert/export_plan.h"
#include "libswitch/convert/folder_writer.h"
#include "libswitch/convert/import_plan.h"
#include "libswitch/convert/model_files.h"
#include "libswitch/convert/target.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/weights_folder.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm tm{};
  gmtime_r(&now, &tm);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return text;
}

HuggingFaceConfig read_config(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  return read_hugging_face_config(read_json_file(file), file.string());
}

// The dtype that most weights have.
DType prevailing_dtype(const std::vector<TensorEntry>& entries) {
  std::map<DType, int64_t> bytes;
  for (const TensorEntry& entry : entries) {
    if (entry.path.starts_with("/model/")) bytes[entry.dtype] += entry.bytes();
  }
  DType best = DType::f32;
  for (const auto& [dtype, count] : bytes) {
    if (count > bytes[best]) best = dtype;
  }
  return best;
}

CheckpointMeta make_meta(const ImportPlan& plan, const ConversionOptions& options) {
  CheckpointMeta meta;
  const ParameterCount count = count_parameters(plan.model());
  meta.params_total = count.total;
  meta.params_active = count.active;
  meta.tool_version = options.tool;
  meta.created_utc = utc_now();
  meta.optimizer = "none";
  meta.config_toml = model_config_to_toml(plan.model());
  meta.argv = options.argv;
  meta.attributes["compute_dtype"] =
      std::string(prevailing_dtype(plan.entries()) == DType::bf16 ? "bf16" : "fp32");
  return meta;
}

// Family and configuration of what a checkpoint becomes.
struct ExportTarget {
  ModelConfig model;
  HfFamily family;
  nlohmann::json original;
};
ExportTarget export_target(const CheckpointReader& reader) {
  ExportTarget target;
  target.model = model_config_from_toml(reader.meta().config_toml,
                                        reader.path().string() + ": /meta/config.toml");
  target.original = original_config(reader.meta());
  const nlohmann::json type =
      target.original.is_object() ? target.original.value("model_type", nlohmann::json()) : nullptr;
  const bool was_switch = type == "switch_transformers";
  target.family =
      target.model.experts > 0 || was_switch ? HfFamily::switch_transformers : HfFamily::t5;
  SW_CHECK(target.model.experts == 0 || target.model.router != "top2", usage,
           "{}: its router is top2; Hugging Face's Switch Transformer has one expert a token",
           reader.path().string());
  return target;
}

std::vector<std::string> export_notes(const ModelConfig& model) {
  std::vector<std::string> notes;
  if (model.experts == 0) return notes;
  if (is_gated(model.activation)) {
    notes.push_back("gated experts: transformers has no class that loads them");
  }
  if (model.conventions.capacity != CapacityRule::constant) {
    notes.push_back(
        "expert_capacity is written so large that transformers drops no token: it has no capacity "
        "that follows the number of tokens");
  }
  if (model.router == "ntlb") {
    notes.push_back("the router's no-token-left-behind rounds have no place in transformers");
  }
  return notes;
}

class Progress {
 public:
  Progress(const ConversionOptions& options, int64_t total) : options_(options), total_(total) {}
  void add(int64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
  }

 private:
  const ConversionOptions& options_;
  int64_t total_, done_ = 0;
};

}  // namespace

ConversionReport convert_from_hugging_face(const fs::path& folder, const fs::path& file,
                                           const ConversionOptions& options) {
  check_folder(folder);
  check_file_target(file, options.replace);
  const HuggingFaceConfig config = read_config(folder);
  const auto archive = open_weights(folder);
  const ImportPlan plan(*archive, config, (folder / "config.json").string());
  ConversionReport report;
  report.notes = plan.notes();
  CheckpointMeta meta = make_meta(plan, options);
  take_model_files(folder, plan.model().vocab_size, meta, report.notes);
  // Without a vocabulary, none is held against the data's.
  if (meta.tokenizer.empty()) meta.attributes["vocab_sha256"] = std::string();

  report.tensors = static_cast<int64_t>(archive->tensors().size());
  report.bytes = plan.bytes();
  if (options.dry_run) return report;
  CheckpointWriter writer(file, plan.entries(), meta, Telemetry());
  Progress progress(options, plan.bytes());
  for (size_t i = 0; i < plan.entries().size(); ++i) {
    const TensorEntry& entry = plan.entries()[i];
    plan.stream(i, [&](int64_t begin, int64_t end, const void* data) {
      Rectangle box = whole_of(entry.shape);
      if (entry.shape.rank() > 0) box.start[0] = begin, box.count[0] = end - begin;
      writer.write_rectangle(entry.path, box, data);
      progress.add(entry.bytes() / std::max<int64_t>(1, entry.shape[0]) * (end - begin));
    });
  }
  report.digest = writer.finish().digest;
  return report;
}

ConversionReport convert_to_hugging_face(const CheckpointReader& reader, const fs::path& folder,
                                         const ConversionOptions& options) {
  check_folder_target(folder, options.replace, reader.path());
  const ExportTarget target = export_target(reader);
  const ExportPlan plan(reader, target.model, target.family);
  const DType dtype = prevailing_dtype(reader.entries());
  const nlohmann::json config =
      write_hugging_face_config(target.model, target.family, target.original,
                                dtype == DType::bf16  ? "bfloat16"
                                : dtype == DType::f64 ? "float64"
                                                      : "float32");
  ConversionReport report;
  report.notes = export_notes(target.model);
  if (reader.meta().tokenizer.empty()) {
    report.notes.push_back("the checkpoint holds no vocabulary: the folder has no tokenizer");
  }
  report.tensors = static_cast<int64_t>(plan.tensors().size());
  report.bytes = plan.bytes();
  if (options.dry_run) return report;
  FolderWriter writer(folder, options.replace, reader.path());
  writer.add("config.json", config.dump(2) + "\n");
  for (const auto& [name, content] : model_files(reader.meta())) writer.add(name, content);
  Progress progress(options, plan.bytes());
  report.files = writer.add_weights(plan, options.max_shard_bytes,
                                    [&](int64_t bytes) { progress.add(bytes); });
  writer.commit();
  return report;
}

}  // namespace sw
