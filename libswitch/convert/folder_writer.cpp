#include "libswitch/convert/folder_writer.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/base/file.h"
#include "libswitch/convert/target.h"
#include "libswitch/io/safetensors.h"

namespace sw {
namespace {

namespace fs = std::filesystem;

// Tensors of each file: greedily, in the order of the plan.
std::vector<std::vector<size_t>> cut_into_files(const ExportPlan& plan, int64_t most) {
  std::vector<std::vector<size_t>> files(1);
  int64_t bytes = 0;
  for (size_t i = 0; i < plan.tensors().size(); ++i) {
    const int64_t more = plan.tensors()[i].bytes();
    if (!files.back().empty() && bytes + more > most) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back(i);
    bytes += more;
  }
  return files;
}

void write_file(const fs::path& path, const ExportPlan& plan, const std::vector<size_t>& members,
                const std::function<void(int64_t)>& written) {
  std::vector<ArchiveTensor> tensors;
  for (const size_t i : members) tensors.push_back(plan.tensors()[i]);
  // transformers 4 refuses files that do not say "pt".
  SafetensorsWriter writer(path, std::move(tensors), {{"format", "pt"}});
  for (const size_t i : members) {
    plan.stream(i, [&](int64_t first_byte, const void* data, int64_t bytes) {
      writer.write(plan.tensors()[i].name, first_byte, data, bytes);
      written(bytes);
    });
  }
  writer.commit();
}

}  // namespace

FolderWriter::FolderWriter(fs::path folder, bool replace, const fs::path& source)
    : folder_(check_folder_target(std::move(folder), replace, source)) {
  std::error_code error;
  temporary_ = folder_.string() + ".tmp";
  const bool made = fs::create_directory(temporary_, error);
  SW_CHECK(!error, cannot_create, "{}: cannot create: {}", temporary_.string(), error.message());
  SW_CHECK(
      made, cannot_create,
      "{}: is there already: another conversion runs, or one was cut off; in that case remove it",
      temporary_.string());
  owner_ = true;
}

FolderWriter::~FolderWriter() {
  std::error_code ignored;
  if (owner_) fs::remove_all(temporary_, ignored);
}

void FolderWriter::add(const std::string& name, std::string_view content) {
  write_file_atomically(temporary_ / name, content);
}

int64_t FolderWriter::add_weights(const ExportPlan& plan, int64_t max_shard_bytes,
                                  const std::function<void(int64_t)>& written) {
  // A full disk is met now rather than after hours of writing.
  std::error_code error;
  const fs::space_info space = fs::space(temporary_, error);
  SW_CHECK(error || space.available >= static_cast<uint64_t>(plan.bytes()), io,
           "{}: the weights need {} bytes, the disk has {} free", temporary_.string(), plan.bytes(),
           space.available);
  const auto files = cut_into_files(plan, max_shard_bytes);
  if (files.size() == 1) {
    write_file(temporary_ / "model.safetensors", plan, files[0], written);
    return 1;
  }
  nlohmann::json map = nlohmann::json::object();
  for (size_t f = 0; f < files.size(); ++f) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", f + 1, files.size());
    write_file(temporary_ / name, plan, files[f], written);
    for (const size_t i : files[f]) map[plan.tensors()[i].name] = name;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", plan.bytes()}}},
                                {"weight_map", std::move(map)}};
  add("model.safetensors.index.json", index.dump(2) + "\n");
  return static_cast<int64_t>(files.size());
}

void FolderWriter::commit() {
  fsync_path(temporary_);
  std::error_code error;
  const fs::path old = folder_.string() + ".old";
  const bool replaces = fs::exists(fs::symlink_status(folder_, error));
  if (replaces) {
    fs::rename(folder_, old, error);
    SW_CHECK(!error, io, "{}: cannot be moved aside to {}: {}", folder_.string(), old.string(),
             error.message());
  }
  fs::rename(temporary_, folder_, error);
  if (error) {
    const std::string reason = error.message();
    if (replaces) fs::rename(old, folder_, error);
    fail(ErrorKind::io, "{}: cannot rename {} to it: {}{}", folder_.string(), temporary_.string(),
         reason, replaces && error ? "; what was there is now " + old.string() : "");
  }
  owner_ = false;
  fsync_path(folder_.has_parent_path() ? folder_.parent_path() : fs::path("."));
  if (replaces) fs::remove_all(old, error);
}

}  // namespace sw
