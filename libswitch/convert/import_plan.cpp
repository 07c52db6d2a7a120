#include "libswitch/convert/import_plan.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "libswitch/base/error.h"
#include "libswitch/convert/layout.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

// What gates in a model whose configuration names `activation` without a gate. Published files of
// gated models leave ReLU there, the library's default.
Activation with_gate(Activation activation) {
  return activation == Activation::silu ? Activation::swiglu : Activation::geglu;
}
Activation without_gate(Activation activation) {
  switch (activation) {
    case Activation::reglu: return Activation::relu;
    case Activation::geglu: return Activation::gelu_new;
    case Activation::swiglu: return Activation::silu;
    default: return activation;
  }
}

// "encoder", 3 and "mlp/wi" of "encoder/block_003/mlp/wi"; block -1 outside of blocks.
struct PlaceInStack {
  std::string_view stack, rest;
  int64_t block = -1;
};
PlaceInStack place_of(std::string_view parameter) {
  const size_t at = parameter.find("/block_");
  if (at == std::string_view::npos) return {};
  PlaceInStack place;
  place.stack = parameter.substr(0, at);
  place.block = 0;
  size_t i = at + 7;
  for (; i < parameter.size() && parameter[i] != '/'; ++i) {
    place.block = 10 * place.block + (parameter[i] - '0');
  }
  place.rest = parameter.substr(std::min(i + 1, parameter.size()));
  return place;
}

std::string block_name(const std::string& stack, int64_t block) {
  return fmt::format("{}/block_{:03d}/", stack, block);
}

}  // namespace

ImportPlan::ImportPlan(const TensorArchive& archive, const HuggingFaceConfig& config,
                       const std::string& config_name)
    : archive_(archive), config_name_(config_name), model_(config.model), family_(config.family) {
  collect();
  settle_structure();
  settle_head(config.scaled_logits, config.scaling_is_named);
  if (model_.experts > 0 && config.router_dtype != "float32") {
    notes_.push_back(fmt::format(
        "{}: router_dtype is {}; routers are computed in float32, and may choose other experts",
        config_name_, shown(config.router_dtype)));
  }
  make_entries();
}

int64_t ImportPlan::bytes() const {
  int64_t bytes = 0;
  for (const TensorEntry& entry : entries_) bytes += entry.bytes();
  return bytes;
}

std::string ImportPlan::where(size_t tensor) const {
  return archive_.file_of(tensor) + ": " + shown(archive_.tensors()[tensor].name);
}

// Sorts the archive's tensors into parameters of ours.
void ImportPlan::collect() {
  std::set<std::string> sparse;  // blocks with a router or experts
  for (size_t i = 0; i < archive_.tensors().size(); ++i) {
    const std::string& name = archive_.tensors()[i].name;
    if (is_dropped_hf_tensor(name)) {
      notes_.push_back(fmt::format("{} is left out: no model ever used it", shown(name)));
      continue;
    }
    const auto ours = our_tensor(name);
    SW_CHECK(ours.has_value(), corrupt, "{}: belongs to no {} model", where(i),
             family_ == HfFamily::t5 ? "T5" : "Switch or T5");
    found_[ours->name].push_back({i, ours->expert, ours->transpose});
    if (const size_t at = ours->name.find("/moe/"); at != std::string::npos) {
      sparse.insert(ours->name.substr(0, at));
    }
  }
  for (const std::string& block : sparse) {
    if (auto norm = found_.extract(block + "/mlp/norm")) {
      norm.key() = block + "/moe/norm";
      found_.insert(std::move(norm));
    }
  }
  for (auto& [parameter, pieces] : found_) {
    std::stable_sort(pieces.begin(), pieces.end(),
                     [](const Piece& a, const Piece& b) { return a.expert < b.expert; });
    if (parameter != "lm_head") resolve_aliases(pieces);
  }
}

