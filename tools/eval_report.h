// What sw-eval prints.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "libswitch/base/timer.h"
#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/train/objective.h"
#include "libswitch/train/progress_line.h"
#include "tools/tool.h"

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

/// How many of a task's examples are answered, on stderr: a bar, or a line of the log now and then.
class AnswerProgress {
 public:
  AnswerProgress(ProgressMode mode, const std::string& task, int64_t examples)
      : mode_(mode), task_(task), examples_(examples), bar_(mode == ProgressMode::bar) {}
  void operator()(int64_t done);

 private:
  ProgressMode mode_;
  std::string task_;
  int64_t examples_;
  ProgressLine bar_;
  Timer timer_, since_;
};

}  // namespace sw
