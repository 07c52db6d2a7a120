#include "libswitch/io/torch_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "libswitch/base/error.h"
#include "libswitch/base/regular_file.h"
#include "libswitch/io/json_text.h"
#include "libswitch/io/state_dict_pickle.h"
#include "libswitch/io/zip_file.h"

namespace sw {
namespace {

constexpr uint64_t kMaxPickle = uint64_t{16} << 20;
// Two pickles: the number 0x1950a86a20f9469cfc6c, and the version 1001.
constexpr std::string_view kLegacyMagic =
    "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

// Where a tensor lies: a view of bytes of the file.
struct Place {
  uint64_t first_byte = 0;                         // of the view's first element
  std::array<int64_t, Shape::kMaxRank> strides{};  // in elements
  bool dense = true;                               // row-major without gaps
};

bool is_dense(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (int d = tensor.shape.rank() - 1; d >= 0; --d) {
    if (tensor.shape[d] != 1 && tensor.strides[static_cast<size_t>(d)] != expected) return false;
    expected *= tensor.shape[d];
  }
  return true;
}

class TorchFile : public TensorArchive {
 public:
  explicit TorchFile(const std::filesystem::path& path)
      : fd_(open_regular_file(path)), name_(path.string()) {
    struct stat info {};
    SW_CHECK(::fstat(fd_.get(), &info) == 0, io, "{}: {}", name_, std::strerror(errno));
    SW_CHECK(S_ISREG(info.st_mode), corrupt, "{}: not a file of tensors", name_);
    const auto size = static_cast<uint64_t>(info.st_size);
    if (is_legacy(size)) {
      read_legacy(size);
      return;
    }
    entries_ = read_zip_directory(fd_.get(), size, name_);
    const std::string pickle = read_entry(find_pickle());
    place_tensors(read_state_dict_pickle(pickle, name_));
  }

  void read_rows(size_t tensor, int64_t begin, int64_t end, void* out) const override {
    const ArchiveTensor& t = tensors_.at(tensor);
    const Place& place = places_[tensor];
    SW_CHECK(begin >= 0 && begin <= end && end <= t.rows(), internal, "{}: rows [{}, {}) of {}",
             name_, begin, end, t.rows());
    if (t.bytes() == 0 || begin == end) return;
    const int64_t element = element_bits(t.type) / 8;
    const uint64_t first =
        place.first_byte +
        (t.shape.rank() == 0 ? 0 : static_cast<uint64_t>(begin * place.strides[0] * element));
    if (place.dense) {
      const int64_t row = t.bytes() / t.rows();
      pread_all(fd_.get(), out, static_cast<size_t>((end - begin) * row), first, name_);
      return;
    }
    Shape part = t.shape;
    if (t.shape.rank() > 0) {
      part = Shape{end - begin};
      for (int d = 1; d < t.shape.rank(); ++d) part.push_back(t.shape[d]);
    }
    gather(part, place.strides, element, first, static_cast<char*>(out));
  }
  std::string file_of(size_t) const override { return name_; }

 private:
  // Files of before PyTorch 1.6 are pickles one after the other.
  bool is_legacy(uint64_t size) const {
    std::string magic(std::min<uint64_t>(size, kLegacyMagic.size()), '\0');
    pread_all(fd_.get(), magic.data(), magic.size(), 0, name_);
    if (magic == kLegacyMagic) return true;
    SW_CHECK(magic.starts_with("PK\3\4"), corrupt, "{}: not a PyTorch file", name_);
    return false;
  }

