// Which tokens of a text go to which experts.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "libswitch/nn/model.h"
#include "libswitch/report/token_classes.h"

namespace sw {

/// A shard of held-out text and what it is called.
struct DataDomain {
  std::string name, file;
};

/// "NAME=FILE" or "FILE", whose name is then the file's without folder and ending; an existing file
/// is taken as it is. Throws usage for an empty name or file.
DataDomain parse_data_domain(const std::string& text);

/// One layer. Tokens are those that the layer reads, padding left out: inputs in the encoder, the
/// preceding targets in the decoder. "The expert" is the router's first choice, whether the expert
/// had room or not.
struct LayerTokens {
  int64_t experts = 0;
  bool decoder = false;
  std::vector<int64_t> load;                      // [E]
  std::vector<std::vector<int64_t>> domain_load;  // [domains][E]
  std::unordered_map<uint64_t, int64_t> counts;   // of token * E + expert
  /// Neighbours in a row, and those of them that have the same expert.
  int64_t neighbours = 0, same_as_previous = 0;
  std::vector<int64_t> confidence;  // [1000]: tokens by the probability of their expert
  std::vector<int32_t> path;        // the expert of every token in order; only if asked for

  int64_t tokens() const;
  /// Share of neighbours with the same expert, and what it would be if the loads were drawn.
  double same_share() const;
  double same_by_chance() const;
  /// Nine probabilities that 10 %, 20 %, ... of the tokens have less than.
  std::vector<double> confidence_deciles() const;
};

/// The text as the model's two stacks read it, and what its tokens are.
struct TextRouting {
  std::vector<int64_t> encoder_tokens, decoder_tokens;  // [V]
  std::vector<std::string> pieces;                      // [V]
  std::vector<TokenClass> classes;                      // [V]
  const std::vector<int64_t>& tokens(bool decoder) const {
    return decoder ? decoder_tokens : encoder_tokens;
  }
  /// The decoder reads the padding id as its start.
  std::string piece(bool decoder, int64_t id) const {
    return decoder && id == 0 ? "<start>" : pieces.at(static_cast<size_t>(id));
  }
};

/// Collects from forward passes on one rank.
class TextRoutingRecorder {
 public:
  TextRoutingRecorder(int64_t vocab_size, int64_t domains, bool keep_paths)
      : domains_(domains), keep_paths_(keep_paths) {
    text_.encoder_tokens.resize(static_cast<size_t>(vocab_size));
    text_.decoder_tokens.resize(static_cast<size_t>(vocab_size));
  }
  /// What one pass over rows of domain number `domain` did.
  void observe(int64_t domain, const ModelInput& input, const ForwardResult& result);
  /// Without pieces and classes.
  TextRouting& text() { return text_; }
  std::vector<LayerTokens>& layers() { return layers_; }

 private:
  int64_t domains_;
  bool keep_paths_;
  TextRouting text_;
  std::vector<LayerTokens> layers_;
};

struct TokenShare {
  int64_t id = 0;
  int64_t count = 0;  // of the expert's tokens
  double lift = 0;    // share of the expert's tokens over the share of all tokens
};

/// For each expert the tokens that set it apart: those it gets more of than its part, by falling
/// count · ln lift, at most `most`, seen at least three times. `text` is of the layer's stack, [V].
std::vector<std::vector<TokenShare>> top_tokens(const LayerTokens& layer,
                                                const std::vector<int64_t>& text, size_t most);

/// Share of the tokens that go to the favourite expert of their id, over ids seen ten times or
/// more: 1 when the id alone decides. NaN without such ids.
double decided_by_token(const LayerTokens& layer, const std::vector<int64_t>& text);

/// Tokens of each class on each expert, [classes][E].
std::vector<std::vector<int64_t>> class_counts(const LayerTokens& layer,
                                               const std::vector<TokenClass>& classes);

}  // namespace sw
