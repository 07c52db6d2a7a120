// The weights that a student begins with.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_reader.h"
#include "libswitch/moe/statistics.h"
#include "libswitch/nn/model.h"

namespace sw {

/// Experts of a teacher that a sparse student keeps, ascending, by layer ("encoder/block_001").
using KeptExperts = std::map<std::string, std::vector<int64_t>>;

/// The `n` most used experts of each layer, by choices before capacity; of equally used ones the
/// lower.
KeptExperts most_used_experts(const std::vector<RouterStatistics>& layers, int64_t n);
/// The same from the checkpoint's telemetry, its last hundred rows. Throws usage when it has none.
KeptExperts most_used_experts(const CheckpointReader& reader, int64_t n);

/// Throws usage, naming the tensor, unless what a student of this kind takes over from the teacher,
/// `keep` experts of each layer among it, has the student's shapes. Reads no tensor.
void check_inheritable(const ModelConfig& student, const CheckpointReader& teacher, int64_t keep);

struct CopiedWeights {
  int64_t tensors = 0, fresh = 0;  // from the teacher; drawn anew
};

/// Draws all weights with `seed`, then copies from the teacher by name whatever is no expert and no
/// router: embeddings, head, attention, norms (of a former sparse layer too), relative biases,
/// dense feed-forward layers (Fedus et al. 2022, section 4.2). Where the student's layer is sparse
/// it gets the experts that `kept` names for it, and the router's columns of these. All ranks of
/// the student's mesh call it. Throws usage, naming the tensor, when a shape is another.
CopiedWeights initialize_from_teacher(Model& student, const CheckpointReader& teacher,
                                      const KeptExperts& kept, uint64_t seed);

}  // namespace sw
