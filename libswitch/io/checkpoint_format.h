// How a checkpoint lies in its file (format version 1.0). Private to io/.
//
// One HDF5 file, superblock version 3 (bounds V110..V110), then a seal behind the HDF5 image.
//
//   /             attributes: format "switch-checkpoint", format_version [1, 0], step, tokens,
//                 params_total, params_active, preset, tool_version, created_utc, digest, and free
//                 ones
//   /meta         config.toml, metrics.json (scalar UTF-8), argv (UTF-8 [n]), tokenizer.model
//                 u8 [n] with attribute sha256
//   /model/...    weights; /optim/... optimizer state (attribute name); /master/... masters of
//                 bf16 weights
//   /train        seed, lr, loss_ema, loss_variance, skipped_steps;
//                 data/{manifest_sha256, seed, epoch, ordinal, source_names, source_ordinals}
//   /telemetry    train/{step, loss, lr, grad_norm, tok_s} [T]
//                 router/{step [T], layer_name [L], tokens, prob_sum [T, L, E], dropped, capacity,
//                 entropy, confidence, aux, z [T, L]}
//   /layout       tensors [n], tiles [m]: tables of compounds, see checkpoint_layout.h
//
// Every dataset is contiguous, allocated at creation, begins at a multiple of 4096, has no filter
// and is reached by hard links only; floating-point and integer types are little-endian, bf16 is a
// 16-bit float (sign bit 15, exponent bits 7..14 with bias 127). Every dimension has a label
// (attribute DIMENSION_LABELS).
//
// What is checked, and by what:
//   - tensors: XXH3-64 of each tile, in /layout/tiles;
//   - all other bytes of the HDF5 image: XXH3-128 in the seal (checkpoint_seal.h), verified before
//     HDF5 looks at the file;
//   - the up to 4095 bytes between the end of a tensor and the next multiple of 4096 carry nothing
//     and are not checked.
// HDF5 ignores bytes behind its image, so h5ls, h5dump and h5py read the file as it is.
#pragma once

#include <cstdint>

namespace sw::checkpoint_format {

inline constexpr const char* kFormatName = "switch-checkpoint";
inline constexpr int64_t kMajor = 1, kMinor = 0;
inline constexpr uint64_t kAlignment = 4096;

/// Attributes of the root with a meaning of their own.
inline constexpr const char* kReservedAttributes[] = {
    "format",        "format_version", "step",         "tokens",      "params_total",
    "params_active", "preset",         "tool_version", "created_utc", "digest"};

}  // namespace sw::checkpoint_format
