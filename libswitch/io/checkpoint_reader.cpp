#include "libswitch/io/checkpoint_reader.h"

#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/regular_file.h"
#include "libswitch/io/checkpoint_folder.h"
#include "libswitch/io/checkpoint_layout.h"
#include "libswitch/io/checkpoint_metadata.h"
#include "libswitch/io/checkpoint_seal.h"
#include "libswitch/io/hdf5_file.h"

namespace sw {

namespace fs = std::filesystem;

namespace {

// HDF5 seeks, and opening a pipe would wait for a writer.
}  // namespace

struct CheckpointReader::Impl {
  fs::path path;
  FileDescriptor fd;
  Seal seal;
  hdf5::File file;
  CheckpointMeta meta;
  std::string digest;
  CheckpointLayout layout;
  std::unordered_map<std::string, size_t> index;
  std::vector<char> confirmed;  // entries whose dataset was compared with the table

  explicit Impl(const fs::path& p)
      : path(p), fd(open_regular_file(p, "; give a stream as standard input, with the name -")) {
    seal = check_seal(fd.get(), path.string());
    file = hdf5::File::open(path, seal.image_bytes);
    check_format(file);
    layout = read_layout(file, seal);
    digest = read_digest(file);
    if (digest != checkpoint_digest(layout.checksums)) {
      file.fail_at("/@digest", "does not match the table of tiles");
    }
    meta = read_meta(file);
    for (size_t e = 0; e < layout.entries.size(); ++e) index[layout.entries[e].path] = e;
    confirmed.assign(layout.entries.size(), 0);
  }

  size_t find(const std::string& name) const {
    const auto found = index.find(name);
    if (found != index.end()) return found->second;
    std::vector<std::string> names;
    for (const TensorEntry& entry : layout.entries) names.push_back(entry.path);
    fail(ErrorKind::missing, "{}: no tensor {}{}", path.string(), name, nearest_hint(name, names));
  }

  // What HDF5 says of a tensor's dataset must be what the table says.
  void confirm(size_t e) {
    if (confirmed[e] != 0) return;
    const TensorEntry& entry = layout.entries[e];
    const hdf5::Handle type = hdf5::tensor_type(entry.dtype);
    const hdf5::Dataset dataset = file.open_dataset(entry.path, type.get());
    file.check_dims(entry.path, dataset, {entry.shape.begin(), entry.shape.end()});
    if (dataset.offset != layout.offsets[e]) {
      file.fail_at(entry.path, "does not lie where /layout/tensors says");
    }
    confirmed[e] = 1;
  }

  void read_tile(const Tile& tile, size_t t, void* out) const {
    const auto e = static_cast<size_t>(tile.entry);
    const std::string& name = layout.entries[e].path;
    pread_all(fd.get(), out, static_cast<size_t>(tile.bytes),
              layout.offsets[e] + static_cast<uint64_t>(tile.first_byte), path.string());
    SW_CHECK(
        xxh3_64(out, static_cast<size_t>(tile.bytes)) == layout.checksums[t], corrupt,
        "{}: {}, tile {} (rows {} to {}) does not match its checksum: the file is damaged; use "
        "another checkpoint",
        path.string(), name, tile.index, tile.begin, tile.end - 1);
  }

  // Calls fn(tile, number) for the tiles that hold rows [begin, end), in parallel.
  template <class Fn>
  void each_tile(size_t e, int64_t begin, int64_t end, const Fn& fn) const {
    const auto tiles = layout.tiles.begin();
    const auto first =
        std::partition_point(tiles + layout.first_tile[e], tiles + layout.first_tile[e + 1],
                             [&](const Tile& tile) { return tile.end <= begin; });
    const auto last = std::partition_point(first, tiles + layout.first_tile[e + 1],
                                           [&](const Tile& tile) { return tile.begin < end; });
    parallel_for(last - first, 1, [&](int64_t chunk_begin, int64_t chunk_end) {
      for (int64_t i = chunk_begin; i < chunk_end; ++i) {
        fn(first[i], static_cast<size_t>(first + i - tiles));
      }
    });
  }

  void read_rows(size_t e, int64_t begin, int64_t end, char* out) const {
    const TensorEntry& entry = layout.entries[e];
    if (begin >= end || entry.bytes() == 0) return;
    const int64_t row_bytes = entry.bytes() / (entry.shape.rank() == 0 ? 1 : entry.shape[0]);
    each_tile(e, begin, end, [&](const Tile& tile, size_t t) {
      const int64_t from = std::max(begin, tile.begin), to = std::min(end, tile.end);
      char* target = out + (from - begin) * row_bytes;
      if (from == tile.begin && to == tile.end) return read_tile(tile, t, target);
      // A part of a tile: only the whole can be verified.
      std::string whole(static_cast<size_t>(tile.bytes), '\0');
      read_tile(tile, t, whole.data());
      std::memcpy(target, whole.data() + (from - tile.begin) * row_bytes,
                  static_cast<size_t>((to - from) * row_bytes));
    });
  }

