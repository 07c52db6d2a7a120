// Pre-training by span corruption on token shards.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libswitch/train/objective.h"

namespace sw {

class PretrainingObjective final : public Objective {
 public:
  struct NamedEvalSet {
    std::string name;
    std::unique_ptr<EvalSet> set;
  };

  /// `rows` samples a step from `dataset`, drawn with `seed` (that of the dataset).
  PretrainingObjective(std::unique_ptr<Dataset> dataset, uint64_t seed, int64_t rows,
                       std::vector<NamedEvalSet> eval_sets);

  const Dataset& dataset() const { return *dataset_; }
  int64_t rows() const override { return rows_; }
  void fill(int64_t step, MeshPart part, Batch& batch) const override;
  DataPosition position(int64_t step) const override;
  std::vector<Evaluation> evaluate(const Model& model, const Poll& poll) const override;

 private:
  std::unique_ptr<Dataset> dataset_;
  uint64_t seed_;
  int64_t rows_;
  std::vector<NamedEvalSet> eval_sets_;
};

}  // namespace sw
