#include "libswitch/io/checkpoint_metadata.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/io/checkpoint_format.h"

namespace sw {
namespace {

using namespace checkpoint_format;

void check_text(const std::string& what, const std::string& text) {
  SW_CHECK(text.find('\0') == std::string::npos, usage, "checkpoint: {} contains a zero byte",
           what);
}

bool is_reserved(const std::string& name) {
  return std::find(std::begin(kReservedAttributes), std::end(kReservedAttributes), name) !=
         std::end(kReservedAttributes);
}

std::string sha256_hex(const std::string& bytes) {
  const auto digest = sha256(bytes.data(), bytes.size());
  return to_hex(digest.data(), digest.size());
}

template <class T>
T attribute(const hdf5::File& file, const std::string& object, const std::string& name) {
  AttributeValue value = file.read_attribute(object, name);
  T* typed = std::get_if<T>(&value);
  if (typed == nullptr) file.fail_at(object + "@" + name, "has an unexpected type");
  return std::move(*typed);
}

void write_data_position(hdf5::File& file, const DataPosition& data) {
  file.write_text("/train/data/manifest_sha256", data.manifest_sha256);
  file.write_scalar("/train/data/seed", data.seed);
  file.write_scalar("/train/data/epoch", data.epoch);
  file.write_scalar("/train/data/ordinal", data.ordinal);
  file.write_texts("/train/data/source_names", "source", data.source_names);
  const auto sources = static_cast<int64_t>(data.source_ordinals.size());
  file.write_array("/train/data/source_ordinals", {&sources, 1}, {"source"}, data.source_ordinals);
}

DataPosition read_data_position(const hdf5::File& file) {
  DataPosition data;
  data.manifest_sha256 = file.read_text("/train/data/manifest_sha256");
  data.seed = file.read_scalar<uint64_t>("/train/data/seed");
  data.epoch = file.read_scalar<int64_t>("/train/data/epoch");
  data.ordinal = file.read_scalar<uint64_t>("/train/data/ordinal");
  data.source_names = file.read_texts("/train/data/source_names");
  const auto sources = static_cast<int64_t>(data.source_names.size());
  data.source_ordinals = file.read_array<uint64_t>("/train/data/source_ordinals", {&sources, 1});
  return data;
}

}  // namespace

void check_meta(const CheckpointMeta& meta) {
  check_text("the preset", meta.preset);
  check_text("the tool version", meta.tool_version);
  check_text("the creation time", meta.created_utc);
  check_text("the optimizer's name", meta.optimizer);
  check_text("the configuration", meta.config_toml);
  check_text("the metrics", meta.metrics_json);
  check_text("the manifest hash", meta.train.data.manifest_sha256);
  for (const std::string& argument : meta.argv) check_text("the command line", argument);
  for (const std::string& name : meta.train.data.source_names) check_text("a source name", name);
  SW_CHECK(meta.train.data.source_names.size() == meta.train.data.source_ordinals.size(), usage,
           "checkpoint: {} source names, {} source ordinals", meta.train.data.source_names.size(),
           meta.train.data.source_ordinals.size());
  for (const auto& [name, value] : meta.attributes) {
    SW_CHECK(!name.empty() && name.size() <= 255, usage,
             "checkpoint: attribute name of {} characters, expected 1 to 255", name.size());
    check_text("an attribute's name", name);
    SW_CHECK(!is_reserved(name), usage, "checkpoint: attribute '{}' has a meaning of its own",
             name);
    if (const auto* text = std::get_if<std::string>(&value)) {
      check_text("attribute " + name, *text);
      SW_CHECK(text->size() <= 65536, usage,
               "checkpoint: attribute '{}' has {} bytes, at most 65536", name, text->size());
    }
  }
}

void write_meta(hdf5::File& file, const CheckpointMeta& meta) {
  file.write_attribute("/", "format", AttributeValue(kFormatName));
  file.write_attribute("/", "format_version", std::vector<int64_t>{kMajor, kMinor});
  file.write_attribute("/", "step", AttributeValue(meta.step));
  file.write_attribute("/", "tokens", AttributeValue(meta.tokens));
  file.write_attribute("/", "params_total", AttributeValue(meta.params_total));
  file.write_attribute("/", "params_active", AttributeValue(meta.params_active));
  file.write_attribute("/", "preset", AttributeValue(meta.preset));
  file.write_attribute("/", "tool_version", AttributeValue(meta.tool_version));
  file.write_attribute("/", "created_utc", AttributeValue(meta.created_utc));
  for (const auto& [name, value] : meta.attributes) file.write_attribute("/", name, value);

  file.write_text("/meta/config.toml", meta.config_toml);
  file.write_text("/meta/metrics.json", meta.metrics_json);
  file.write_texts("/meta/argv", "argument", meta.argv);
  const auto bytes = static_cast<int64_t>(meta.tokenizer.size());
  file.write_array("/meta/tokenizer.model", {&bytes, 1}, {"byte"},
                   std::vector<uint8_t>(meta.tokenizer.begin(), meta.tokenizer.end()));
  file.write_attribute("/meta/tokenizer.model", "sha256",
                       AttributeValue(sha256_hex(meta.tokenizer)));
  file.create_group("/optim");
  file.write_attribute("/optim", "name", AttributeValue(meta.optimizer));

  file.write_scalar("/train/seed", meta.train.seed);
  file.write_scalar("/train/lr", meta.train.lr);
  file.write_scalar("/train/loss_ema", meta.train.loss_ema);
  file.write_scalar("/train/loss_variance", meta.train.loss_variance);
  file.write_scalar("/train/skipped_steps", meta.train.skipped_steps);
  write_data_position(file, meta.train.data);
}

void write_digest(hdf5::File& file, const std::string& digest) {
  file.write_attribute("/", "digest", AttributeValue(digest));
}

void check_format(const hdf5::File& file) {
  if (!file.has_attribute("/", "format") ||
      attribute<std::string>(file, "/", "format") != kFormatName) {
    file.fail_at("/@format", fmt::format("expected \"{}\": not a checkpoint", kFormatName));
  }
  const std::vector<int64_t> version = file.read_integers_attribute("/", "format_version");
  if (version.size() != 2 || version[0] != kMajor) {
    file.fail_at("/@format_version", fmt::format("this release reads version {}.x, got {}", kMajor,
                                                 fmt::join(version, ".")));
  }
}

CheckpointMeta read_meta(const hdf5::File& file) {
  CheckpointMeta meta;
  meta.step = attribute<int64_t>(file, "/", "step");
  meta.tokens = attribute<int64_t>(file, "/", "tokens");
  meta.params_total = attribute<int64_t>(file, "/", "params_total");
  meta.params_active = attribute<int64_t>(file, "/", "params_active");
  meta.preset = attribute<std::string>(file, "/", "preset");
  meta.tool_version = attribute<std::string>(file, "/", "tool_version");
  meta.created_utc = attribute<std::string>(file, "/", "created_utc");
  for (const std::string& name : file.attribute_names("/")) {
    if (!is_reserved(name)) meta.attributes[name] = file.read_attribute("/", name);
  }

  meta.config_toml = file.read_text("/meta/config.toml");
  meta.metrics_json = file.read_text("/meta/metrics.json");
  meta.argv = file.read_texts("/meta/argv");
  const std::string tokenizer = "/meta/tokenizer.model";
  const hdf5::Dataset model = file.open_dataset(tokenizer, hdf5::scalar_type<uint8_t>());
  meta.tokenizer.resize(static_cast<size_t>(model.elements));
  if (!meta.tokenizer.empty()) {
    file.read(model, tokenizer, hdf5::scalar_type<uint8_t>(), meta.tokenizer.data());
  }
  meta.tokenizer_sha256 = attribute<std::string>(file, tokenizer, "sha256");
  if (meta.tokenizer_sha256 != sha256_hex(meta.tokenizer)) {
    file.fail_at(tokenizer, "does not match its attribute sha256");
  }
  meta.optimizer = attribute<std::string>(file, "/optim", "name");

  meta.train.seed = file.read_scalar<uint64_t>("/train/seed");
  meta.train.lr = file.read_scalar<double>("/train/lr");
  meta.train.loss_ema = file.read_scalar<double>("/train/loss_ema");
  meta.train.loss_variance = file.read_scalar<double>("/train/loss_variance");
  meta.train.skipped_steps = file.read_scalar<int64_t>("/train/skipped_steps");
  meta.train.data = read_data_position(file);
  return meta;
}

std::string read_digest(const hdf5::File& file) {
  return attribute<std::string>(file, "/", "digest");
}

void write_telemetry(hdf5::File& file, const Telemetry& telemetry) {
  const TrainTelemetry& train = telemetry.train;
  const int64_t rows = static_cast<int64_t>(train.step.size());
  const auto column = [&](const char* name, const auto& values) {
    file.write_array(std::string("/telemetry/train/") + name, {&rows, 1}, {"step"}, values);
  };
  column("step", train.step);
  column("loss", train.loss);
  column("lr", train.lr);
  column("grad_norm", train.grad_norm);
  column("tok_s", train.tok_s);

  const RouterTelemetry& router = telemetry.router;
  const int64_t dims[3] = {static_cast<int64_t>(router.step.size()),
                           static_cast<int64_t>(router.layer_name.size()), router.experts};
  const hdf5::Labels labels = {"step", "layer", "expert"};
  const auto array = [&](const char* name, size_t rank, const auto& values) {
    file.write_array(std::string("/telemetry/router/") + name, {dims, rank},
                     hdf5::Labels(labels.begin(), labels.begin() + static_cast<long>(rank)),
                     values);
  };
  array("step", 1, router.step);
  file.write_texts("/telemetry/router/layer_name", "layer", router.layer_name);
  array("tokens", 3, router.tokens);
  array("prob_sum", 3, router.prob_sum);
  array("dropped", 2, router.dropped);
  array("capacity", 2, router.capacity);
  array("entropy", 2, router.entropy);
  array("confidence", 2, router.confidence);
  array("aux", 2, router.aux);
  array("z", 2, router.z);
}

Telemetry read_telemetry(const hdf5::File& file) {
  Telemetry telemetry;
  TrainTelemetry& train = telemetry.train;
  // The first column gives the length, the others must have it.
  const auto length = [&](const std::string& path, size_t rank) {
    const hdf5::Dataset dataset = file.open_dataset(path, -1);
    if (dataset.dims.size() != rank) file.fail_at(path, "has an unexpected rank");
    return dataset.dims;
  };
  const int64_t rows = length("/telemetry/train/step", 1)[0];
  const auto column = [&](const char* name, auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    values = file.read_array<T>(std::string("/telemetry/train/") + name, {&rows, 1});
  };
  column("step", train.step);
  column("loss", train.loss);
  column("lr", train.lr);
  column("grad_norm", train.grad_norm);
  column("tok_s", train.tok_s);

  RouterTelemetry& router = telemetry.router;
  const std::vector<int64_t> dims = length("/telemetry/router/tokens", 3);
  router.experts = dims[2];
  const auto array = [&](const char* name, size_t rank, auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    values = file.read_array<T>(std::string("/telemetry/router/") + name, {dims.data(), rank});
  };
  array("step", 1, router.step);
  router.layer_name = file.read_texts("/telemetry/router/layer_name");
  if (static_cast<int64_t>(router.layer_name.size()) != dims[1]) {
    file.fail_at("/telemetry/router/layer_name",
                 fmt::format("expected {} names, got {}", dims[1], router.layer_name.size()));
  }
  array("tokens", 3, router.tokens);
  array("prob_sum", 3, router.prob_sum);
  array("dropped", 2, router.dropped);
  array("capacity", 2, router.capacity);
  array("entropy", 2, router.entropy);
  array("confidence", 2, router.confidence);
  array("aux", 2, router.aux);
  array("z", 2, router.z);
  return telemetry;
}

}  // namespace sw
