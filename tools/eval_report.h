// What sw-eval prints.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/objective.h"

namespace sw {

/// Negative log perplexities: a table, or one line of JSON. `argument` is the checkpoint as the
/// user named it.
std::string perplexity_table(const std::vector<Evaluation>& results);
std::string perplexity_json(const CheckpointReader& reader, const std::string& argument,
                            const std::vector<Evaluation>& results);

struct TaskResult {
  std::string task;
  int64_t examples = 0;
  std::vector<std::pair<std::string, double>> metrics;  // in percent
};

/// Metrics of tasks; `reader` is null where no checkpoint was asked.
std::string task_table(const std::vector<TaskResult>& results);
std::string task_json(const CheckpointReader* reader, const std::string& argument,
                      const std::vector<TaskResult>& results);

}  // namespace sw
