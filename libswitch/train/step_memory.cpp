#include "libswitch/train/step_memory.h"

#include <algorithm>
#include <bit>
#include <string>
#include <unordered_map>
#include <vector>

#include "libswitch/kernels/cross_entropy.h"
#include "libswitch/tape/placement.h"

namespace sw {
namespace {

// Bytes of a sublayer for the rows of one micro-batch.
struct Sublayer {
  std::string parameters;  // their folder
  double norm = 0;         // kept: residual, normed residual and its scale
  double inner = 0;        // kept: what follows; computed again with --recompute
  double backward = 0;     // gradients of activations that live at a time
};

// A stack's sublayers in blocks.
using Block = std::vector<Sublayer>;

// Memory at a moment, and its peak.
class Timeline {
 public:
  void hold(double bytes) { peak_ = std::max(peak_, held_ += bytes); }
  void drop(double bytes) { held_ -= bytes; }
  void touch(double bytes) { peak_ = std::max(peak_, held_ + bytes); }
  double peak() const { return peak_; }

 private:
  double held_ = 0, peak_ = 0;
};

class StepWalk {
 public:
  explicit StepWalk(const TrainingShape& shape) : shape_(shape), model_(shape.model) {
    const int64_t rows = shape.rows / (shape.step.canonical_ranks * shape.step.accumulate);
    inputs_ = static_cast<double>(rows * shape.input_length);
    targets_ = static_cast<double>(rows * shape.target_length);
    value_ = static_cast<double>(element_bytes(shape.compute));
    master_ = static_cast<double>(element_bytes(master_dtype(shape.compute)));
    width_ = static_cast<double>(model_.d_model);
    const auto cut = static_cast<double>(shape.mesh.model);
    inner_ = static_cast<double>(model_.inner()) / cut;
    heads_ = static_cast<double>(model_.heads) / cut;
    hidden_ = static_cast<double>(model_.d_ff) / cut;
    count_gradients();
    for (int64_t i = 0; i < model_.encoder_layers; ++i) encoder_.push_back(block(false, i));
    for (int64_t i = 0; i < model_.decoder_layers; ++i) decoder_.push_back(block(true, i));
  }

  StepMemory run() {
    const auto shards = static_cast<uint64_t>(shape_.step.canonical_ranks / shape_.mesh.data);
    double peak = shard_peak(shards - 1, true);
    if (shards > 1) peak = std::max(peak, shard_peak(shards - 2, false));
    StepMemory out;
    out.gradient_bytes = static_cast<int64_t>(travelling_ + all_gradients_);
    out.peak_bytes = static_cast<int64_t>(peak);
    return out;
  }

 private:
  // Of the passes of shard `shard`, from 0. The tree of shards holds a partial sum per bit of the
  // number of shards it has taken in; the last shard takes them up block by block.
  double shard_peak(uint64_t shard, bool last) {
    partial_sums_ = std::popcount(shard);
    last_ = last;
    Timeline time;
    time.hold(travelling_ + partial_sums_ * all_gradients_);
    if (shape_.step.accumulate > 1) time.hold(all_gradients_);
    // What a teacher says; on its way there it needs less than the student will.
    for (const ModelConfig& teacher : shape_.frozen) {
      time.hold(targets_ * static_cast<double>(teacher.d_model) * value_);
    }
    forward(time, encoder_, inputs_);
    forward(time, decoder_, targets_);
    head(time);
    time.drop(norm(targets_));
    backward(time, decoder_, targets_);
    time.drop(norm(inputs_));
    backward(time, encoder_, inputs_);
    return time.peak();
  }

  void count_gradients() {
    for (const ParameterSpec& spec : parameter_specs(model_)) {
      const Placement placement = placement_of(spec.axes);
      auto bytes = static_cast<double>(spec.shape.elements()) * master_;
      if (placement.expert_dimension >= 0) bytes /= static_cast<double>(shape_.mesh.expert);
      if (placement.model_dimension >= 0) bytes /= static_cast<double>(shape_.mesh.model);
      gradients_[spec.name.substr(0, spec.name.rfind('/'))] += bytes;
      all_gradients_ += bytes;
      const int64_t group = spec.expert() ? shape_.mesh.replicas() : shape_.mesh.data;
      if (group > 1) travelling_ += bytes;
    }
  }

  double norm(double rows) const { return rows * (2 * width_ * value_ + master_); }

  Sublayer attention(const std::string& folder, double queries, double keys) const {
    Sublayer out{folder, norm(queries)};
    const double projections = 2 * (queries + keys) * inner_ * value_;  // q, mixed; k, v
    out.inner = projections + queries * heads_ * master_;
    out.backward = 2 * queries * width_ * value_ + projections;
    return out;
  }

  // What lies between the two products of a feed-forward layer, per row.
  double hidden_bytes(double dropout) const {
    const bool in_place = model_.activation == Activation::relu;
    const double tensors = is_gated(model_.activation) ? 3 : in_place ? 1 : 2;
    return (tensors + (dropout > 0 ? 1 : 0)) * hidden_ * value_;
  }

