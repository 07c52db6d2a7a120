#include "libswitch/generate/generator.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"
#include "libswitch/generate/decoder.h"
#include "libswitch/generate/search.h"
#include "libswitch/kernels/few_rows.h"

namespace sw {

LengthNorm length_norm_from(const std::string& name) {
  if (name == "t5") return LengthNorm::t5;
  if (name == "hf") return LengthNorm::hf;
  fail(ErrorKind::usage, "length-norm: unknown choice '{}', expected t5 or hf", name);
}

void GenerateOptions::validate() const {
  SW_CHECK(beam >= 1 && max_length >= 1 && batch >= 1, usage,
           "generate: beam {}, max-length {} and batch {} must be at least 1", beam, max_length,
           batch);
  SW_CHECK(temperature >= 0 && std::isfinite(temperature), usage,
           "generate: temperature must be 0 or a positive number, got {}", temperature);
  SW_CHECK(top_k >= 0 && top_p > 0 && top_p <= 1, usage,
           "generate: top-k must be at least 0 and top-p in (0, 1], got {} and {}", top_k, top_p);
  SW_CHECK(beam == 1 || temperature == 0, usage,
           "generate: beam search does not draw; give beam {} or temperature {}, not both", beam,
           temperature);
  SW_CHECK(!length_penalty || std::isfinite(*length_penalty), usage,
           "generate: length-penalty must be a number, got {}", *length_penalty);
}

int64_t generation_bytes(const ModelConfig& model, DType compute, const GenerateOptions& options,
                         int64_t prompt_length) {
  const int64_t value = element_bytes(compute), single = element_bytes(DType::f32);
  int64_t panels = model.vocab_size * model.d_model;  // of the head
  for (const ParameterSpec& spec : parameter_specs(model)) {
    const bool shared = spec.name.ends_with("/cross/k") || spec.name.ends_with("/cross/v");
    if (spec.name.starts_with("decoder/") && !shared) panels += spec.elements();
  }
  const int64_t tokens = options.batch * prompt_length, rows = options.batch * options.beam;
  const int64_t cached = model.decoder_layers * 2 * model.inner() * single;  // of a position
  const int64_t encoder = tokens * (3 * model.d_model + 4 * model.inner() + model.d_ff) * value;
  // Caches of what was decoded double their size: half as much again on average.
  const int64_t steps =
      cached * (tokens + rows * options.max_length * 3 / 2) + rows * model.vocab_size * single;
  return panels * value + std::max(encoder, steps);
}

struct Generator::Impl {
  ModelConfig config;
  GenerateOptions options;
  const Mesh& mesh;
  DecodingWeights weights;  // packed for steps
  std::unique_ptr<ExpertSource> experts;
  SparseLayers sparse;
  Decoder decoder;
  Work work;

  Impl(const ModelConfig& model_config, DType compute, const Mesh& model_mesh, DecodingWeights w,
       std::unique_ptr<ExpertSource> e, const GenerateOptions& o)
      : config(model_config),
        options(o),
        mesh(model_mesh),
        weights(packed_for_steps(std::move(w))),
        experts(std::move(e)),
        sparse(config, compute, *experts, mesh, options.use_capacity, options.seed),
        decoder(config, weights, sparse) {
    options.validate();
    SW_CHECK(compute == DType::f32 || compute == DType::bf16, usage,
             "generate: precision {} is not one of f32 and bf16", dtype_name(compute));
  }

  void check_prompt(const std::vector<int32_t>& prompt, uint64_t ordinal) const {
    SW_CHECK(!prompt.empty(), usage,
             "generate: prompt {} has no token; expected at least the end of sequence",
             ordinal + 1);
    for (const int32_t id : prompt) {
      SW_CHECK(id >= 0 && id < config.vocab_size, usage,
               "generate: prompt {} has token {}, but the model's vocabulary has {} ids",
               ordinal + 1, id, config.vocab_size);
    }
  }

  // Ranks that hold each other's experts take every step together, until none of them has to.
  bool lockstep() const { return mesh.expert().size() > 1; }

  struct Place {
    size_t search;
    int64_t first_row, rows;
  };

