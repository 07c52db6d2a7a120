#include "libswitch/io/checkpoint_schema.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "libswitch/base/error.h"

namespace sw {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

void check_path(const std::string& path) {
  const bool rooted =
      path.starts_with("/model/") || path.starts_with("/optim/") || path.starts_with("/master/");
  SW_CHECK(rooted, usage,
           "checkpoint: tensor path '{}' must begin with /model/, /optim/ or /master/", path);
  SW_CHECK(path.size() <= 512, usage,
           "checkpoint: tensor path of {} characters, at most 512 allowed", path.size());
  SW_CHECK(path.back() != '/' && path.find("//") == std::string::npos &&
               path.find("/./") == std::string::npos && path.find("/../") == std::string::npos,
           usage, "checkpoint: tensor path '{}' has an empty or dotted part", path);
  for (const char c : path) {
    SW_CHECK(c > ' ' && c < 127, usage,
             "checkpoint: tensor path '{}' has a character outside ASCII", path);
  }
}

void check_entry(const TensorEntry& entry) {
  check_path(entry.path);
  SW_CHECK(static_cast<int>(entry.axes.size()) == entry.shape.rank(), usage,
           "checkpoint: {} has shape {} but {} dimension labels", entry.path, entry.shape.str(),
           entry.axes.size());
  for (const std::string& axis : entry.axes) {
    SW_CHECK(!axis.empty() && axis.size() <= 64 && axis.find(',') == std::string::npos &&
                 axis.find('\0') == std::string::npos,
             usage,
             "checkpoint: {} has the dimension label '{}', expected 1 to 64 characters, no comma",
             entry.path, axis);
  }
  SW_CHECK(entry.shape.elements() <= std::numeric_limits<int64_t>::max() / 16, usage,
           "checkpoint: {} with shape {} is too large", entry.path, entry.shape.str());
}

}  // namespace

void canonicalize(std::vector<TensorEntry>& entries) {
  for (const TensorEntry& entry : entries) check_entry(entry);
  std::sort(entries.begin(), entries.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.path < b.path; });
  for (size_t i = 1; i < entries.size(); ++i) {
    SW_CHECK(entries[i].path != entries[i - 1].path, usage, "checkpoint: tensor {} is given twice",
             entries[i].path);
  }
  // A tensor cannot also be a folder of tensors. Its children need not be its neighbours in
  // bytewise order ("a", "a.b", "a/b"), so each folder of each path is looked up.
  const auto known = [&](const std::string& path) {
    const auto at = std::lower_bound(
        entries.begin(), entries.end(), path,
        [](const TensorEntry& entry, const std::string& key) { return entry.path < key; });
    return at != entries.end() && at->path == path;
  };
  for (const TensorEntry& entry : entries) {
    for (size_t at = entry.path.find('/', 1); at != std::string::npos;
         at = entry.path.find('/', at + 1)) {
      const std::string folder = entry.path.substr(0, at);
      SW_CHECK(!known(folder), usage, "checkpoint: {} is a tensor and a folder of {}", folder,
               entry.path);
    }
  }
}

std::vector<Tile> make_tiles(std::span<const TensorEntry> entries) {
  std::vector<Tile> tiles;
  for (size_t e = 0; e < entries.size(); ++e) {
    const TensorEntry& entry = entries[e];
    const int64_t total = entry.bytes();
    if (total == 0) continue;
    const int64_t rows = entry.shape.rank() == 0 ? 1 : entry.shape[0];
    const int64_t row_bytes = total / rows;
    const bool by_expert = !entry.axes.empty() && entry.axes[0] == "expert";
    const int64_t step = by_expert ? 1 : std::max<int64_t>(1, kTileBytes / row_bytes);
    for (int64_t begin = 0, index = 0; begin < rows; begin += step, ++index) {
      const int64_t end = std::min(rows, begin + step);
      tiles.push_back({static_cast<int64_t>(e), index, begin, end, begin * row_bytes,
                       (end - begin) * row_bytes});
    }
  }
  return tiles;
}

std::string checkpoint_digest(std::span<const uint64_t> tile_checksums) {
  return xxh3_128(tile_checksums.data(), tile_checksums.size_bytes()).hex();
}

void check_telemetry(const Telemetry& telemetry) {
  const auto check = [](const char* name, size_t got, size_t expected) {
    SW_CHECK(got == expected, usage, "checkpoint: telemetry {} has {} values, expected {}", name,
             got, expected);
  };
  const TrainTelemetry& train = telemetry.train;
  const size_t rows = train.step.size();
  check("train/loss", train.loss.size(), rows);
  check("train/lr", train.lr.size(), rows);
  check("train/grad_norm", train.grad_norm.size(), rows);
  check("train/tok_s", train.tok_s.size(), rows);

  const RouterTelemetry& router = telemetry.router;
  SW_CHECK(router.experts >= 0, usage, "checkpoint: telemetry of {} experts", router.experts);
  const size_t by_layer = router.step.size() * router.layer_name.size();
  const size_t by_expert = by_layer * static_cast<size_t>(router.experts);
  check("router/tokens", router.tokens.size(), by_expert);
  check("router/prob_sum", router.prob_sum.size(), by_expert);
  check("router/dropped", router.dropped.size(), by_layer);
  check("router/capacity", router.capacity.size(), by_layer);
  check("router/entropy", router.entropy.size(), by_layer);
  check("router/confidence", router.confidence.size(), by_layer);
  check("router/aux", router.aux.size(), by_layer);
  check("router/z", router.z.size(), by_layer);
}

}  // namespace sw
