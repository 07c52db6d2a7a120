// Writes a Hugging Face folder that appears under its name when it is complete.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "libswitch/convert/export_plan.h"

namespace sw {

class FolderWriter {
 public:
  /// Creates `folder` + ".tmp". Throws cannot_create where check_folder_target() does.
  FolderWriter(std::filesystem::path folder, bool replace, const std::filesystem::path& source);
  /// Removes the temporary folder unless commit() succeeded.
  ~FolderWriter();
  FolderWriter(const FolderWriter&) = delete;
  FolderWriter& operator=(const FolderWriter&) = delete;

  void add(const std::string& name, std::string_view content);
  /// All weights as safetensors, in files of at most `max_shard_bytes` of tensors each (a larger
  /// tensor has a file to itself), with an index if there are several. Returns how many.
  int64_t add_weights(const ExportPlan& plan, int64_t max_shard_bytes,
                      const std::function<void(int64_t bytes)>& written);
  /// Gives the folder its name. Throws io.
  void commit();

 private:
  std::filesystem::path folder_, temporary_;
  bool owner_ = false;
};

}  // namespace sw
