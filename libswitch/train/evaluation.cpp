#include "libswitch/train/evaluation.h"

#include <algorithm>

#include "libswitch/train/step.h"

namespace sw {

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

Evaluation evaluate_set(const Model& model, const EvalSet& set, const std::string& name,
                        const Poll& poll) {
  Evaluation out;
  out.data = name;
  const int64_t rows = evaluation_rows(set.input_length(), set.target_length());
  double log_likelihood = 0;
  Batch batch;
  for (int64_t first = 0; first < set.windows(); first += rows) {
    if (poll) poll();
    set.fill(first, std::min(rows, set.windows() - first), batch);
    const StepResult result = evaluate_batch(model, token_rows(batch));
    log_likelihood += result.log_likelihood;
    out.tokens += result.targets;
    out.sequences += batch.rows;
    out.layers.resize(result.layers.size());
    for (size_t i = 0; i < result.layers.size(); ++i) out.layers[i].merge(result.layers[i]);
  }
  if (out.tokens > 0) out.neg_log_perplexity = log_likelihood / static_cast<double>(out.tokens);
  out.dropped_share = dropped_share(out.layers);
  return out;
}

}  // namespace sw
