#include "libswitch/nn/batch.h"

#include <algorithm>
#include <vector>

#include "libswitch/base/error.h"

namespace sw {
namespace {

// Segment of every position: given, or 1 for real tokens and 0 for padding.
std::vector<int32_t> segments_of(std::span<const int32_t> ids, std::span<const int32_t> segments,
                                 std::span<const uint8_t> mask, int32_t first_id) {
  if (!segments.empty()) return {segments.begin(), segments.end()};
  std::vector<int32_t> out(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    out[i] = mask.empty() ? (ids[i] >= first_id ? 1 : 0) : (mask[i] != 0 ? 1 : 0);
  }
  return out;
}

int64_t count_real(const std::vector<int32_t>& segments) {
  return std::count_if(segments.begin(), segments.end(), [](int32_t s) { return s != 0; });
}

Tensor nonpadding_of(const std::vector<int32_t>& segments) {
  std::vector<uint8_t> mask(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) mask[i] = segments[i] != 0;
  return Tensor::from({static_cast<int64_t>(mask.size())}, mask);
}

void check_size(const char* what, size_t got, int64_t expected, bool optional) {
  SW_CHECK((optional && got == 0) || static_cast<int64_t>(got) == expected, usage,
           "batch: {} has {} entries, expected rows x length = {}", what, got, expected);
}

void check_rows(const TokenRows& rows) {
  SW_CHECK(rows.rows >= 1 && rows.input_length >= 1 && rows.target_length >= 1, usage,
           "batch: rows {}, input length {}, target length {}: expected at least 1 each", rows.rows,
           rows.input_length, rows.target_length);
  const int64_t inputs = rows.rows * rows.input_length, targets = rows.rows * rows.target_length;
  check_size("inputs", rows.inputs.size(), inputs, false);
  check_size("targets", rows.targets.size(), targets, false);
  check_size("input segments", rows.input_segments.size(), inputs, true);
  check_size("target segments", rows.target_segments.size(), targets, true);
  check_size("input mask", rows.input_mask.size(), inputs, true);
  SW_CHECK(rows.input_segments.empty() == rows.target_segments.empty(), usage,
           "batch: segments are given for {} only, expected for both inputs and targets",
           rows.input_segments.empty() ? "targets" : "inputs");
}

}  // namespace

RealTokens count_real_tokens(const TokenRows& rows) {
  check_rows(rows);
  return {count_real(segments_of(rows.inputs, rows.input_segments, rows.input_mask, 1)),
          count_real(segments_of(rows.targets, rows.target_segments, {}, rows.first_target_id))};
}

ModelInput make_model_input(const TokenRows& rows, const Conventions& conventions, int64_t shards,
                            int64_t shard, const RealTokens* whole) {
  check_rows(rows);
  const int64_t b = rows.rows, s = rows.input_length, t = rows.target_length;
  const bool packed = !rows.input_segments.empty();
  const std::vector<int32_t> input_segments =
      segments_of(rows.inputs, rows.input_segments, rows.input_mask, 1);
  const std::vector<int32_t> target_segments =
      segments_of(rows.targets, rows.target_segments, {}, rows.first_target_id);

  ModelInput in;
  in.rows = b, in.input_length = s, in.target_length = t;
  in.shards = shards;
  in.first_row = shard * b;
  in.real_inputs = count_real(input_segments);
  in.real_targets = count_real(target_segments);
  in.real_inputs_total = whole != nullptr ? whole->inputs : in.real_inputs * shards;
  in.real_targets_total = whole != nullptr ? whole->targets : in.real_targets * shards;
  in.loss_denominator = conventions.loss_mean == Conventions::LossMean::positions
                            ? static_cast<double>(b * t * shards)
                            : static_cast<double>(std::max<int64_t>(in.real_targets_total, 1));

  std::vector<int32_t> shifted(rows.targets.size()), targets(rows.targets.size());
  for (int64_t row = 0; row < b; ++row) {
    for (int64_t i = 0; i < t; ++i) {
      const auto at = static_cast<size_t>(row * t + i);
      const bool starts = i == 0 || (packed && target_segments[at] != target_segments[at - 1]);
      shifted[at] = starts ? 0 : std::max(rows.targets[at - 1], 0);
      targets[at] = target_segments[at] != 0 && rows.targets[at] >= rows.first_target_id
                        ? rows.targets[at]
                        : -1;
    }
  }
  in.inputs = Tensor::from({b * s}, rows.inputs);
  in.decoder_inputs = Tensor::from({b * t}, shifted);
  in.targets = Tensor::from({b * t}, targets);

  const bool inputs_padded = in.real_inputs < b * s, targets_padded = in.real_targets < b * t;
  if (inputs_padded) in.input_nonpadding = nonpadding_of(input_segments);
  if (targets_padded) in.target_nonpadding = nonpadding_of(target_segments);

  const Tensor encoder = Tensor::from({b, s}, input_segments);
  const Tensor decoder = Tensor::from({b, t}, target_segments);
  if (packed || conventions.mask_target_padding) {
    if (packed || inputs_padded) in.encoder_query_segments = in.encoder_key_segments = encoder;
    if (packed || targets_padded) in.decoder_segments = decoder;
    if (packed || inputs_padded || targets_padded) {
      in.cross_query_segments = decoder;
      in.cross_key_segments = encoder;
    }
  } else if (inputs_padded) {
    // Only keys are masked: every query, padding included, counts as segment 1.
    in.encoder_query_segments =
        Tensor::from({b, s}, std::vector<int32_t>(static_cast<size_t>(b * s), 1));
    in.cross_query_segments =
        Tensor::from({b, t}, std::vector<int32_t>(static_cast<size_t>(b * t), 1));
    in.encoder_key_segments = in.cross_key_segments = encoder;
  }
  return in;
}

}  // namespace sw
