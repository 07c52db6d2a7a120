#include "libswitch/train/task_evaluation.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/train/evaluation.h"
#include "libswitch/train/training_shards.h"

namespace sw {
namespace {

constexpr int64_t kShortTargets = 128, kBeamsForLongTargets = 4;

}  // namespace

GenerateOptions AnswerOptions::for_task(const Task& task, int64_t given) const {
  const int64_t target_length = given > 0 ? given : task.lengths().second;
  GenerateOptions out;
  out.beam = beam.value_or(target_length > kShortTargets ? kBeamsForLongTargets : 1);
  out.max_length = max_length.value_or(target_length);
  out.length_norm = length_norm;
  out.length_penalty = length_penalty;
  out.batch = rows;
  return out;
}

void declare_answer_options(OptionRegistry& r, AnswerOptions& o) {
  r.add("beam", &o.beam)
      .range(1, 1024)
      .default_text("1, for long targets 4")
      .help("beams of the search for answers; 1: greedy");
  r.add("max-length", &o.max_length)
      .range(1, 1 << 20)
      .default_text("the target length")
      .help("most tokens of an answer, its end included");
  r.add_choice("length-norm", &o.length_norm, {{"t5", LengthNorm::t5}, {"hf", LengthNorm::hf}})
      .help("how answers of different lengths compare")
      .advanced();
  r.add("length-penalty", &o.length_penalty)
      .default_text("0.6 for t5, 1 for hf")
      .help("exponent of the length norm")
      .advanced();
}

Tokenizer load_tokenizer(const CheckpointReader& reader, const std::string& given) {
  const std::string place = reader.path().string();
  const std::string& own = reader.meta().tokenizer;
  SW_CHECK(!own.empty() || !given.empty(), usage,
           "{}: holds no vocabulary; give the SentencePiece model it was trained with: --vocab "
           "V.model",
           place);
  Tokenizer tokenizer =
      given.empty() ? Tokenizer::from_bytes(own, place + ": vocabulary") : Tokenizer::load(given);
  const std::string expected = vocabulary_of(reader);
  const std::string got = to_hex(tokenizer.sha256().data(), tokenizer.sha256().size());
  SW_CHECK(expected.empty() || expected == got, corrupt,
           "{}: is another vocabulary ({}...) than that of {} ({}...); leave --vocab out, or give "
           "the file that the model was trained with",
           given.empty() ? place + ": vocabulary" : given, got.substr(0, 12), place,
           expected.substr(0, 12));
  const int64_t rows = reader.entry("/model/shared/embedding").shape[0];
  SW_CHECK(tokenizer.vocab_size() <= rows, corrupt,
           "{}: has {} ids, but the embedding table of {} {} rows; give the vocabulary that the "
           "model was trained with",
           given.empty() ? place + ": vocabulary" : given, tokenizer.vocab_size(), place, rows);
  return tokenizer;
}

TaskEvaluation::TaskEvaluation(std::unique_ptr<Task> task, const Tokenizer& tokenizer,
                               const std::string& name, const AnswerOptions& options,
                               int64_t input_length, int64_t target_length)
    : task_(std::move(task)),
      tokenizer_(tokenizer),
      name_(name),
      generate_(options.for_task(*task_, target_length)),
      set_(*task_, tokenizer, input_length, target_length) {
  generate_.validate();
}

int64_t TaskEvaluation::answering_bytes(const ModelConfig& model, DType compute) const {
  return generation_bytes(model, compute, generate_, set_.rows().input_length());
}

void TaskEvaluation::add_likelihood(const Model& model, const Poll& poll, Evaluation& out) const {
  double log_likelihood = 0;
  for (const PairRows& rows : set_.by_length()) {
    const Evaluation part = evaluate_set(model, rows, name_, poll);
    log_likelihood += part.neg_log_perplexity * static_cast<double>(part.tokens);
    out.tokens += part.tokens;
    out.layers.resize(part.layers.size());
    for (size_t i = 0; i < part.layers.size(); ++i) out.layers[i].merge(part.layers[i]);
  }
  out.neg_log_perplexity = log_likelihood / static_cast<double>(out.tokens);
  out.dropped_share = dropped_share(out.layers);
}

std::vector<std::string> TaskEvaluation::answer(const Model& model, const Poll& poll,
                                                const Extras& extras) const {
  // Answers do not depend on their neighbours; prompts of like length need the least padding.
  std::vector<std::vector<int32_t>> prompts = set_.prompts(), sorted;
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return prompts[a].size() > prompts[b].size(); });
  for (const size_t i : order) sorted.push_back(std::move(prompts[i]));
  std::vector<std::string> texts(sorted.size());
  Generator generator(model, generate_);
  // A few batches of every rank at a time.
  const auto at_once = static_cast<size_t>(4 * generate_.batch * model.mesh().data().size());
  for (size_t begin = 0; begin < sorted.size(); begin += at_once) {
    if (extras.progress) extras.progress(static_cast<int64_t>(begin));
    const size_t count = std::min(at_once, sorted.size() - begin);
    const std::vector<Answer> found =
        generator.generate(std::span(sorted).subspan(begin, count), begin, poll);
    for (size_t i = 0; i < count; ++i) {
      texts[order[begin + i]] = tokenizer_.decode(found[i].tokens);
    }
  }
  return texts;
}

Evaluation TaskEvaluation::evaluate(const Model& model, const Poll& poll,
                                    const Extras& extras) const {
  Evaluation out;
  out.data = name_;
  out.sequences = set_.pairs().size();
  if (extras.likelihood) add_likelihood(model, poll, out);
  std::vector<std::string> answers = answer(model, poll, extras);
  if (task_->labelled()) out.metrics = task_->metrics(answers);
  if (extras.answers != nullptr) *extras.answers = std::move(answers);
  return out;
}

}  // namespace sw
