// Our parameter names and those of Hugging Face's SwitchTransformers and T5.
//
// Ours are paths ("encoder/block_001/moe/wi") and store a linear weight as [in, out], experts
// stacked; theirs are dotted ("encoder.block.1.layer.1.mlp.experts.expert_3.wi.weight"), store
// [out, in] and split experts. The one table in name_map.cpp holds every correspondence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sw {

/// The two public formats: they differ in the name of a dense feed-forward module, `mlp` in Switch,
/// `DenseReluDense` in T5 of every version.
enum class HfFamily { switch_transformers, t5 };

/// One Hugging Face tensor that makes up a parameter of ours.
struct HfTensor {
  std::string name;
  int64_t expert = -1;     // index along our first axis, or -1: the whole parameter
  bool transpose = false;  // theirs is the matrix transpose of ours (of one expert's matrix)
  bool operator==(const HfTensor&) const = default;
};

/// The tensors that hold our parameter `name`: one, or `experts` of them in order for a stacked
/// expert weight. Throws usage for a name that is not in the table or that the family cannot hold
/// (experts in T5).
std::vector<HfTensor> hf_tensors(const std::string& name, HfFamily family, int64_t experts);

/// Our side of a Hugging Face tensor.
struct OurTensor {
  std::string name;
  int64_t expert = -1;
  bool transpose = false;
  bool operator==(const OurTensor&) const = default;
};

/// The parameter that a Hugging Face tensor belongs to, of either family; nullopt for a name that
/// is not in the table. A `switch_transformers.` or `transformer.` prefix is stripped; aliases
/// (`encoder.embed_tokens.weight`, `decoder.lm_head.weight`) give the parameter they stand for. The
/// feed-forward norm, which bears one name in dense and sparse blocks, comes back as "mlp/norm";
/// the caller knows which blocks are sparse.
std::optional<OurTensor> our_tensor(std::string_view hf_name);

/// True for tensors of old files that carry nothing and are dropped on reading: the
/// cross-attention's relative bias, which no model ever used.
bool is_dropped_hf_tensor(std::string_view hf_name);

/// Dimension labels of our parameter, e.g. {"expert", "d_model", "d_ff"}; throws usage for an
/// unknown name.
std::vector<std::string> parameter_axes(const std::string& name);

}  // namespace sw