  // A box that does not span whole rows: line by line out of whole tiles.
  void read_box(size_t e, const Rectangle& box, char* out) const {
    const TensorEntry& entry = layout.entries[e];
    const int64_t element = element_bytes(entry.dtype);
    const int last = entry.shape.rank() - 1;  // at least 1: a vector has whole rows
    const int64_t line = box.count[static_cast<size_t>(last)];
    int64_t lines_of_row = 1;
    for (int d = 1; d < last; ++d) lines_of_row *= box.count[static_cast<size_t>(d)];
    const int64_t begin = box.start[0], end = begin + box.count[0];
    each_tile(e, begin, end, [&](const Tile& tile, size_t t) {
      std::string whole(static_cast<size_t>(tile.bytes), '\0');
      read_tile(tile, t, whole.data());
      const int64_t from = std::max(begin, tile.begin), to = std::min(end, tile.end);
      for (int64_t i = (from - begin) * lines_of_row; i < (to - begin) * lines_of_row; ++i) {
        const int64_t at = index_in_whole(entry.shape, box, i * line);
        std::memcpy(out + i * line * element, whole.data() + at * element - tile.first_byte,
                    static_cast<size_t>(line * element));
      }
    });
  }

  void check_objects() const;
};

namespace {

// What a walk over the links of a file finds.
struct Walk {
  std::vector<std::string> datasets;
  std::string refused;
};

herr_t visit_link(hid_t group, const char* name, const H5L_info_t* link, void* data) {
  auto* walk = static_cast<Walk*>(data);
  if (link->type != H5L_TYPE_HARD) {
    walk->refused = name;
    return 1;
  }
  const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  if (object < 0) return -1;
  const H5I_type_t type = H5Iget_type(object);
  if (H5Oclose(object) < 0) return -1;
  if (type == H5I_DATASET) walk->datasets.push_back(std::string("/") + name);
  if (type != H5I_DATASET && type != H5I_GROUP) {
    walk->refused = name;
    return 1;
  }
  return 0;
}

// A copy of stdin in $TMPDIR; removed when this goes out of scope, by when it is open.
class Spool {
 public:
  explicit Spool(int64_t max_bytes) {
    SW_CHECK(::isatty(STDIN_FILENO) == 0, usage,
             "-: expected a checkpoint on stdin, which is a terminal");
    const char* folder = std::getenv("TMPDIR");
    name_ = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") +
            "/switch-checkpoint-XXXXXX";
    fd_ = FileDescriptor(::mkstemp(name_.data()));
    if (fd_.get() < 0) {
      fail(ErrorKind::cannot_create, "{}: cannot create: {}; TMPDIR names another folder", name_,
           std::strerror(errno));
    }
    std::string buffer(size_t{1} << 20, '\0');
    int64_t total = 0;
    for (;;) {
      const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        fail_and_remove(ErrorKind::io, std::string("read failed: ") + std::strerror(errno));
      if (n == 0) break;
      total += n;
      if (total > max_bytes) {
        fail_and_remove(ErrorKind::usage,
                        fmt::format("more than the {} bytes that may be spooled", max_bytes));
      }
      try {
        write_all(fd_.get(), buffer.data(), static_cast<size_t>(n), name_);
      } catch (const Error& error) {
        fail_and_remove(error.kind(), error.what() + std::string("; TMPDIR names another folder"));
      }
    }
  }
  ~Spool() { ::unlink(name_.c_str()); }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;
  const std::string& name() const { return name_; }