  Sublayer feed_forward(const std::string& folder, double rows) const {
    Sublayer out{folder, norm(rows)};
    out.inner = rows * hidden_bytes(model_.dropout);
    out.backward = rows * (2 * width_ * value_ + hidden_bytes(0));
    return out;
  }

  Sublayer experts(const std::string& folder, double rows) const {
    Sublayer out{folder, norm(rows)};
    const double sent = rows * (model_.router == "top2" ? 2 : 1);
    const auto experts = static_cast<double>(model_.experts);
    // The router reads its input in full precision; logits and probabilities.
    const double router = rows * (width_ + 2 * experts) * master_;
    // Dispatched rows in and out of the experts, of every model rank whole.
    out.inner = router + sent * (2 * width_ * value_ + hidden_bytes(model_.expert_dropout));
    // The gradient of the rows out takes the place of these; the router comes when the rest is
    // gone.
    out.backward = rows * 2 * width_ * value_ + sent * hidden_bytes(0);
    return out;
  }

  Block block(bool decoder, int64_t i) const {
    const double rows = decoder ? targets_ : inputs_;
    const std::string prefix = fmt::format("{}/block_{:03d}/", decoder ? "decoder" : "encoder", i);
    const bool sparse =
        decoder ? model_.decoder_layer_is_sparse(i) : model_.encoder_layer_is_sparse(i);
    Block out{attention(prefix + "attn", rows, rows)};
    if (decoder) out.push_back(attention(prefix + "cross", rows, inputs_));
    out.push_back(sparse ? experts(prefix + "moe", rows) : feed_forward(prefix + "mlp", rows));
    return out;
  }

  // Of a block between the passes.
  double kept(const Sublayer& sublayer) const {
    return sublayer.norm + (shape_.step.recompute == Recompute::none ? sublayer.inner : 0);
  }
  double block_inputs(double rows) const { return 2 * rows * width_ * value_; }

  void forward(Timeline& time, const std::vector<Block>& blocks, double rows) const {
    for (const Block& block : blocks) {
      for (const Sublayer& sublayer : block) {
        if (shape_.step.recompute == Recompute::full) {
          time.touch(sublayer.norm + sublayer.inner);
        } else {
          time.hold(kept(sublayer));
          time.touch(sublayer.norm + sublayer.inner - kept(sublayer));
        }
      }
      if (shape_.step.recompute == Recompute::full) time.hold(block_inputs(rows));
    }
    time.hold(norm(rows));
  }

  void backward(Timeline& time, const std::vector<Block>& blocks, double rows) {
    const bool full = shape_.step.recompute == Recompute::full;
    const bool layer = shape_.step.recompute == Recompute::layer;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      if (full) {
        for (const Sublayer& sublayer : *block) time.hold(sublayer.norm + sublayer.inner);
      }
      for (auto sublayer = block->rbegin(); sublayer != block->rend(); ++sublayer) {
        if (shape_.step.accumulate == 1) time.hold(gradients_[sublayer->parameters]);
        if (layer) time.hold(sublayer->inner);
        time.touch(sublayer->backward);
        time.drop(sublayer->norm + sublayer->inner);
      }
      if (full) time.drop(block_inputs(rows));
      if (!last_) continue;
      for (const Sublayer& sublayer : *block) {
        time.drop(partial_sums_ * gradients_[sublayer.parameters]);
      }
    }
  }

  // Logits of a chunk of rows, a teacher's too, their gradient, and the gradient of the table.
  void head(Timeline& time) {
    const int64_t width = model_.vocab_size / shape_.mesh.model;
    const auto rows =
        std::min(targets_, static_cast<double>(kernels::cross_entropy_chunk_rows(width)));
    const double logits =
        rows * static_cast<double>(width) * (master_ + (value_ != master_ ? value_ : 0));
    if (shape_.step.accumulate == 1) {
      time.hold(gradients_["shared"] + gradients_["lm_head"]);
    }
    const auto models = static_cast<double>(1 + shape_.frozen.size());
    time.touch(models * logits + targets_ * width_ * value_);
  }

  const TrainingShape& shape_;
  const ModelConfig& model_;
  double inputs_ = 0, targets_ = 0;  // rows of the encoder's and the decoder's matrices
  double value_ = 0, master_ = 0;    // bytes of an element
  double width_ = 0, inner_ = 0, heads_ = 0, hidden_ = 0;
  std::unordered_map<std::string, double> gradients_;  // bytes by folder
  double all_gradients_ = 0, travelling_ = 0;
  int partial_sums_ = 0;
  bool last_ = true;
  std::vector<Block> encoder_, decoder_;
};

}  // namespace

StepMemory estimate_step_memory(const TrainingShape& shape) { return StepWalk(shape).run(); }

}  // namespace sw