// Several names of one parameter: copies of one tensor, of which the first is taken.
void ImportPlan::resolve_aliases(Pieces& pieces) {
  Pieces kept;
  for (const Piece& piece : pieces) {
    if (kept.empty() || kept.back().expert != piece.expert) {
      kept.push_back(piece);
      continue;
    }
    SW_CHECK(same_bytes(kept.back().tensor, piece.tensor), corrupt,
             "{}: differs from {}, which is one parameter in this toolkit", where(piece.tensor),
             shown(archive_.tensors()[kept.back().tensor].name));
    // The name that transformers writes rather than an alias of it.
    const std::string& name = archive_.tensors()[piece.tensor].name;
    if (name.ends_with("shared.weight")) kept.back() = piece;
  }
  pieces = std::move(kept);
}

bool ImportPlan::same_bytes(size_t a, size_t b) const {
  const ArchiveTensor &first = archive_.tensors()[a], &second = archive_.tensors()[b];
  if (first.type != second.type || !(first.shape == second.shape)) return false;
  if (first.identity == second.identity || first.bytes() == 0) return true;
  const int64_t row = first.bytes() / first.rows();
  const int64_t step = std::max<int64_t>(1, (int64_t{16} << 20) / row);
  std::string left(static_cast<size_t>(std::min(step, first.rows()) * row), '\0'), right = left;
  for (int64_t begin = 0; begin < first.rows(); begin += step) {
    const int64_t end = std::min(first.rows(), begin + step);
    archive_.read_rows(a, begin, end, left.data());
    archive_.read_rows(b, begin, end, right.data());
    if (std::memcmp(left.data(), right.data(), static_cast<size_t>((end - begin) * row)) != 0) {
      return false;
    }
  }
  return true;
}

const Shape* ImportPlan::shape_of(const std::string& parameter) const {
  const auto at = found_.find(parameter);
  return at == found_.end() ? nullptr : &archive_.tensors()[at->second[0].tensor].shape;
}

void ImportPlan::settle(const std::string& what, int64_t& configured, int64_t found) {
  if (configured != found) {
    notes_.push_back(
        fmt::format("{}: {} is {}, the tensors say {}", config_name_, what, configured, found));
  }
  configured = found;
}

// Layers, and which of them are sparse, of one stack.
void ImportPlan::settle_stack(const std::string& stack, int64_t& layers, int64_t& step,
                              int64_t& offset) {
  int64_t blocks = 0;
  std::set<int64_t> sparse;
  for (const auto& [parameter, pieces] : found_) {
    const PlaceInStack place = place_of(parameter);
    if (place.stack != stack) continue;
    blocks = std::max(blocks, place.block + 1);
    if (place.rest.starts_with("moe/")) sparse.insert(place.block);
  }
  const auto most = static_cast<int64_t>(archive_.tensors().size());
  SW_CHECK(blocks >= 1 && blocks <= most, corrupt,
           "{}: {} layers of the {}, but {} tensors in all: not a whole model", config_name_,
           blocks, stack, most);
  settle(stack == "encoder" ? "num_layers" : "num_decoder_layers", layers, blocks);
  const auto fits = [&](int64_t with_step, int64_t with_offset) {
    for (int64_t i = 0; i < blocks; ++i) {
      const bool wanted = with_step > 0 && i % with_step == with_offset;
      if (wanted != sparse.contains(i)) return false;
    }
    return true;
  };
  const bool dense_model = family_ == HfFamily::t5;
  if (!dense_model && fits(step, offset)) return;
  int64_t found_step = 0, found_offset = 0;
  if (!sparse.empty()) {
    found_offset = *sparse.begin();
    found_step = sparse.size() > 1 ? *std::next(sparse.begin()) - found_offset
                                   : std::max(blocks, found_offset + 1);
  }
  SW_CHECK(fits(found_step, found_offset), corrupt,
           "{}: the {}'s sparse layers do not follow each other at equal distances, which no "
           "model of this toolkit can have",
           archive_.file_of(0), stack);
  if (!dense_model) {
    notes_.push_back(fmt::format(
        "{}: {}_sparse_step is {}, the tensors have {} sparse layers of {}, the first being {}",
        config_name_, stack, step, sparse.size(), blocks, sparse.empty() ? -1 : found_offset));
  }
  step = found_step, offset = found_offset;
}