  /// The answers to `prompts`, decoded together. Without prompts (in lockstep) the rank goes along.
  std::vector<Answer> decode(std::span<const std::vector<int32_t>> prompts, uint64_t ordinal) {
    static const std::vector<int32_t> kEmptyPrompt{1};
    std::vector<std::span<const int32_t>> texts(prompts.begin(), prompts.end());
    if (texts.empty()) texts.push_back(kEmptyPrompt);
    std::vector<uint64_t> ordinals;
    std::vector<std::unique_ptr<Search>> searches;
    for (size_t i = 0; i < texts.size(); ++i) {
      ordinals.push_back(ordinal + i);
      searches.push_back(make_search(options, ordinals.back()));
    }
    decoder.begin(encode(config, weights, sparse, texts, ordinals));

    std::vector<int32_t> parents, tokens;
    std::vector<Place> places;
    for (size_t i = 0; i < texts.size(); ++i) {
      parents.push_back(static_cast<int32_t>(i));
      tokens.push_back(0);  // the start of every answer
      places.push_back({i, static_cast<int64_t>(i), 1});
    }
    while (true) {
      const Tensor& logits = decoder.step(parents, tokens);
      work.steps += 1, work.rows += logits.size(0);
      const int64_t vocabulary = logits.size(1);
      const auto* values = logits.data<float>();
      Tensor log_z = Tensor::empty({logits.size(0)}, DType::f32);
      kernels::rows_log_sum_exp(Stream{}, log_z, logits);
      const auto* sums = log_z.data<float>();
      parallel_for(static_cast<int64_t>(places.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Place& place = places[static_cast<size_t>(i)];
          searches[place.search]->advance(values + place.first_row * vocabulary,
                                          sums + place.first_row, vocabulary);
        }
      });
      parents.clear(), tokens.clear();
      std::vector<Place> going_on;
      for (const Place& place : places) {
        const auto& next = searches[place.search]->next();
        if (next.empty()) continue;
        going_on.push_back({place.search, static_cast<int64_t>(parents.size()),
                            static_cast<int64_t>(next.size())});
        for (const Search::Next& row : next) {
          parents.push_back(static_cast<int32_t>(place.first_row + row.row));
          tokens.push_back(row.token);
        }
      }
      places = std::move(going_on);
      if (lockstep()) {
        // What a rank without prompts says keeps nobody waiting.
        const auto left = prompts.empty() ? int64_t{0} : static_cast<int64_t>(places.size());
        if (mesh.expert().all_reduce_value(left, ReduceOp::max) == 0) break;
        if (places.empty()) parents.push_back(0), tokens.push_back(1);
      } else if (places.empty()) {
        break;
      }
    }
    std::vector<Answer> answers;
    for (size_t i = 0; i < prompts.size(); ++i) answers.push_back(searches[i]->answer());
    return answers;
  }
};

namespace {

// Answers as bytes, for other ranks.
std::string pack(const std::vector<Answer>& answers) {
  std::string out;
  const auto put = [&out](const void* from, size_t bytes) {
    out.append(static_cast<const char*>(from), bytes);
  };
  for (const Answer& answer : answers) {
    const uint64_t count = answer.tokens.size();
    put(&count, sizeof count);
    put(answer.tokens.data(), count * sizeof(int32_t));
    put(&answer.score, sizeof answer.score);
  }
  return out;
}

void unpack(const std::string& bytes, std::vector<Answer>& answers) {
  size_t at = 0;
  const auto take = [&](void* to, size_t count) {
    std::memcpy(to, bytes.data() + at, count);
    at += count;
  };
  while (at < bytes.size()) {
    uint64_t count = 0;
    take(&count, sizeof count);
    Answer answer;
    answer.tokens.resize(count);
    take(answer.tokens.data(), count * sizeof(int32_t));
    take(&answer.score, sizeof answer.score);
    answers.push_back(std::move(answer));
  }
}

}  // namespace

Generator::Generator(const Model& model, const GenerateOptions& options)
    : impl_(std::make_unique<Impl>(model.config(), model.compute(), model.mesh(), weights_of(model),
                                   experts_of(model), options)) {}

Generator::Generator(const ModelConfig& config, DType compute, DecodingWeights weights,
                     std::unique_ptr<ExpertSource> experts, const GenerateOptions& options)
    : impl_(std::make_unique<Impl>(config, compute, single_mesh(), std::move(weights),
                                   std::move(experts), options)) {}

Generator::~Generator() = default;

const Generator::Work& Generator::work() const { return impl_->work; }

std::vector<Answer> Generator::generate(std::span<const std::vector<int32_t>> prompts,
                                        uint64_t first_ordinal, const std::function<void()>& poll) {
  Group& data = impl_->mesh.data();
  const auto batch = static_cast<size_t>(impl_->options.batch);
  const auto ranks = static_cast<size_t>(data.size()), rank = static_cast<size_t>(data.rank());
  // Before any collective, so that all ranks throw or none.
  for (size_t i = 0; i < prompts.size(); ++i) impl_->check_prompt(prompts[i], first_ordinal + i);
  std::vector<Answer> answers;
  for (size_t first = 0; first < prompts.size(); first += batch * ranks) {
    if (poll) poll();
    // Each rank takes an equal share of what is left, but no more than a batch.
    const size_t left = prompts.size() - first;
    const size_t share = std::min(batch, (left + ranks - 1) / ranks);
    const size_t begin = std::min(rank * share, left), end = std::min(begin + share, left);
    std::vector<Answer> own;
    if (end > begin || impl_->lockstep()) {
      own =
          impl_->decode(prompts.subspan(first + begin, end - begin), first_ordinal + first + begin);
    }
    if (ranks == 1) {
      for (Answer& answer : own) answers.push_back(std::move(answer));
      continue;
    }
    for (const std::string& bytes : data.all_gather_bytes(pack(own))) unpack(bytes, answers);
  }
  return answers;
}

}  // namespace sw
