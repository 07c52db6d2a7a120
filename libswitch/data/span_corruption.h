// Span corruption, the pre-training objective of T5 (Raffel et al. 2020, section 3.1.4, as in the
// authors' `random_spans_noise_mask` and `span_corruption`).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libswitch/base/rng.h"

namespace sw {

struct SpanCorruption {
  double noise_density = 0.15;
  double mean_span = 3.0;  // mean length of a noise span, in tokens
};

/// Lengths that go together: `tokens` of raw text become at most `inputs` and exactly `targets`
/// ids, end-of-sequence included in both.
struct WindowLengths {
  int64_t tokens = 0, inputs = 0, targets = 0;
};

/// The largest window whose inputs fit `inputs_length` (512 -> 568 tokens, 512 inputs, 114
/// targets). Throws usage for a density outside (0, 1), a mean span below 1, an input length below
/// 2.
WindowLengths window_lengths(int64_t inputs_length, const SpanCorruption& options = {});

/// Which of `length` tokens are noise: as many as the density says, in equally likely compositions
/// into spans, text first and noise last. `length` >= 1.
std::vector<uint8_t> noise_mask(int64_t length, const SpanCorruption& options, RngStream& rng);

/// Replaces each run of noise by one sentinel: `first_sentinel`, then descending. Appended to
/// `out`; without end-of-sequence.
void replace_noise(std::span<const int32_t> tokens, std::span<const uint8_t> noise,
                   int32_t first_sentinel, std::vector<int32_t>& out);

/// Inputs (noise replaced by sentinels) and targets (text replaced by sentinels) of one window,
/// each cut to its length less one and ended by `eos`.
struct CorruptedWindow {
  std::vector<int32_t> inputs, targets;
};
CorruptedWindow corrupt_window(std::span<const int32_t> tokens, std::span<const uint8_t> noise,
                               int32_t first_sentinel, int32_t eos, int64_t inputs_length,
                               int64_t targets_length);

}  // namespace sw
