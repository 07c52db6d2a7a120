#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/convert/conversion.h"
#include "libswitch/convert/hugging_face_config.h"
#include "libswitch/io/json_text.h"
#include "libswitch/train/checkpoint_state.h"
#include "tests/oracle/oracle.h"

namespace sw::oracle {
namespace {

template <class T>
std::vector<T> flatten(const Json& rows, const char* what, size_t length) {
  std::vector<T> out;
  for (const Json& row : rows) {
    SW_CHECK(row.size() == length, corrupt, "inputs.json: {} has rows of different lengths", what);
    for (const Json& value : row) out.push_back(value.get<T>());
  }
  return out;
}

Json routing_json(const ForwardResult& result, int64_t rows) {
  Json out = Json::object();
  for (const ForwardResult::Layer& layer : result.layers) {
    const RoutingPlan& plan = layer.routing->plan;
    const int32_t* expert = plan.expert.data<int32_t>();
    const int32_t* slot = plan.slot.data<int32_t>();
    const int64_t length = plan.tokens / rows;
    Json table = Json::array();
    for (int64_t row = 0; row < rows; ++row) {
      Json line = Json::array();
      for (int64_t i = row * length; i < (row + 1) * length; ++i) {
        line.push_back(slot[i] >= 0 ? expert[i] : -1 - expert[i]);
      }
      table.push_back(std::move(line));
    }
    const bool decoder = layer.name.rfind("decoder", 0) == 0;
    const int block = std::stoi(layer.name.substr(layer.name.size() - 3));
    out[fmt::format("{}.block.{}.layer.{}.mlp.router", decoder ? "decoder" : "encoder", block,
                    decoder ? 2 : 1)] = std::move(table);
  }
  return out;
}

// The case's weights, where it holds some: as a checkpoint that sw-convert would make, read as
// every tool reads it.
std::unique_ptr<Model> converted_model(const std::filesystem::path& folder, DType dtype) {
  std::string name = (std::filesystem::temp_directory_path() / "oracle-XXXXXX").string();
  SW_CHECK(::mkdtemp(name.data()) != nullptr, cannot_create, "{}: cannot create", name);
  const std::filesystem::path temporary = name;
  convert_from_hugging_face(folder, temporary / "model.h5", {});
  auto model = load_model(CheckpointReader(temporary / "model.h5"), dtype);
  std::filesystem::remove_all(temporary);
  return model;
}

std::unique_ptr<Model> make_model(const std::filesystem::path& folder, const ModelConfig& config,
                                  HfFamily family, DType dtype) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".bin") return converted_model(folder, dtype);
  }
  auto model = std::make_unique<Model>(config, dtype);
  fill_weights(*model, family, 1.0, "");
  return model;
}

}  // namespace

Json run_hugging_face_case(const std::filesystem::path& folder, const RunOptions& options) {
  const std::filesystem::path file = folder / "config.json";
  const nlohmann::json json = read_json_file(file);
  const Json inputs = read_json(folder / "inputs.json");
  HuggingFaceConfig described = read_hugging_face_config(json, file.string());
  described.model.dropout = described.model.expert_dropout = described.model.jitter = 0;
  const HfFamily family = described.family;
  const bool t5 = family == HfFamily::t5;

  TokenRows rows;
  rows.rows = static_cast<int64_t>(inputs.at("input_ids").size());
  SW_CHECK(rows.rows > 0, corrupt, "inputs.json: no rows");
  const size_t s = inputs["input_ids"][0].size(), t = inputs.at("labels")[0].size();
  rows.input_length = static_cast<int64_t>(s), rows.target_length = static_cast<int64_t>(t);
  const auto ids = flatten<int32_t>(inputs["input_ids"], "input_ids", s);
  const auto labels = flatten<int32_t>(inputs["labels"], "labels", t);
  std::vector<uint8_t> mask(ids.size(), 1);
  if (inputs.contains("attention_mask")) {
    mask = flatten<uint8_t>(inputs["attention_mask"], "attention_mask", s);
  }
  rows.inputs = ids, rows.targets = labels, rows.input_mask = mask;
  rows.first_target_id = 0;  // -100 stands for no label

  const auto owned = make_model(folder, described.model, family, options.dtype);
  const Model& model = *owned;
  Tape tape;
  Context context;
  context.tape = &tape;
  const ModelInput input = make_model_input(rows, model.config().conventions);
  const ForwardResult result =
      model.forward(context, input, {options.recompute, /*want_logits=*/true});
  tape.backward();

  Json out;
  out["loss"] = result.loss;
  out["cross_entropy"] = result.cross_entropy;
  const ModelConfig& config = model.config();
  const auto put_losses = [&](const char* stack, bool present, double z, double aux) {
    out[std::string(stack) + "_z_loss"] = present ? Json(z) : Json(nullptr);
    out[std::string(stack) + "_aux_loss"] = present ? Json(aux) : Json(nullptr);
  };
  if (!t5) {
    put_losses("encoder", config.experts > 0 && config.encoder_sparse_step > 1, result.encoder_z,
               result.encoder_aux);
    put_losses("decoder", config.experts > 0 && config.decoder_sparse_step > 1, result.decoder_z,
               result.decoder_aux);
  }
  const std::vector<double> logits = result.logits.to_vector();
  Json all = Json::array();
  size_t at = 0;
  for (int64_t b = 0; b < rows.rows; ++b) {
    Json row = Json::array();
    for (size_t i = 0; i < t; ++i, at += static_cast<size_t>(config.vocab_size)) {
      row.push_back(
          std::vector<double>(logits.begin() + static_cast<long>(at),
                              logits.begin() + static_cast<long>(at) + config.vocab_size));
    }
    all.push_back(std::move(row));
  }
  out["logits"] = std::move(all);
  out["routing"] = routing_json(result, rows.rows);
  out["gradients"] = describe_parameters(model, family, false);
  out["gradient_l2"] = gradient_norm(model);
  out["parameters"] = count_parameters(config).total;
  return out;
}

}  // namespace sw::oracle
