#include "libswitch/train/evaluation.h"

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/options.h"
#include "libswitch/train/options.h"
#include "libswitch/train/step_sums.h"
#include "libswitch/train/training_shards.h"

namespace sw {
namespace {

void check_vocabulary(const CheckpointReader& reader, const DataVocabulary& vocabulary,
                      const std::string& name) {
  const std::string expected = vocabulary_of(reader);
  const std::string got = to_hex(vocabulary.sha256.data(), vocabulary.sha256.size());
  SW_CHECK(expected.empty() || expected == got, corrupt,
           "{}: was encoded with another vocabulary ({}...) than the checkpoint's ({}...)", name,
           got.substr(0, 12), expected.substr(0, 12));
  const int64_t rows = reader.entry("/model/shared/embedding").shape[0];
  SW_CHECK(vocabulary.vocab_size <= rows, corrupt,
           "{}: has {} ids, but the checkpoint's embedding table {} rows", name,
           vocabulary.vocab_size, rows);
}

}  // namespace

DatasetOptions trained_dataset_options(const CheckpointReader& reader) {
  DataOptions trained;
  OptionRegistry registry;
  // A run on tasks may have left the lengths to them.
  declare_data_options(registry, trained, {false, "temperature", 0});
  registry.apply_toml(reader.meta().config_toml, reader.path().string() + ": /meta/config.toml",
                      Source::file, UnknownKeys::ignore);
  if (trained.input_length == 0) trained.input_length = DataOptions().input_length;
  return trained.dataset_options(0);
}

std::unique_ptr<EvalSet> open_eval_set(const CheckpointReader& reader, const std::string& name,
                                       const DatasetOptions& options, int64_t max_tokens) {
  auto set = std::make_unique<EvalSet>(name, options, max_tokens);
  check_vocabulary(reader, set->vocabulary(), name);
  return set;
}

TokenRows token_rows(const Batch& batch) {
  TokenRows rows;
  rows.rows = batch.rows;
  rows.input_length = batch.input_length;
  rows.target_length = batch.target_length;
  rows.inputs = batch.inputs;
  rows.targets = batch.targets;
  rows.input_segments = batch.input_segments;
  rows.target_segments = batch.target_segments;
  return rows;
}

int64_t evaluation_rows(int64_t input_length, int64_t target_length) {
  constexpr int64_t kPositions = 8192;
  return std::max<int64_t>(1, kPositions / std::max(input_length, target_length));
}

double dropped_share(const std::vector<RouterStatistics>& layers) {
  int64_t tokens = 0, dropped = 0;
  for (const RouterStatistics& layer : layers) {
    tokens += layer.tokens;
    dropped += layer.dropped_tokens;
  }
  return tokens > 0 ? static_cast<double>(dropped) / static_cast<double>(tokens) : 0.0;
}

namespace {

// The windows are cut into batches of `rows`, dealt out to the data ranks in turn.
struct Deal {
  int64_t windows = 0, rows = 0;
  int64_t batches() const { return (windows + rows - 1) / rows; }
  int64_t rows_of(int64_t batch) const {
    return std::clamp<int64_t>(windows - batch * rows, 0, rows);
  }
};

void add_batch(const StepResult& result, int64_t rows, double& log_likelihood, Evaluation& out) {
  log_likelihood += result.log_likelihood;
  out.tokens += result.targets;
  out.sequences += rows;
  out.layers.resize(result.layers.size());
  for (size_t i = 0; i < result.layers.size(); ++i) out.layers[i].merge(result.layers[i]);
}

}  // namespace

Evaluation evaluate_set(const Model& model, const EvalRows& set, const std::string& name,
                        const Poll& poll, const ShardForward& forward) {
  Evaluation out;
  out.data = name;
  const Deal deal{set.rows(), evaluation_rows(set.input_length(), set.target_length())};
  Group& data = model.mesh().data();
  double log_likelihood = 0;
  Batch batch;
  for (int64_t first = 0; first < deal.batches(); first += data.size()) {
    if (poll) poll();
    fault_at(FaultSite::eval);
    // A rank that is left without windows goes along with rows of padding: others may need its
    // experts.
    const int64_t own = first + data.rank();
    set.fill(std::min(own * deal.rows, deal.windows), std::max<int64_t>(deal.rows_of(own), 1),
             batch);
    StepResult result = evaluate_batch(model, token_rows(batch), 1, forward);
    if (data.size() == 1) {
      add_batch(result, batch.rows, log_likelihood, out);
      continue;
    }
    // Added up in the order of the batches, as one rank does.
    const auto packed = data.all_gather_bytes(pack_observations(result));
    for (int64_t rank = 0; rank < data.size() && deal.rows_of(first + rank) > 0; ++rank) {
      unpack_observations(packed[static_cast<size_t>(rank)], result);
      add_batch(result, deal.rows_of(first + rank), log_likelihood, out);
    }
  }
  if (out.tokens > 0) out.neg_log_perplexity = log_likelihood / static_cast<double>(out.tokens);
  out.dropped_share = dropped_share(out.layers);
  return out;
}

}  // namespace sw
