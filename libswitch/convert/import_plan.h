// What a checkpoint of ours takes from the tensors of a Hugging Face model.
//
// The structure (layers, which are sparse, experts, gating, tying) is that of the tensors' names
// and shapes; config.json only says the rest. Where it says something else of the structure, that
// is noted: published models have such files.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "libswitch/convert/hugging_face_config.h"
#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/io/tensor_archive.h"

namespace sw {

class ImportPlan {
 public:
  /// `archive` must outlive the plan. Throws corrupt, naming the tensor, when they are no model:
  /// tensors that are missing, unknown, of another shape than the rest calls for, or of no
  /// floating-point type. `config_name` stands in messages.
  ImportPlan(const TensorArchive& archive, const HuggingFaceConfig& config,
             const std::string& config_name);

  const ModelConfig& model() const { return model_; }
  HfFamily family() const { return family_; }
  /// "/model/..." in canonical order of the model. A tensor's dtype is its own; float16 becomes
  /// f32, and experts of different dtypes the widest.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  /// One sentence for each disagreement, tensor passed over and change of dtype.
  const std::vector<std::string>& notes() const { return notes_; }
  int64_t bytes() const;

  /// Rows [begin, end) of a tensor of ours, dense.
  using Rows = std::function<void(int64_t begin, int64_t end, const void* data)>;
  /// Gives all of entry `index`, tile by tile in ascending order. Holds one tensor of theirs (where
  /// that is the transpose of ours) and one tile.
  void stream(size_t index, const Rows& rows) const;

  /// The tensor of theirs behind a parameter ("encoder/final_norm"; of expert `expert`, or -1).
  /// Throws internal when there is none.
  size_t source(const std::string& parameter, int64_t expert) const;

 private:
  struct Piece {
    size_t tensor = 0;  // in the archive
    int64_t expert = -1;
    bool transpose = false;
  };
  using Pieces = std::vector<Piece>;

  void collect();
  void resolve_aliases(Pieces& pieces);
  bool same_bytes(size_t a, size_t b) const;
  void settle_head(bool scaled_logits, bool scaling_is_named);
  void settle_structure();
  void settle_stack(const std::string& stack, int64_t& layers, int64_t& step, int64_t& offset);
  void settle(const std::string& what, int64_t& configured, int64_t found);
  void make_entries();
  void add_entry(const ParameterSpec& spec, const Pieces& pieces);
  void stream_piece(const TensorEntry& entry, const Piece& piece, const Rows& rows) const;
  const Shape* shape_of(const std::string& parameter) const;
  std::string where(size_t tensor) const;

  const TensorArchive& archive_;
  std::string config_name_;
  ModelConfig model_;
  HfFamily family_;
  std::unordered_map<std::string, Pieces> found_;  // by parameter
  std::vector<TensorEntry> entries_;
  std::vector<Pieces> sources_;                    // of each entry
  std::unordered_map<std::string, size_t> index_;  // of each parameter's entry
  std::vector<std::string> notes_;
  int64_t halves_ = 0;  // tensors of ours that come from float16
};

}  // namespace sw