 private:
  // The destructor does not run when the constructor throws.
  [[noreturn]] void fail_and_remove(ErrorKind kind, const std::string& what) {
    ::unlink(name_.c_str());
    fail(kind, "- (stdin): {}", what);
  }
  std::string name_;
  FileDescriptor fd_;
};

}  // namespace

void CheckpointReader::Impl::check_objects() const {
  Walk walk;
  const herr_t code = H5Lvisit(file.id(), H5_INDEX_NAME, H5_ITER_INC, visit_link, &walk);
  if (code < 0) file.fail_at("/", "cannot be walked");
  if (!walk.refused.empty()) {
    file.fail_at("/" + walk.refused, "is neither a group nor a dataset by a hard link");
  }
  for (const std::string& name : walk.datasets) {
    const bool tensor =
        name.starts_with("/model/") || name.starts_with("/optim/") || name.starts_with("/master/");
    if (tensor && !index.contains(name)) file.fail_at(name, "is not in /layout/tensors");
    if (!tensor) file.open_dataset(name, -1);
  }
}

CheckpointReader::CheckpointReader(const fs::path& file) : impl_(std::make_unique<Impl>(file)) {}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;

const fs::path& CheckpointReader::path() const { return impl_->path; }
const CheckpointMeta& CheckpointReader::meta() const { return impl_->meta; }
const std::string& CheckpointReader::digest() const { return impl_->digest; }
const std::vector<TensorEntry>& CheckpointReader::entries() const { return impl_->layout.entries; }
bool CheckpointReader::contains(const std::string& path) const {
  return impl_->index.contains(path);
}
const TensorEntry& CheckpointReader::entry(const std::string& path) const {
  return impl_->layout.entries[impl_->find(path)];
}

Tensor CheckpointReader::read(const std::string& path) const {
  const size_t e = impl_->find(path);
  const TensorEntry& entry = impl_->layout.entries[e];
  impl_->confirm(e);
  Tensor tensor = Tensor::empty(entry.shape, entry.dtype);
  impl_->read_rows(e, 0, entry.shape.rank() == 0 ? 1 : entry.shape[0],
                   static_cast<char*>(tensor.raw()));
  return tensor;
}

Tensor CheckpointReader::read_rows(const std::string& path, int64_t begin, int64_t end) const {
  const TensorEntry& entry = this->entry(path);
  SW_CHECK(entry.shape.rank() >= 1 && begin >= 0 && begin <= end && end <= entry.shape[0], usage,
           "{}: {}: rows [{}, {}) of {}", impl_->path.string(), path, begin, end,
           entry.shape.str());
  Shape shape{end - begin};
  for (int d = 1; d < entry.shape.rank(); ++d) shape.push_back(entry.shape[d]);
  Tensor tensor = Tensor::empty(shape, entry.dtype);
  read_rows_into(path, begin, end, tensor.raw(), tensor.bytes());
  return tensor;
}

void CheckpointReader::read_rows_into(const std::string& path, int64_t begin, int64_t end,
                                      void* out, int64_t bytes) const {
  const size_t e = impl_->find(path);
  const TensorEntry& entry = impl_->layout.entries[e];
  const int64_t rows = entry.shape.rank() == 0 ? 1 : entry.shape[0];
  SW_CHECK(begin >= 0 && begin <= end && end <= rows, usage, "{}: {}: rows [{}, {}) of {}",
           impl_->path.string(), path, begin, end, entry.shape.str());
  const int64_t expected = rows == 0 ? 0 : entry.bytes() / rows * (end - begin);
  SW_CHECK(bytes == expected, usage, "{}: {}: rows [{}, {}) are {} bytes, got room for {}",
           impl_->path.string(), path, begin, end, expected, bytes);
  impl_->confirm(e);
  impl_->read_rows(e, begin, end, static_cast<char*>(out));
}

void CheckpointReader::read_rectangle(const std::string& path, const Rectangle& box, void* out,
                                      int64_t bytes) const {
  const size_t e = impl_->find(path);
  const TensorEntry& entry = impl_->layout.entries[e];
  const int rank = entry.shape.rank();
  int64_t expected = element_bytes(entry.dtype);
  bool whole_rows = true;
  for (int d = 0; d < rank; ++d) {
    const int64_t start = box.start[static_cast<size_t>(d)];
    const int64_t count = box.count[static_cast<size_t>(d)];
    SW_CHECK(start >= 0 && count >= 0 && start <= entry.shape[d] && count <= entry.shape[d] - start,
             usage, "{}: {}: rows [{}, {}) of dimension {} are outside {}", impl_->path.string(),
             path, start, start + count, d, entry.shape.str());
    whole_rows = whole_rows && (d == 0 || count == entry.shape[d]);
    expected *= count;
  }
  SW_CHECK(bytes == expected, usage, "{}: {}: the box has {} bytes, got room for {}",
           impl_->path.string(), path, expected, bytes);
  impl_->confirm(e);
  if (bytes == 0) return;
  if (whole_rows) {
    const int64_t begin = rank == 0 ? 0 : box.start[0];
    const int64_t count = rank == 0 ? 1 : box.count[0];
    impl_->read_rows(e, begin, begin + count, static_cast<char*>(out));
  } else {
    impl_->read_box(e, box, static_cast<char*>(out));
  }
}

Telemetry CheckpointReader::read_telemetry() const { return sw::read_telemetry(impl_->file); }

void CheckpointReader::verify_all() const {
  check_seal(impl_->fd.get(), impl_->path.string());
  impl_->check_objects();
  read_telemetry();
  const CheckpointLayout& layout = impl_->layout;
  for (size_t e = 0; e < layout.entries.size(); ++e) impl_->confirm(e);
  parallel_for(static_cast<int64_t>(layout.tiles.size()), 1, [&](int64_t begin, int64_t end) {
    std::string buffer;
    for (auto t = static_cast<size_t>(begin); t < static_cast<size_t>(end); ++t) {
      buffer.resize(static_cast<size_t>(layout.tiles[t].bytes));
      impl_->read_tile(layout.tiles[t], t, buffer.data());
    }
  });
}

CheckpointReader open_checkpoint(const std::string& argument, int64_t max_spool_bytes) {
  if (argument != "-") return CheckpointReader(resolve_checkpoint(argument));
  const Spool spool(max_spool_bytes);
  constexpr const char* kName = "- (stdin)";
  try {
    CheckpointReader reader(spool.name());
    reader.impl_->path = kName;
    return reader;
  } catch (const Error& error) {
    std::string text = error.what();
    if (const size_t at = text.find(spool.name()); at != text.npos) {
      text.replace(at, spool.name().size(), kName);
    }
    fail(error.kind(), "{}", text);
  }
}

}  // namespace sw
