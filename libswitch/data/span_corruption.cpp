#include "libswitch/data/span_corruption.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libswitch/base/error.h"

namespace sw {
namespace {

// Halves go to the even neighbour, as in Python and TensorFlow.
int64_t round_half_even(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

// Lengths of `parts` positive parts that add up to `items`, all compositions equally likely: of the
// items - 1 places between two items, parts - 1 are drawn to begin a part.
std::vector<int64_t> random_partition(int64_t items, int64_t parts, RngStream& rng) {
  std::vector<int64_t> places(static_cast<size_t>(items - 1));
  std::iota(places.begin(), places.end(), 1);
  for (int64_t i = 0; i + 1 < parts; ++i) {
    const auto j = i + static_cast<int64_t>(rng.below(static_cast<uint64_t>(items - 1 - i)));
    std::swap(places[static_cast<size_t>(i)], places[static_cast<size_t>(j)]);
  }
  places.resize(static_cast<size_t>(parts - 1));
  std::sort(places.begin(), places.end());
  places.push_back(items);
  std::vector<int64_t> lengths(places.size());
  std::adjacent_difference(places.begin(), places.end(), lengths.begin());
  return lengths;
}

void check(const SpanCorruption& options) {
  SW_CHECK(options.noise_density > 0 && options.noise_density < 1, usage,
           "noise density {} is outside (0, 1)", options.noise_density);
  SW_CHECK(options.mean_span >= 1, usage, "mean span {} is below 1", options.mean_span);
}

}  // namespace

WindowLengths window_lengths(int64_t inputs_length, const SpanCorruption& options) {
  check(options);
  SW_CHECK(inputs_length >= 2, usage, "input length {} is below 2", inputs_length);
  const auto lengths = [&](int64_t tokens) {
    const int64_t noise = round_half_even(static_cast<double>(tokens) * options.noise_density);
    const int64_t spans = round_half_even(static_cast<double>(noise) / options.mean_span);
    return WindowLengths{tokens, tokens - noise + spans + 1, noise + spans + 1};
  };
  int64_t tokens = inputs_length - 1;
  while (lengths(tokens + 1).inputs <= inputs_length) ++tokens;
  WindowLengths result = lengths(tokens);
  // The authors keep targets no longer than inputs at a density of one half.
  if (options.noise_density == 0.5 && result.targets > inputs_length) {
    --result.tokens;
    --result.targets;
  }
  return result;
}

std::vector<uint8_t> noise_mask(int64_t length, const SpanCorruption& options, RngStream& rng) {
  check(options);
  SW_CHECK(length >= 1, internal, "noise mask of length {}", length);
  const int64_t n = std::max<int64_t>(length, 2);
  // In double precision, as window_lengths: the authors compute this in single precision, which
  // rounds 0.15 n the other way at some n = 10 (mod 20), cutting the targets of such windows.
  const int64_t noise = std::clamp<int64_t>(
      round_half_even(static_cast<double>(n) * options.noise_density), 1, n - 1);
  const int64_t spans =
      std::clamp<int64_t>(round_half_even(static_cast<double>(noise) / options.mean_span), 1,
                          std::min(noise, n - noise));
  const std::vector<int64_t> noise_lengths = random_partition(noise, spans, rng);
  const std::vector<int64_t> text_lengths = random_partition(n - noise, spans, rng);
  std::vector<uint8_t> mask;
  mask.reserve(static_cast<size_t>(n));
  for (size_t i = 0; i < noise_lengths.size(); ++i) {
    mask.insert(mask.end(), static_cast<size_t>(text_lengths[i]), 0);
    mask.insert(mask.end(), static_cast<size_t>(noise_lengths[i]), 1);
  }
  mask.resize(static_cast<size_t>(length));
  return mask;
}

namespace {

void replace_runs(std::span<const int32_t> tokens, std::span<const uint8_t> noise, bool replaced,
                  int32_t first_sentinel, std::vector<int32_t>& out) {
  SW_CHECK(tokens.size() == noise.size(), internal, "{} tokens with a mask of {}", tokens.size(),
           noise.size());
  int32_t sentinel = first_sentinel;
  bool inside = false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool hit = (noise[i] != 0) == replaced;
    if (!hit) {
      out.push_back(tokens[i]);
    } else if (!inside) {
      out.push_back(sentinel--);
    }
    inside = hit;
  }
}

}  // namespace

void replace_noise(std::span<const int32_t> tokens, std::span<const uint8_t> noise,
                   int32_t first_sentinel, std::vector<int32_t>& out) {
  replace_runs(tokens, noise, true, first_sentinel, out);
}

CorruptedWindow corrupt_window(std::span<const int32_t> tokens, std::span<const uint8_t> noise,
                               int32_t first_sentinel, int32_t eos, int64_t inputs_length,
                               int64_t targets_length) {
  CorruptedWindow window;
  const auto finish = [&](std::vector<int32_t>& ids, int64_t length) {
    if (static_cast<int64_t>(ids.size()) > length - 1) ids.resize(static_cast<size_t>(length - 1));
    ids.push_back(eos);
  };
  window.inputs.reserve(tokens.size() + 1);
  replace_runs(tokens, noise, true, first_sentinel, window.inputs);
  finish(window.inputs, inputs_length);
  window.targets.reserve(static_cast<size_t>(targets_length) + 1);
  replace_runs(tokens, noise, false, first_sentinel, window.targets);
  finish(window.targets, targets_length);
  return window;
}

}  // namespace sw
