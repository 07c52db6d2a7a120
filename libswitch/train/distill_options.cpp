#include "libswitch/train/distill_run.h"

namespace sw {

void declare_distill_options(OptionRegistry& r, DistillOptions& o) {
  r.group("distill", "Distillation");
  r.add("teacher", &o.teacher)
      .value_name("CHECKPOINT")
      .required()
      .help("whom the student learns from: a .h5 file or a run folder");
  r.add("student", &o.student)
      .value_name("CHECKPOINT")
      .default_text("made anew: --preset, or the teacher's dense twin")
      .help("a student that goes on learning");
  r.add("keep-experts", &o.keep_experts)
      .at_least(0)
      .default_text("a dense student")
      .help("make a sparse student of the N most used experts of each layer")
      .details(
          "Their weights and the routers' columns are copied too. With --steps 0 that is all: the "
          "teacher pruned to what its data use.");
  r.add("soft-weight", &o.mix.soft_weight)
      .range(0, 1)
      .help("weight of the teacher's distribution; the labels have the rest");
  r.add("temperature", &o.mix.temperature).above(0).help("that both distributions are softened by");
  r.add_choice("init", &o.init, {"teacher", "fresh"})
      .help("where the student's weights begin; teacher: all that is no expert")
      .details(
          "Embeddings, attention, norms, relative biases and dense feed-forward layers are copied "
          "by name; feed-forward layers in place of experts are drawn anew.");
  r.add("baseline", &o.baseline)
      .value_name("CHECKPOINT")
      .help("a model without a teacher, for the share of the teacher's gain");
  r.add_choice("expert-usage", &o.expert_usage, {"data", "telemetry"})
      .advanced()
      .help("what --keep-experts goes by: the given data, or the teacher's own training");
  r.add("usage-rows", &o.usage_rows)
      .at_least(1)
      .unit("rows")
      .advanced()
      .help("of the given data that the usage is measured on");
  r.add("write-teacher-logits", &o.write_teacher_logits)
      .value_name("FILE")
      .advanced()
      .help("keep what the teacher says of the training rows, for other students")
      .details(
          "The largest logits of each target, 8 bytes each. A student of the same data, --batch, "
          "--seed and lengths reads them with --teacher-logits and needs no teacher while it "
          "learns.");
  r.add("teacher-top-k", &o.teacher_top_k)
      .range(1, 1 << 16)
      .advanced()
      .help("logits that --write-teacher-logits keeps of each target");
  r.add("teacher-logits", &o.teacher_logits)
      .value_name("FILE")
      .advanced()
      .help("what the teacher said, from a file; the rest has no probability");
  declare_model_options(r, o.model);
  declare_data_options(r, o.data, {false, "mixture-temperature", 0});
  declare_task_options(r, o.task, false, false);
  declare_learning_options(r, o.learning, 0);
  declare_run_options(r, o.run);
  r.find("experts")->default_text("0, --keep-experts, or the student's");
  for (const char* name :
       {"conventions", "expert-every", "router", "device", "seed", "capacity-factor"}) {
    r.find(name)->advanced();
  }
}

}  // namespace sw