void ImportPlan::settle_structure() {
  const auto require_shape = [&](const std::string& parameter, int rank) -> const Shape& {
    const Shape* shape = shape_of(parameter);
    SW_CHECK(shape != nullptr, corrupt, "{}: no {}: not a whole T5 or Switch model", config_name_,
             hf_tensors(parameter, family_, 1)[0].name);
    SW_CHECK(shape->rank() == rank && (*shape)[0] > 0 && (*shape)[-1] > 0, corrupt,
             "{}: shape {}, expected {} dimensions", where(found_.at(parameter)[0].tensor),
             shape->str(), rank);
    return *shape;
  };
  settle_stack("encoder", model_.encoder_layers, model_.encoder_sparse_step,
               model_.encoder_sparse_offset);
  settle_stack("decoder", model_.decoder_layers, model_.decoder_sparse_step,
               model_.decoder_sparse_offset);
  const Shape& embedding = require_shape("shared/embedding", 2);
  settle("vocab_size", model_.vocab_size, embedding[0]);
  settle("d_model", model_.d_model, embedding[1]);
  const std::string first = block_name("encoder", 0);
  const Shape& bias = require_shape(first + "attn/relative_bias", 2);
  settle("relative_attention_num_buckets", model_.relative_buckets, bias[0]);
  settle("num_heads", model_.heads, bias[1]);
  const Shape& query = require_shape(first + "attn/q", 2);
  SW_CHECK(query[0] % model_.heads == 0, corrupt, "{}: {} rows are not {} heads of equal width",
           where(found_.at(first + "attn/q")[0].tensor), query[0], model_.heads);
  settle("d_kv", model_.d_kv, query[0] / model_.heads);

  int64_t experts = 0, d_ff = 0;
  bool gated = false, router_bias = false, sparse = false;
  for (const auto& [parameter, pieces] : found_) {
    const PlaceInStack place = place_of(parameter);
    if (place.rest.ends_with("/wi") || place.rest.ends_with("/wi_0")) {
      d_ff = archive_.tensors()[pieces[0].tensor].shape[0];
    }
    gated = gated || place.rest.ends_with("/wi_0");
    router_bias = router_bias || place.rest == "moe/router_bias";
    sparse = sparse || place.rest.starts_with("moe/");
    if (pieces.back().expert >= 0) experts = std::max(experts, pieces.back().expert + 1);
  }
  SW_CHECK(!sparse || family_ == HfFamily::switch_transformers, corrupt,
           "{}: model_type is \"t5\", but the tensors have experts", config_name_);
  SW_CHECK(!sparse || experts > 0, corrupt, "{}: routers without experts", archive_.file_of(0));
  SW_CHECK(experts <= static_cast<int64_t>(archive_.tensors().size()), corrupt,
           "{}: expert {} of a model of {} tensors", archive_.file_of(0), experts - 1,
           archive_.tensors().size());
  if (!sparse) {
    if (family_ == HfFamily::switch_transformers && model_.experts > 0 &&
        (model_.encoder_sparse_step > 0 || model_.decoder_sparse_step > 0)) {
      notes_.push_back(fmt::format("{}: num_experts is {}, the tensors have none", config_name_,
                                   model_.experts));
    }
    model_.experts = 0;
  } else {
    settle("num_experts", model_.experts, experts);
  }
  settle("d_ff", model_.d_ff, d_ff);
  const bool configured = is_gated(model_.activation);
  if (configured != gated) {
    notes_.push_back(fmt::format("{}: the feed-forward layers are {}, by the tensors they are {}",
                                 config_name_, configured ? "gated" : "not gated",
                                 gated ? "gated" : "not gated"));
    model_.activation = gated ? with_gate(model_.activation) : without_gate(model_.activation);
  }
  if (model_.router_bias != router_bias && sparse) {
    notes_.push_back(fmt::format("{}: router_bias is {}, the tensors say {}", config_name_,
                                 model_.router_bias, router_bias));
  }
  model_.router_bias = router_bias;
}

