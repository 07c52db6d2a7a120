#include "libswitch/train/pretraining.h"

#include "libswitch/train/evaluation.h"

namespace sw {

PretrainingObjective::PretrainingObjective(std::unique_ptr<Dataset> dataset, uint64_t seed,
                                           int64_t rows, std::vector<NamedEvalSet> eval_sets)
    : dataset_(std::move(dataset)), seed_(seed), rows_(rows), eval_sets_(std::move(eval_sets)) {}

void PretrainingObjective::fill(int64_t step, MeshPart part, Batch& batch) const {
  dataset_->fill(static_cast<uint64_t>(step * rows_ + part.begin(rows_)), part.count(rows_), batch);
}

DataPosition PretrainingObjective::position(int64_t step) const {
  DataPosition position;
  position.manifest_sha256 = dataset_->manifest().hex();
  position.seed = seed_;
  position.ordinal = static_cast<uint64_t>(step * rows_);
  position.epoch = static_cast<int64_t>(dataset_->position(position.ordinal).epoch);
  return position;
}

std::vector<Evaluation> PretrainingObjective::evaluate(const Model& model, const Poll& poll) const {
  std::vector<Evaluation> results;
  for (const NamedEvalSet& eval : eval_sets_) {
    results.push_back(evaluate_set(model, *eval.set, eval.name, poll));
  }
  return results;
}

}  // namespace sw
