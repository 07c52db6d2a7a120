// Oracle cases: folders that hold a model's configuration, inputs and every number it must produce,
// made by other code. Two kinds: Hugging Face transformers (config.json, inputs.json) and Mesh
// TensorFlow, the code of Fedus et al. 2022 (case.json, batches.json). Both may carry
// expected.json. Weights follow from the tensors' names.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "libswitch/io/name_map.h"
#include "libswitch/nn/model.h"

namespace sw::oracle {

using Json = nlohmann::ordered_json;

struct RunOptions {
  DType dtype = DType::f32;
  Recompute recompute = Recompute::none;
};

/// Fills every weight from its Hugging Face name: x = FNV-1a of `prefix` + name, then per element
/// x = 1664525 x + 1013904223 (mod 2^32), t = ((x >> 8) - 2^23) / 2^23, mapped by the kind of
/// tensor; all but norms, embeddings, heads and relative biases are multiplied by `scale`.
void fill_weights(Model& model, HfFamily family, double scale, const std::string& prefix);

/// {name: {"l2", "first", "product"}} of gradients (or, with `weights`, of master weights), by
/// Hugging Face tensor; the product is that with the numbers t of the tensor's name (above).
Json describe_parameters(const Model& model, HfFamily family, bool weights);
/// Root of the sum of squares of all gradients.
double gradient_norm(const Model& model);

/// Runs a case and returns (a Hugging Face case that holds weights goes through conversion and a
/// checkpoint; otherwise fill_weights() makes them) the keys of its expected.json. Throws Error for
/// what the case holds and we cannot run.
Json run_hugging_face_case(const std::filesystem::path& folder, const RunOptions& options);
Json run_mesh_case(const std::filesystem::path& folder, const RunOptions& options);
Json run_case(const std::filesystem::path& folder, const RunOptions& options);

struct Comparison {
  bool passed = true;
  Json report;  // worst relative error of logits, losses, gradients, weights; routing
};
/// Compares with expected.json by the tolerances of float32: losses and logits 2e-5, gradients and
/// weights 1e-4 (norm; first element and product, where expected, against the tensor's norm; a case
/// may have a "gradient_tolerance" of its own), routing exactly, gates 2e-5.
Comparison compare_with_expected(const Json& got, const std::filesystem::path& folder);

/// A JSON file; throws missing or corrupt naming it.
Json read_json(const std::filesystem::path& path);

}  // namespace sw::oracle
