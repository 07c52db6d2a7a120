#include "libswitch/io/checkpoint_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "libswitch/base/error.h"
#include "libswitch/base/fault.h"
#include "libswitch/base/file.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/parallel.h"
#include "libswitch/io/checkpoint_layout.h"
#include "libswitch/io/checkpoint_metadata.h"
#include "libswitch/io/checkpoint_seal.h"
#include "libswitch/io/hdf5_file.h"

namespace sw {

namespace fs = std::filesystem;

FileCalls::FileCalls()
    : pwrite([](int fd, const void* data, size_t bytes, off_t offset) -> ssize_t {
        const FaultEffect fault = fault_at(FaultSite::ckpt_write);
        if (const int code = fault_errno(fault)) return errno = code, -1;
        if (fault == FaultEffect::short_write) bytes = (bytes + 1) / 2;
        return ::pwrite(fd, data, bytes, offset);
      }),
      fsync([](int fd) {
        if (const int code = fault_errno(fault_at(FaultSite::ckpt_fsync))) return errno = code, -1;
        return ::fsync(fd);
      }),
      allocate([](int fd, off_t bytes) {
        if (const int code = fault_errno(fault_at(FaultSite::ckpt_stage))) return errno = code, -1;
        return ::fallocate(fd, 0, 0, bytes);
      }),
      rename([](const char* from, const char* to) {
        if (const int code = fault_errno(fault_at(FaultSite::ckpt_rename))) return errno = code, -1;
        return std::rename(from, to);
      }) {}

namespace {

// What one writer did to one tile. Counted atomically: threads may write parts of one tile.
struct TileState {
  std::atomic<int64_t> elements{0};
  std::atomic<uint64_t> checksum{0};
  std::atomic<bool> checked{false};
};

// A tensor's sizes with ones behind its rank, so that every tensor has four dimensions.
std::array<int64_t, Shape::kMaxRank> four_sizes(const Shape& shape) {
  std::array<int64_t, Shape::kMaxRank> sizes{1, 1, 1, 1};
  for (int d = 0; d < shape.rank(); ++d) sizes[static_cast<size_t>(d)] = shape[d];
  return sizes;
}

}  // namespace

struct CheckpointWriter::Impl {
  fs::path final_path, temporary;
  CheckpointLayout layout;
  std::unordered_map<std::string, size_t> index;
  FileCalls calls;
  std::optional<hdf5::File> file;  // rank 0
  FileDescriptor fd;
  std::vector<TileState> states;
  bool owner = false;  // of the temporary file: remove it when anything fails

  Impl(fs::path path, std::vector<TensorEntry> entries, FileCalls file_calls)
      : final_path(std::move(path)),
        temporary(final_path.string() + ".tmp"),
        calls(std::move(file_calls)) {
    canonicalize(entries);
    layout = plan_layout(std::move(entries));
    for (size_t e = 0; e < layout.entries.size(); ++e) index[layout.entries[e].path] = e;
    states = std::vector<TileState>(layout.tiles.size());
  }
  ~Impl() { abandon(); }

  void abandon() {
    file.reset();
    fd = FileDescriptor();
    if (owner) ::unlink(temporary.c_str());
    owner = false;
  }

  void open_descriptor() {
    fd = FileDescriptor(::open(temporary.c_str(), O_RDWR | O_CLOEXEC));
    SW_CHECK(fd.get() >= 0, io, "{}: cannot open: {}", temporary.string(), std::strerror(errno));
  }