  // A magic number and a version; facts of the machine; the dictionary; the keys of its storages;
  // and for each in that order, its elements in 8 bytes and its data.
  void read_legacy(uint64_t size) {
    std::string head(std::min(size, kMaxPickle), '\0');
    pread_all(fd_.get(), head.data(), head.size(), 0, name_);
    std::string_view rest = std::string_view(head).substr(kLegacyMagic.size());
    size_t used = 0;
    const auto advance = [&] { rest.remove_prefix(used); };
    SW_CHECK(read_pickled_flag(rest, name_, "little_endian", &used), corrupt,
             "{}: written by a big-endian machine", name_);
    advance();
    std::vector<PickledTensor> tensors = read_state_dict_pickle(rest, name_, &used);
    advance();
    const std::vector<std::string> keys = read_pickled_texts(rest, name_, &used);
    advance();
    std::map<std::string_view, const PickledTensor*> storages;
    for (const PickledTensor& tensor : tensors) storages.emplace(tensor.storage, &tensor);
    uint64_t at = head.size() - rest.size();
    for (const std::string& key : keys) {
      const auto storage = storages.find(key);
      SW_CHECK(storage != storages.end(), corrupt, "{}: no tensor lies in the storage \"{}\"",
               name_, shown(key));
      uint64_t elements = 0;
      pread_all(fd_.get(), &elements, 8, at, name_);
      const auto element = static_cast<uint64_t>(element_bits(storage->second->type) / 8);
      SW_CHECK(elements <= (size - at - 8) / element, corrupt,
               "{}: storage \"{}\" of {} elements at byte {} of {}: cut short or damaged", name_,
               shown(key), elements, at, size);
      entries_.push_back({"data/" + key, at + 8, elements * element});
      at += 8 + elements * element;
    }
    SW_CHECK(at == size, corrupt, "{}: {} bytes follow the last storage", name_, size - at);
    std::sort(entries_.begin(), entries_.end(),
              [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
    place_tensors(std::move(tensors));
  }

  const ZipEntry* find_entry(const std::string& name) const {
    const auto at = std::lower_bound(
        entries_.begin(), entries_.end(), name,
        [](const ZipEntry& entry, const std::string& wanted) { return entry.name < wanted; });
    return at != entries_.end() && at->name == name ? &*at : nullptr;
  }
  std::string read_entry(const ZipEntry& entry) const {
    SW_CHECK(entry.bytes <= kMaxPickle, corrupt, "{}: {} has {} bytes, at most {}", name_,
             shown(entry.name), entry.bytes, kMaxPickle);
    std::string bytes(entry.bytes, '\0');
    pread_all(fd_.get(), bytes.data(), bytes.size(), entry.offset, name_);
    return bytes;
  }

  // "<folder>/data.pkl"; the folder is named by the writer.
  const ZipEntry& find_pickle() {
    for (const ZipEntry& entry : entries_) {
      const size_t slash = entry.name.find('/');
      if (slash == std::string::npos || entry.name.substr(slash) != "/data.pkl") continue;
      folder_ = entry.name.substr(0, slash + 1);
      const ZipEntry* order = find_entry(folder_ + "byteorder");
      SW_CHECK(order == nullptr || read_entry(*order) == "little", corrupt,
               "{}: written by a big-endian machine", name_);
      return entry;
    }
    fail(ErrorKind::corrupt, "{}: a zip file without data.pkl: not written by torch.save", name_);
  }

  void place_tensors(std::vector<PickledTensor> pickled) {
    std::sort(pickled.begin(), pickled.end(),
              [](const PickledTensor& a, const PickledTensor& b) { return a.name < b.name; });
    for (const PickledTensor& tensor : pickled) {
      SW_CHECK(tensors_.empty() || tensors_.back().name != tensor.name, corrupt,
               "{}: tensor {} is there twice", name_, shown(tensor.name));
      const ZipEntry* storage = find_entry(folder_ + "data/" + tensor.storage);
      SW_CHECK(storage != nullptr, corrupt,
               "{}: tensor {} lies in the storage \"{}\", which is not there", name_,
               shown(tensor.name), shown(tensor.storage));
      const int64_t element = element_bits(tensor.type) / 8;
      SW_CHECK(static_cast<uint64_t>(tensor.storage_elements) <=
                   storage->bytes / static_cast<uint64_t>(element),
               corrupt, "{}: storage {} has {} bytes, {} elements of {} are expected", name_,
               shown(tensor.storage), storage->bytes, tensor.storage_elements,
               element_name(tensor.type));
      Place place;
      place.first_byte = storage->offset + static_cast<uint64_t>(tensor.offset * element);
      place.strides = tensor.strides;
      place.dense = is_dense(tensor);
      tensors_.push_back({tensor.name, tensor.type, tensor.shape, place.first_byte});
      places_.push_back(place);
    }
  }

  // A strided view: read the bytes that it spans and pick its elements.
  void gather(const Shape& part, const std::array<int64_t, Shape::kMaxRank>& strides,
              int64_t element, uint64_t first, char* out) const {
    int64_t last = 0;
    for (int d = 0; d < part.rank(); ++d) last += (part[d] - 1) * strides[static_cast<size_t>(d)];
    std::string span(static_cast<size_t>((last + 1) * element), '\0');
    pread_all(fd_.get(), span.data(), span.size(), first, name_);
    std::array<int64_t, Shape::kMaxRank> at{};
    const int inner = part.rank() - 1;
    const int64_t run = part[inner], step = strides[static_cast<size_t>(inner)] * element;
    const int64_t runs = part.elements() / run;
    for (int64_t i = 0; i < runs; ++i) {
      int64_t from = 0;
      for (int d = 0; d < inner; ++d)
        from += at[static_cast<size_t>(d)] * strides[static_cast<size_t>(d)];
      const char* source = span.data() + from * element;
      for (int64_t j = 0; j < run; ++j, out += element, source += step) {
        std::memcpy(out, source, static_cast<size_t>(element));
      }
      for (int d = inner - 1; d >= 0 && ++at[static_cast<size_t>(d)] == part[d]; --d) {
        at[static_cast<size_t>(d)] = 0;
      }
    }
  }

  FileDescriptor fd_;
  std::string name_, folder_;
  std::vector<ZipEntry> entries_;
  std::vector<Place> places_;
};

}  // namespace

std::unique_ptr<TensorArchive> open_torch_file(const std::filesystem::path& path) {
  return std::make_unique<TorchFile>(path);
}

}  // namespace sw
