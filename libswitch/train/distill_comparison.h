// What a distillation reached: student, teacher and baseline side by side.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "libswitch/train/objective.h"

namespace sw {

/// Share of the teacher's gain over the baseline that the student keeps (Fedus et al. 2022, table
/// 6); NaN where the teacher gains nothing.
double share_kept(double baseline, double student, double teacher);

/// Evaluations on the same data, `baseline` perhaps null: one line of the log for each figure, and
/// the event `distilled` of metrics.jsonl.
nlohmann::ordered_json compare_models(int64_t step, const Evaluation& student,
                                      const Evaluation& teacher, const Evaluation* baseline,
                                      double compression);

/// Whether a line of the file is this event, but for its time. Throws io.
bool holds_event(const std::filesystem::path& metrics, const nlohmann::ordered_json& event);

}  // namespace sw
