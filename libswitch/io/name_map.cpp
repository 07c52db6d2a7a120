#include "libswitch/io/name_map.h"

#include <fmt/format.h>

#include <charconv>

#include "libswitch/base/error.h"

namespace sw {
namespace {

enum Stacks { kEncoder = 1, kDecoder = 2, kBoth = 3 };
enum Families { kSwitch = 1, kT5 = 2, kEither = 3 };
constexpr bool kTransposed = true, kAsIs = false;

// One correspondence below "<stack>/block_<N>/" and "<stack>.block.<N>.". In the right column
// <F> is the index of the feed-forward sublayer (1 in the encoder, 2 in the decoder) and <E> the
// expert. `axes` are those of our side, split at commas.
struct BlockRow {
  std::string_view ours;
  std::string_view theirs;
  bool transpose;
  std::string_view axes;
  int stacks = kBoth;
  int families = kEither;
};

// clang-format off
constexpr BlockRow kBlockRows[] = {
    {"attn/norm", "layer.0.layer_norm.weight", kAsIs, "d_model"},
    {"attn/q", "layer.0.SelfAttention.q.weight", kTransposed, "d_model,inner"},
    {"attn/k", "layer.0.SelfAttention.k.weight", kTransposed, "d_model,inner"},
    {"attn/v", "layer.0.SelfAttention.v.weight", kTransposed, "d_model,inner"},
    {"attn/o", "layer.0.SelfAttention.o.weight", kTransposed, "inner,d_model"},
    {"attn/relative_bias", "layer.0.SelfAttention.relative_attention_bias.weight", kTransposed, "head,bucket"},
    {"cross/norm", "layer.1.layer_norm.weight", kAsIs, "d_model", kDecoder},
    {"cross/q", "layer.1.EncDecAttention.q.weight", kTransposed, "d_model,inner", kDecoder},
    {"cross/k", "layer.1.EncDecAttention.k.weight", kTransposed, "d_model,inner", kDecoder},
    {"cross/v", "layer.1.EncDecAttention.v.weight", kTransposed, "d_model,inner", kDecoder},
    {"cross/o", "layer.1.EncDecAttention.o.weight", kTransposed, "inner,d_model", kDecoder},
    {"mlp/wi", "layer.<F>.mlp.wi.weight", kTransposed, "d_model,d_ff", kBoth, kSwitch},
    {"mlp/wi_0", "layer.<F>.mlp.wi_0.weight", kTransposed, "d_model,d_ff", kBoth, kSwitch},
    {"mlp/wi_1", "layer.<F>.mlp.wi_1.weight", kTransposed, "d_model,d_ff", kBoth, kSwitch},
    {"mlp/wo", "layer.<F>.mlp.wo.weight", kTransposed, "d_ff,d_model", kBoth, kSwitch},
    {"mlp/wi", "layer.<F>.DenseReluDense.wi.weight", kTransposed, "d_model,d_ff", kBoth, kT5},
    {"mlp/wi_0", "layer.<F>.DenseReluDense.wi_0.weight", kTransposed, "d_model,d_ff", kBoth, kT5},
    {"mlp/wi_1", "layer.<F>.DenseReluDense.wi_1.weight", kTransposed, "d_model,d_ff", kBoth, kT5},
    {"mlp/wo", "layer.<F>.DenseReluDense.wo.weight", kTransposed, "d_ff,d_model", kBoth, kT5},
    {"moe/router", "layer.<F>.mlp.router.classifier.weight", kTransposed, "d_model,expert", kBoth, kSwitch},
    {"moe/router_bias", "layer.<F>.mlp.router.classifier.bias", kAsIs, "expert", kBoth, kSwitch},
    {"moe/wi", "layer.<F>.mlp.experts.expert_<E>.wi.weight", kTransposed, "expert,d_model,d_ff", kBoth, kSwitch},
    {"moe/wi_0", "layer.<F>.mlp.experts.expert_<E>.wi_0.weight", kTransposed, "expert,d_model,d_ff", kBoth, kSwitch},
    {"moe/wi_1", "layer.<F>.mlp.experts.expert_<E>.wi_1.weight", kTransposed, "expert,d_model,d_ff", kBoth, kSwitch},
    {"moe/wo", "layer.<F>.mlp.experts.expert_<E>.wo.weight", kTransposed, "expert,d_ff,d_model", kBoth, kSwitch},
    // One name on their side whichever module follows it; "mlp" comes first for our_tensor.
    {"mlp/norm", "layer.<F>.layer_norm.weight", kAsIs, "d_model"},
    {"moe/norm", "layer.<F>.layer_norm.weight", kAsIs, "d_model", kBoth, kSwitch},
};
// clang-format on

// Parameters outside the blocks. The first row of a parameter is the name that is written; further
// rows are aliases met in files.
struct GlobalRow {
  std::string_view ours;
  std::string_view theirs;
  std::string_view axes;
};
constexpr GlobalRow kGlobalRows[] = {
    {"shared/embedding", "shared.weight", "vocab,d_model"},
    {"shared/embedding", "encoder.embed_tokens.weight", "vocab,d_model"},
    {"shared/embedding", "decoder.embed_tokens.weight", "vocab,d_model"},
    {"lm_head", "lm_head.weight", "vocab,d_model"},
    {"lm_head", "decoder.lm_head.weight", "vocab,d_model"},
    {"encoder/final_norm", "encoder.final_layer_norm.weight", "d_model"},
    {"decoder/final_norm", "decoder.final_layer_norm.weight", "d_model"},
};

struct StackRow {
  std::string_view ours, theirs;
  int flag;
  char ff_layer;
};
constexpr StackRow kStacks[] = {{"encoder/block_", "encoder.block.", kEncoder, '1'},
                                {"decoder/block_", "decoder.block.", kDecoder, '2'}};

// Cuts a decimal number off the front of `text`; -1 when there is none. Bounded, so that no name
// overflows.
int64_t take_number(std::string_view& text) {
  int64_t value = -1;
  if (text.empty() || text[0] < '0' || text[0] > '9') return -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value > 1'000'000) return -1;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// A parameter name of ours cut into its stack, block and rest; stack is null outside the blocks.
struct BlockName {
  const StackRow* stack = nullptr;
  int64_t block = 0;
  std::string_view rest;
};

BlockName parse_ours(std::string_view name) {
  for (const StackRow& stack : kStacks) {
    std::string_view rest = name;
    if (!take_prefix(rest, stack.ours)) continue;
    const size_t digits = rest.find('/');
    const int64_t block = take_number(rest);
    if (block < 0 || digits < 3 || !take_prefix(rest, "/")) continue;
    return {&stack, block, rest};
  }
  return {};
}

[[noreturn]] void fail_unknown(const std::string& name, std::string_view why) {
  fail(ErrorKind::usage, "name map: no parameter '{}'{}", name, why);
}

std::string with_ff_layer(std::string_view pattern, const StackRow& stack) {
  std::string out(pattern);
  if (const size_t at = out.find("<F>"); at != std::string::npos) {
    out.replace(at, 3, 1, stack.ff_layer);
  }
  return out;
}

std::vector<std::string> split_axes(std::string_view axes) {
  std::vector<std::string> out;
  while (!axes.empty()) {
    const size_t comma = axes.find(',');
    out.emplace_back(axes.substr(0, comma));
    axes = comma == std::string_view::npos ? std::string_view() : axes.substr(comma + 1);
  }
  return out;
}

}  // namespace

std::vector<HfTensor> hf_tensors(const std::string& name, HfFamily family, int64_t experts) {
  for (const GlobalRow& row : kGlobalRows) {
    if (row.ours == name) return {{std::string(row.theirs), -1, false}};
  }
  const BlockName parsed = parse_ours(name);
  if (parsed.stack == nullptr) fail_unknown(name, "");
  const int family_flag = family == HfFamily::t5 ? kT5 : kSwitch;
  bool known = false;
  for (const BlockRow& row : kBlockRows) {
    if (row.ours != parsed.rest || !(row.stacks & parsed.stack->flag)) continue;
    known = true;
    if (!(row.families & family_flag)) continue;
    const std::string full = fmt::format("{}{}.{}", parsed.stack->theirs, parsed.block,
                                         with_ff_layer(row.theirs, *parsed.stack));
    const size_t at = full.find("<E>");
    if (at == std::string::npos) return {{full, -1, row.transpose}};
    SW_CHECK(experts >= 1, usage, "name map: '{}' is stacked over experts, got {} experts", name,
             experts);
    std::vector<HfTensor> out;
    for (int64_t e = 0; e < experts; ++e) {
      std::string of_expert = full;
      of_expert.replace(at, 3, std::to_string(e));
      out.push_back({std::move(of_expert), e, row.transpose});
    }
    return out;
  }
  fail_unknown(name, known ? " in the T5 format, which has no experts" : "");
}

std::optional<OurTensor> our_tensor(std::string_view hf_name) {
  if (!take_prefix(hf_name, "switch_transformers.")) take_prefix(hf_name, "transformer.");
  for (const GlobalRow& row : kGlobalRows) {
    if (row.theirs == hf_name) return OurTensor{std::string(row.ours), -1, false};
  }
  for (const StackRow& stack : kStacks) {
    std::string_view rest = hf_name;
    if (!take_prefix(rest, stack.theirs)) continue;
    const int64_t block = take_number(rest);
    if (block < 0 || !take_prefix(rest, ".")) return std::nullopt;
    for (const BlockRow& row : kBlockRows) {
      if (!(row.stacks & stack.flag)) continue;
      const std::string pattern = with_ff_layer(row.theirs, stack);
      const auto found = [&](int64_t expert) {
        return OurTensor{fmt::format("{}{:03}/{}", stack.ours, block, row.ours), expert,
                         row.transpose};
      };
      const size_t at = pattern.find("<E>");
      if (at == std::string::npos) {
        if (rest == pattern) return found(-1);
        continue;
      }
      std::string_view tail = rest;
      if (!take_prefix(tail, std::string_view(pattern).substr(0, at))) continue;
      const int64_t expert = take_number(tail);
      if (expert >= 0 && tail == std::string_view(pattern).substr(at + 3)) return found(expert);
    }
  }
  return std::nullopt;
}

bool is_dropped_hf_tensor(std::string_view hf_name) {
  if (!take_prefix(hf_name, "switch_transformers.")) take_prefix(hf_name, "transformer.");
  return hf_name == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
}

std::vector<std::string> parameter_axes(const std::string& name) {
  for (const GlobalRow& row : kGlobalRows) {
    if (row.ours == name) return split_axes(row.axes);
  }
  const BlockName parsed = parse_ours(name);
  if (parsed.stack != nullptr) {
    for (const BlockRow& row : kBlockRows) {
      if (row.ours == parsed.rest && (row.stacks & parsed.stack->flag)) return split_axes(row.axes);
    }
  }
  fail_unknown(name, "");
}

}  // namespace sw
