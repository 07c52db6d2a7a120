// Answers of a model to prompts: greedy, beam search, or sampling, with cached keys and values.
//
//   Generator generator(model, {.beam = 4, .max_length = 64});
//   std::vector<Answer> answers = generator.generate(prompts);
//
// An answer depends on its prompt, its ordinal and the options alone: not on the prompts beside it,
// the batch size, the number of threads or of ranks (but see GenerateOptions::use_capacity).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libswitch/generate/weights.h"

namespace sw {

/// What an answer's log-likelihood is divided by to compare answers of different lengths.
enum class LengthNorm {
  t5,  // ((5 + length) / 6)^penalty, penalty 0.6 (Wu et al. 2016; Raffel et al. 2020, code)
  hf,  // length^penalty, penalty 1 (Hugging Face generate)
};
LengthNorm length_norm_from(const std::string& name);

struct GenerateOptions {
  int64_t beam = 1;  // answers kept alive for each prompt; 1: no beam search
  LengthNorm length_norm = LengthNorm::t5;
  std::optional<double> length_penalty;  // instead of the norm's own
  double temperature = 0;                // 0: the most probable token (or beam search); else drawn
  int64_t top_k = 0;                     // drawn from the k most probable tokens; 0: all
  double top_p = 1;                      // from the smallest set of tokens with this probability
  uint64_t seed = 0;
  int64_t max_length = 128;  // new tokens, the end included
  int64_t batch = 16;        // prompts that a rank decodes together
  /// Experts take no more tokens than the checkpoint's rule allows in evaluation, and drop the
  /// others; the tokens of a batch then compete.
  bool use_capacity = false;
  /// Throws usage, naming the option and what it may be.
  void validate() const;
};

struct Answer {
  std::vector<int32_t> tokens;  // without the start token; with the end token (1), if it came
  double score = 0;             // log-likelihood divided by the length norm
  bool operator==(const Answer&) const = default;
};

/// Memory of a Generator of a model, beside the model's, with prompts of at most `prompt_length`
/// tokens: panels, caches, what the encoder passes on, logits. Of one rank without a model axis.
int64_t generation_bytes(const ModelConfig& model, DType compute, const GenerateOptions& options,
                         int64_t prompt_length);

class Generator {
 public:
  /// Takes the model's weights as they are: after a training step make another one. The decoder's
  /// and the head are copied into panels, the others shared (but on a mesh with a model axis all
  /// are put together in copies); the model must outlive it. Throws usage for options out of range.
  /// All ranks of the model's mesh make one.
  Generator(const Model& model, const GenerateOptions& options);
  /// On one rank, from weights and experts that are not in a Model (checkpoint_experts.h).
  Generator(const ModelConfig& config, DType compute, DecodingWeights weights,
            std::unique_ptr<ExpertSource> experts, const GenerateOptions& options);
  ~Generator();

  /// One answer a prompt, in their order. Prompts are token ids with the end of sequence, of at
  /// least one token; `first_ordinal` numbers the first of them. Every rank of the mesh calls it
  /// with the same prompts and gets all answers: the data ranks share the work. `poll`, where
  /// given, is called before every batch.
  std::vector<Answer> generate(std::span<const std::vector<int32_t>> prompts,
                               uint64_t first_ordinal = 0, const std::function<void()>& poll = {});

  /// Steps of decoding so far, and rows in them (on this rank).
  struct Work {
    int64_t steps = 0, rows = 0;
  };
  const Work& work() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sw