  void create(const CheckpointMeta& meta, const Telemetry& telemetry);
  void reserve_space(uint64_t bytes);
  size_t find(const std::string& path) const;
  void write_bytes(const void* data, int64_t bytes, uint64_t offset, const std::string& what);
  void write_rows(size_t entry, int64_t begin, int64_t end, const char* data);
  void write_part(size_t entry, const Rectangle& box, const char* data);
  void merge(std::span<const TileReport> others);
  uint64_t checksum_in_file(const Tile& tile) const;
  void check_tiles();
  CommittedCheckpoint commit();
};

void CheckpointWriter::Impl::create(const CheckpointMeta& meta, const Telemetry& telemetry) {
  check_meta(meta);
  check_telemetry(telemetry);
  // HDF5 would only say "unable to open file"; the system call says why.
  const FileDescriptor probe(
      ::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  SW_CHECK(probe.get() >= 0, cannot_create, "{}: cannot create: {}", temporary.string(),
           std::strerror(errno));
  owner = true;
  // Datasets and about as many groups, and what every checkpoint has.
  file = hdf5::File::create(temporary, 2 * static_cast<int64_t>(layout.entries.size()) + 64);
  write_meta(*file, meta);
  write_telemetry(*file, telemetry);
  create_tile_table(*file, layout);
  for (const TensorEntry& entry : layout.entries) {
    const hdf5::Handle type = hdf5::tensor_type(entry.dtype);
    layout.offsets.push_back(file->create_dataset(
        entry.path, type.get(), {entry.shape.begin(), entry.shape.end()}, entry.axes));
  }
  write_tensor_table(*file, layout);
  file->flush();
  open_descriptor();
  reserve_space(file->image_bytes());
}

// Takes the space now, so that a full disk is met before hours of writing.
void CheckpointWriter::Impl::reserve_space(uint64_t bytes) {
  if (calls.allocate(fd.get(), static_cast<off_t>(bytes)) == 0) return;
  const int code = errno;
  if (code == EOPNOTSUPP || code == ENOSYS || code == EINVAL) {
    struct statvfs info {};
    if (::statvfs(temporary.c_str(), &info) != 0) return;
    const uint64_t available = uint64_t{info.f_bavail} * info.f_frsize;
    SW_CHECK(available >= bytes, io, "{}: the checkpoint needs {} bytes, the disk has {} free",
             temporary.string(), bytes, available);
    return;
  }
  fail(ErrorKind::io, "{}: cannot reserve {} bytes: {}", temporary.string(), bytes,
       std::strerror(code));
}

size_t CheckpointWriter::Impl::find(const std::string& path) const {
  const auto found = index.find(path);
  SW_CHECK(found != index.end(), usage, "{}: no tensor {} in the schema", final_path.string(),
           path);
  return found->second;
}

void CheckpointWriter::Impl::write_bytes(const void* data, int64_t bytes, uint64_t offset,
                                         const std::string& what) {
  const auto* at = static_cast<const char*>(data);
  auto left = static_cast<size_t>(bytes);
  while (left > 0) {
    const ssize_t n = calls.pwrite(fd.get(), at, left, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    SW_CHECK(n > 0, io, "{}: {}: write of {} bytes at offset {} failed: {}", temporary.string(),
             what, left, offset, n < 0 ? std::strerror(errno) : "nothing was written");
    at += n, offset += static_cast<uint64_t>(n), left -= static_cast<size_t>(n);
  }
}

// Rows [begin, end), dense: tile by tile, in parallel.
void CheckpointWriter::Impl::write_rows(size_t entry, int64_t begin, int64_t end,
                                        const char* data) {
  const TensorEntry& tensor = layout.entries[entry];
  const int64_t rows = tensor.shape.rank() == 0 ? 1 : tensor.shape[0];
  const int64_t row_bytes = rows == 0 ? 0 : tensor.bytes() / rows;
  const int64_t first = layout.first_tile[entry], last = layout.first_tile[entry + 1];
  parallel_for(last - first, 1, [&](int64_t chunk_begin, int64_t chunk_end) {
    for (int64_t t = first + chunk_begin; t < first + chunk_end; ++t) {
      const Tile& tile = layout.tiles[static_cast<size_t>(t)];
      const int64_t from = std::max(begin, tile.begin), to = std::min(end, tile.end);
      if (from >= to) continue;
      const char* source = data + (from - begin) * row_bytes;
      const int64_t bytes = (to - from) * row_bytes;
      write_bytes(source, bytes, layout.offsets[entry] + static_cast<uint64_t>(from * row_bytes),
                  tensor.path);
      TileState& state = states[static_cast<size_t>(t)];
      state.elements += bytes / element_bytes(tensor.dtype);
      if (bytes == tile.bytes) {
        state.checksum = xxh3_64(source, static_cast<size_t>(bytes));
        state.checked = true;
      }
    }
  });
}

// A box that does not span whole rows: run by run.
void CheckpointWriter::Impl::write_part(size_t entry, const Rectangle& box, const char* data) {
  const TensorEntry& tensor = layout.entries[entry];
  const auto sizes = four_sizes(tensor.shape);
  const int64_t element = element_bytes(tensor.dtype);
  int64_t strides[4] = {1, 1, 1, 1};  // in elements
  for (int d = 2; d >= 0; --d) strides[d] = strides[d + 1] * sizes[static_cast<size_t>(d) + 1];
  const auto& start = box.start;
  const auto& count = box.count;
  // Dimensions behind `inner` are spanned whole, so that a run is count[inner] of their products.
  int inner = 3;
  while (inner > 1 && start[static_cast<size_t>(inner)] == 0 &&
         count[static_cast<size_t>(inner)] == sizes[static_cast<size_t>(inner)]) {
    --inner;
  }
  const int64_t run = count[static_cast<size_t>(inner)] * strides[inner];
  const int64_t count1 = inner > 1 ? count[1] : 1, count2 = inner > 2 ? count[2] : 1;
  size_t t = static_cast<size_t>(layout.first_tile[entry]);
  for (int64_t i = 0; i < count[0]; ++i) {
    while (layout.tiles[t].end <= start[0] + i) ++t;
    for (int64_t j = 0; j < count1; ++j) {
      for (int64_t k = 0; k < count2; ++k) {
        const int64_t at = (start[0] + i) * strides[0] + (start[1] + j) * strides[1] +
                           (start[2] + k) * strides[2] + start[3];
        write_bytes(data, run * element,
                    layout.offsets[entry] + static_cast<uint64_t>(at * element), tensor.path);
        data += run * element;
      }
    }
    states[t].elements += run * count1 * count2;
  }
}

void CheckpointWriter::Impl::merge(std::span<const TileReport> others) {
  for (const TileReport& report : others) {
    SW_CHECK(report.tile >= 0 && report.tile < static_cast<int64_t>(states.size()) &&
                 report.elements >= 0,
             internal, "{}: report of tile {} of {}", final_path.string(), report.tile,
             states.size());
    TileState& state = states[static_cast<size_t>(report.tile)];
    state.elements += report.elements;
    if (report.checked != 0) {
      state.checksum = report.checksum;
      state.checked = true;
    }
  }
}

uint64_t CheckpointWriter::Impl::checksum_in_file(const Tile& tile) const {
  std::string bytes(static_cast<size_t>(tile.bytes), '\0');
  pread_all(
      fd.get(), bytes.data(), bytes.size(),
      layout.offsets[static_cast<size_t>(tile.entry)] + static_cast<uint64_t>(tile.first_byte),
      temporary.string());
  return xxh3_64(bytes.data(), bytes.size());
}

// Every element written once; checksums of tiles that no single call wrote whole.
void CheckpointWriter::Impl::check_tiles() {
  layout.checksums.resize(layout.tiles.size());
  for (size_t t = 0; t < layout.tiles.size(); ++t) {
    const Tile& tile = layout.tiles[t];
    const TensorEntry& entry = layout.entries[static_cast<size_t>(tile.entry)];
    const int64_t expected = tile.bytes / element_bytes(entry.dtype);
    SW_CHECK(states[t].elements == expected, internal,
             "{}: {}, tile {}: expected {} elements to be written, got {}", final_path.string(),
             entry.path, tile.index, expected, states[t].elements.load());
  }
  parallel_for(static_cast<int64_t>(layout.tiles.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t) {
      if (states[t].checked) {
        layout.checksums[t] = states[t].checksum;
        continue;
      }
      layout.checksums[t] = checksum_in_file(layout.tiles[t]);
    }
  });
}

CommittedCheckpoint CheckpointWriter::Impl::commit() {
  CommittedCheckpoint done;
  done.path = final_path;
  done.digest = checkpoint_digest(layout.checksums);
  write_tile_table(*file, layout);
  write_digest(*file, done.digest);
  file->close();
  file.reset();

  struct stat info {};
  SW_CHECK(::fstat(fd.get(), &info) == 0, io, "{}: {}", temporary.string(), std::strerror(errno));
  Seal seal;
  seal.image_bytes = static_cast<uint64_t>(info.st_size);
  std::vector<Extent> tensors;
  for (size_t e = 0; e < layout.entries.size(); ++e) {
    const auto bytes = static_cast<uint64_t>(layout.entries[e].bytes());
    if (bytes > 0) tensors.push_back({layout.offsets[e], layout.offsets[e] + bytes});
  }
  seal.extents = tensor_extents(std::move(tensors), seal.image_bytes);
  const std::string bytes = make_seal(fd.get(), seal, temporary.string());
  write_bytes(bytes.data(), static_cast<int64_t>(bytes.size()), seal.image_bytes, "seal");
  done.bytes = static_cast<int64_t>(seal.image_bytes + bytes.size());

  SW_CHECK(calls.fsync(fd.get()) == 0, io, "{}: cannot sync to disk: {}", temporary.string(),
           std::strerror(errno));
  SW_CHECK(calls.rename(temporary.c_str(), final_path.c_str()) == 0, io,
           "{}: cannot rename {} to it: {}", final_path.string(), temporary.string(),
           std::strerror(errno));
  owner = false;
  fault_at(FaultSite::ckpt_commit);
  const fs::path folder = final_path.has_parent_path() ? final_path.parent_path() : fs::path(".");
  const FileDescriptor folder_fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  SW_CHECK(folder_fd.get() >= 0 && calls.fsync(folder_fd.get()) == 0, io,
           "{}: cannot sync the folder to disk: {}", folder.string(), std::strerror(errno));
  fd = FileDescriptor();
  return done;
}

CheckpointWriter::CheckpointWriter(fs::path final_path, std::vector<TensorEntry> entries,
                                   const CheckpointMeta& meta, const Telemetry& telemetry,
                                   FileCalls calls)
    : impl_(std::make_unique<Impl>(std::move(final_path), std::move(entries), std::move(calls))) {
  impl_->create(meta, telemetry);
}

CheckpointWriter::CheckpointWriter(fs::path final_path, std::vector<TensorEntry> entries,
                                   std::span<const uint64_t> offsets, FileCalls calls)
    : impl_(std::make_unique<Impl>(std::move(final_path), std::move(entries), std::move(calls))) {
  SW_CHECK(offsets.size() == impl_->layout.entries.size(), internal,
           "{}: {} offsets for {} tensors", impl_->final_path.string(), offsets.size(),
           impl_->layout.entries.size());
  impl_->layout.offsets.assign(offsets.begin(), offsets.end());
  impl_->open_descriptor();
}

CheckpointWriter::~CheckpointWriter() = default;
CheckpointWriter::CheckpointWriter(CheckpointWriter&&) noexcept = default;

const std::vector<TensorEntry>& CheckpointWriter::entries() const { return impl_->layout.entries; }
const std::vector<uint64_t>& CheckpointWriter::offsets() const { return impl_->layout.offsets; }

void CheckpointWriter::write_tensor(const std::string& path, const Tensor& tensor) {
  const size_t e = impl_->find(path);
  const TensorEntry& entry = impl_->layout.entries[e];
  SW_CHECK(tensor.defined() && tensor.dtype() == entry.dtype && tensor.shape() == entry.shape,
           usage, "{}: {}: expected {} {}, got {} {}", impl_->final_path.string(), path,
           entry.shape.str(), dtype_name(entry.dtype), tensor.shape().str(),
           dtype_name(tensor.dtype()));
  SW_CHECK(!tensor.device().is_cuda(), usage, "{}: {}: expected a tensor on the CPU, got {}",
           impl_->final_path.string(), path, tensor.device().str());
  impl_->write_rows(e, 0, entry.shape.rank() == 0 ? 1 : entry.shape[0],
                    static_cast<const char*>(tensor.raw()));
}

void CheckpointWriter::write_rectangle(const std::string& path, const Rectangle& box,
                                       const void* data) {
  const size_t e = impl_->find(path);
  const TensorEntry& entry = impl_->layout.entries[e];
  const auto sizes = four_sizes(entry.shape);
  Rectangle full = box;
  bool whole_rows = true, empty = false;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (static_cast<int>(d) >= entry.shape.rank()) full.start[d] = 0, full.count[d] = 1;
    SW_CHECK(full.start[d] >= 0 && full.count[d] >= 0 && full.start[d] <= sizes[d] &&
                 full.count[d] <= sizes[d] - full.start[d],
             usage, "{}: {}: rows [{}, {}) of dimension {} are outside {}",
             impl_->final_path.string(), path, full.start[d], full.start[d] + full.count[d], d,
             entry.shape.str());
    empty = empty || full.count[d] == 0;
    whole_rows = whole_rows && (d == 0 || full.count[d] == sizes[d]);
  }
  if (empty) return;
  if (whole_rows) {
    impl_->write_rows(e, full.start[0], full.start[0] + full.count[0],
                      static_cast<const char*>(data));
  } else {
    impl_->write_part(e, full, static_cast<const char*>(data));
  }
}

void CheckpointWriter::sync() {
  SW_CHECK(impl_->calls.fsync(impl_->fd.get()) == 0, io, "{}: cannot sync to disk: {}",
           impl_->temporary.string(), std::strerror(errno));
}

std::vector<TileReport> CheckpointWriter::reports() const {
  std::vector<TileReport> reports;
  for (size_t t = 0; t < impl_->states.size(); ++t) {
    const TileState& state = impl_->states[t];
    if (state.elements == 0) continue;
    reports.push_back({static_cast<int64_t>(t), state.elements, state.checksum, state.checked});
  }
  return reports;
}

std::vector<TileReport> CheckpointWriter::read_back(std::span<const int64_t> tiles) const {
  std::vector<TileReport> reports(tiles.size());
  parallel_for(std::ssize(tiles), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Tile& tile = impl_->layout.tiles.at(static_cast<size_t>(tiles[i]));
      reports[i] = {tiles[i], 0, impl_->checksum_in_file(tile), 1};
    }
  });
  return reports;
}

CommittedCheckpoint CheckpointWriter::finish(std::span<const TileReport> others) {
  SW_CHECK(impl_->file.has_value(), internal, "{}: finish() belongs to rank 0, once",
           impl_->final_path.string());
  try {
    impl_->merge(others);
    impl_->check_tiles();
    return impl_->commit();
  } catch (...) {
    impl_->abandon();
    throw;
  }
}

}  // namespace sw