// Tied or not: by the head that is there. The big published checkpoints have a decoder.lm_head
// beside a configuration that says nothing of it (and tied is the default).
void ImportPlan::settle_head(bool scaled_logits, bool scaling_is_named) {
  const bool tied = model_.tied_embeddings;
  const auto head = found_.find("lm_head");
  if (head == found_.end() && !scaled_logits && tied) {
    // What transformers 5 makes of a new T5 whose embeddings should not be tied.
    found_["lm_head"] = found_.at("shared/embedding");
    model_.tied_embeddings = false;
    notes_.push_back(fmt::format(
        "{}: embeddings are tied, but logits are not scaled: the head becomes a copy of "
        "shared.weight",
        config_name_));
    return;
  }
  if (head == found_.end()) {
    SW_CHECK(scaled_logits, corrupt, "{}: embeddings are not tied, but there is no lm_head.weight",
             config_name_);
    model_.tied_embeddings = true;
    return;
  }
  const size_t tensor = head->second[0].tensor;
  const std::string& name = archive_.tensors()[tensor].name;
  for (size_t i = 1; i < head->second.size(); ++i) {
    SW_CHECK(same_bytes(tensor, head->second[i].tensor), corrupt, "{}: differs from {}",
             where(head->second[i].tensor), shown(name));
  }
  head->second.resize(1);
  const bool equal = same_bytes(tensor, found_.at("shared/embedding")[0].tensor);
  if (equal && scaled_logits) {  // an alias
    model_.tied_embeddings = true;
    found_.erase(head);
    return;
  }
  // transformers 5 says expressly that it scales what comes of this head, which no model here does.
  SW_CHECK(
      !scaled_logits || family_ == HfFamily::switch_transformers || (tied && !scaling_is_named),
      corrupt, "{}: scale_decoder_outputs with a head of its own is a model that cannot be held",
      config_name_);
  if (scaled_logits) {
    notes_.push_back(fmt::format(
        "{}: embeddings are tied, but {} is another tensor than shared.weight: it is the head, and "
        "logits are not scaled",
        config_name_, shown(name)));
  }
  model_.tied_embeddings = false;
}

void ImportPlan::make_entries() {
  std::vector<ParameterSpec> specs;
  try {
    specs = parameter_specs(model_);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    fail(ErrorKind::corrupt, "{}: {}", config_name_, error.what());
  }
  size_t missing = 0;
  halves_ = 0;
  std::string first_missing;
  for (const ParameterSpec& spec : specs) {
    const auto pieces = found_.find(spec.name);
    const int64_t wanted = spec.expert() ? model_.experts : 1;
    const int64_t got = pieces == found_.end() ? 0 : static_cast<int64_t>(pieces->second.size());
    if (got < wanted) {
      if (missing++ == 0) {
        int64_t e = 0;
        while (e < got && (!spec.expert() || pieces->second[static_cast<size_t>(e)].expert == e))
          ++e;
        first_missing = hf_tensors(spec.name, family_, model_.experts)[static_cast<size_t>(e)].name;
      }
      continue;
    }
    add_entry(spec, pieces->second);
    found_.erase(pieces);
  }
  SW_CHECK(missing == 0, corrupt, "{}: there is no {}{}: not a whole model", archive_.file_of(0),
           first_missing,
           missing > 1 ? fmt::format(" (and {} more are missing)", missing - 1) : "");
  if (halves_ > 0) {
    notes_.push_back(fmt::format("float16 becomes float32, exactly: {} of {} tensors", halves_,
                                 entries_.size()));
  }
  if (!found_.empty()) {
    const Piece& piece = found_.begin()->second[0];
    fail(ErrorKind::corrupt, "{}: has no place in a model of this structure", where(piece.tensor));
  }
}

