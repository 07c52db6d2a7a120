// A distillation from its options: a teacher's checkpoint, a student, shards or tasks.
#pragma once

#include <filesystem>
#include <string>

#include "libswitch/train/distillation.h"
#include "libswitch/train/options.h"
#include "libswitch/train/training_run.h"
#include "libswitch/train/training_tasks.h"

namespace sw {

struct DistillOptions {
  DistillOptions() { data.input_length = 0; }  // 512, or the tasks' own
  std::filesystem::path teacher, student, baseline;
  DistillationConfig mix;
  std::filesystem::path teacher_logits, write_teacher_logits;
  int64_t teacher_top_k = 32;         // logits written
  std::string init = "teacher";       // teacher, fresh
  int64_t keep_experts = 0;           // 0: a student without the teacher's experts
  std::string expert_usage = "data";  // data, telemetry
  int64_t usage_rows = 256;           // rows that the usage is measured on
  ModelOptions model;
  DataOptions data;
  TaskOptions task;  // instead
  LearningOptions learning;
  RunOptions run;
};
void declare_distill_options(OptionRegistry& registry, DistillOptions& options);

/// Trains to the end or until stopped, then compares student, teacher and baseline on what
/// --eval-data or --eval-task hold. Options get their resolved values on the way.
TrainOutcome distill(DistillOptions& options, RunContext& context);
/// What distill() would do, without creating anything.
TrainingPlan plan_distillation(DistillOptions& options, RunContext& context);

}  // namespace sw
