// How the tokens of one answer are chosen from the model's logits.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "libswitch/generate/generator.h"

namespace sw {

class Search {
 public:
  virtual ~Search() = default;
  /// A row of the next step: it goes on where row `row` of this search's last step stopped.
  struct Next {
    int32_t row = 0, token = 0;
  };
  /// Takes the logits [rows, V] of this search's rows, and log Σ exp of each, and decides. The
  /// first step has one row.
  virtual void advance(const float* logits, const float* log_z, int64_t vocabulary) = 0;
  /// Rows of the next step; none: the answer is final.
  const std::vector<Next>& next() const { return next_; }
  virtual Answer answer() const = 0;

 protected:
  std::vector<Next> next_;
};

/// Beam search when options.beam > 1, else one row by greedy choice or draws. `ordinal`: of the
/// prompt.
std::unique_ptr<Search> make_search(const GenerateOptions& options, uint64_t ordinal);

/// What a log-likelihood of an answer of `length` tokens is divided by.
double length_divisor(const GenerateOptions& options, int64_t length);

}  // namespace sw