void ImportPlan::add_entry(const ParameterSpec& spec, const Pieces& pieces) {
  TensorEntry entry{"/model/" + spec.name, DType::bf16, spec.shape, spec.axes};
  std::set<ElementType> types;
  for (size_t e = 0; e < pieces.size(); ++e) {
    const Piece& piece = pieces[e];
    const ArchiveTensor& tensor = archive_.tensors()[piece.tensor];
    Shape expected = spec.shape;
    if (spec.expert()) {
      SW_CHECK(piece.expert == static_cast<int64_t>(e), corrupt, "{}: expert {} is not there",
               where(piece.tensor), e);
      expected = Shape(spec.shape.begin() + 1, spec.shape.end());
    }
    if (piece.transpose) expected = Shape{expected[1], expected[0]};
    SW_CHECK(tensor.shape == expected, corrupt, "{}: shape {}, expected {} in this model",
             where(piece.tensor), tensor.shape.str(), expected.str());
    DType dtype = DType::f32;
    SW_CHECK(dtype_for(tensor.type, dtype), corrupt, "{}: dtype {}, expected a floating-point type",
             where(piece.tensor), element_name(tensor.type));
    if (element_bytes(dtype) > element_bytes(entry.dtype)) entry.dtype = dtype;
    types.insert(tensor.type);
  }
  if (types.contains(ElementType::f16)) ++halves_;
  if (types.size() > 1) {
    notes_.push_back(fmt::format("{}: its experts have different dtypes and become {}", spec.name,
                                 dtype_name(entry.dtype)));
  }
  index_[spec.name] = entries_.size();
  entries_.push_back(std::move(entry));
  sources_.push_back(pieces);
}

size_t ImportPlan::source(const std::string& parameter, int64_t expert) const {
  const auto at = index_.find(parameter);
  SW_CHECK(at != index_.end(), internal, "import: no parameter {}", parameter);
  return sources_[at->second].at(static_cast<size_t>(std::max<int64_t>(expert, 0))).tensor;
}

void ImportPlan::stream(size_t index, const Rows& rows) const {
  const TensorEntry& entry = entries_.at(index);
  for (const Piece& piece : sources_[index]) stream_piece(entry, piece, rows);
}

void ImportPlan::stream_piece(const TensorEntry& entry, const Piece& piece,
                              const Rows& rows) const {
  const ArchiveTensor& tensor = archive_.tensors()[piece.tensor];
  const int64_t element = element_bytes(entry.dtype);
  const int64_t their_row = tensor.bytes() / tensor.rows();
  const bool same_type = element_of(entry.dtype) == tensor.type;
  const bool expert = piece.expert >= 0;
  // Their rows [begin, end), in our dtype.
  std::string raw;
  const auto read = [&](int64_t begin, int64_t end, std::string& out) {
    const int64_t count = (end - begin) * (tensor.shape.elements() / tensor.rows());
    out.resize(static_cast<size_t>(count * element));
    if (same_type) return archive_.read_rows(piece.tensor, begin, end, out.data());
    raw.resize(static_cast<size_t>((end - begin) * their_row));
    archive_.read_rows(piece.tensor, begin, end, raw.data());
    convert_elements(raw.data(), tensor.type, count, out.data(), entry.dtype);
  };
  const int64_t our_rows = expert ? 1 : entry.shape[0];
  const int64_t our_row = entry.bytes() / (entry.shape.rank() == 0 ? 1 : entry.shape[0]);
  const int64_t step = expert ? 1 : std::max<int64_t>(1, kTileBytes / our_row);
  std::string source, tile;
  if (piece.transpose) {
    read(0, tensor.rows(), source);
    raw = std::string();
  }
  for (int64_t begin = 0; begin < our_rows; begin += step) {
    const int64_t end = std::min(our_rows, begin + step);
    const int64_t first = expert ? piece.expert : begin;
    if (!piece.transpose) {
      read(expert ? 0 : begin, expert ? tensor.rows() : end, tile);
    } else {
      tile.resize(static_cast<size_t>((end - begin) * our_row));
      const int64_t columns = tensor.shape[1];
      transpose_rows(source.data(), tensor.shape[0], columns, element, expert ? 0 : begin,
                     expert ? columns : end - begin, tile.data());
    }
    rows(first, first + end - begin, tile.data());
  }
}

}  // namespace sw
