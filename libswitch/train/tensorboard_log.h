// A run's figures for TensorBoard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "libswitch/base/background_file.h"
#include "libswitch/moe/statistics.h"

namespace sw {

class TensorBoardLog {
 public:
  /// Steps between histograms.
  static constexpr int64_t kHistogramSteps = 50;

  /// Starts a file of its own in `folder`, which is created: readers put a folder's files together.
  /// `step` is the last step that counts of what older files hold. Throws cannot_create.
  TensorBoardLog(const std::filesystem::path& folder, int64_t step);

  /// The numbers of a line of metrics.jsonl: "train/loss", "eval/held.swt/neg_log_perplexity".
  void add(const nlohmann::ordered_json& line);
  /// Of each layer's experts the load over the mean, "router/encoder/block_001/load", every
  /// kHistogramSteps.
  void add_loads(int64_t step, const std::vector<RouterStatistics>& layers);
  /// The run goes on after `step`; what was told of later steps no longer counts.
  void go_back(int64_t step);

 private:
  std::unique_ptr<BackgroundFile> file_;
};

}  // namespace sw
