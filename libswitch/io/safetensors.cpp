#include "libswitch/io/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "libswitch/base/error.h"
#include "libswitch/base/regular_file.h"
#include "libswitch/io/json_text.h"

namespace sw {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxTensors = 500'000;

struct Range {
  uint64_t begin = 0, end = 0;
};

// Takes the header apart as it is parsed: a tree of it would take many times its size.
class HeaderParser : public json::json_sax_t {
 public:
  HeaderParser(std::string name, std::vector<ArchiveTensor>& tensors, std::vector<Range>& ranges)
      : name_(std::move(name)), tensors_(tensors), ranges_(ranges) {}

  bool null() override { wrong("null"); }
  bool boolean(bool) override { wrong("true or false"); }
  bool number_integer(number_integer_t) override { wrong("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { wrong("a fraction"); }
  bool binary(binary_t&) override { wrong("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      SW_CHECK(shape_.rank() < Shape::kMaxRank, corrupt,
               "{}: tensor {} has more than {} dimensions", name_, shown(current_),
               Shape::kMaxRank);
      SW_CHECK(value <= (uint64_t{1} << 62), corrupt, "{}: tensor {} has a size of {}", name_,
               shown(current_), value);
      shape_.push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? range_.begin : range_.end) = value;
    } else {
      wrong("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) return true;
    if (place_ != Place::tensor || field_ != kDtype) wrong("a string");
    SW_CHECK(element_from_name(value, type_), corrupt, "{}: tensor {} has the unknown dtype \"{}\"",
             name_, shown(current_), shown(value));
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ == Place::top && current_ == "__metadata__") {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      place_ = Place::tensor;
      seen_ = 0, offsets_ = 0, field_ = 0;
      shape_ = Shape();
    } else {
      wrong("an object");
    }
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::top) {
      current_ = value;
      if (value == "__metadata__") {
        SW_CHECK(!metadata_, corrupt, "{}: __metadata__ is given twice", name_);
        metadata_ = true;
      }
    } else if (place_ == Place::metadata) {
      SW_CHECK(metadata_keys_.emplace(value, true).second, corrupt,
               "{}: __metadata__ has the key \"{}\" twice", name_, shown(value));
    } else {
      field_ = value == "dtype"          ? kDtype
               : value == "shape"        ? kShape
               : value == "data_offsets" ? kOffsets
                                         : 0;
      SW_CHECK(field_ != 0, corrupt, "{}: tensor {} has the unknown field \"{}\"", name_,
               shown(current_), shown(value));
      SW_CHECK((seen_ & field_) == 0, corrupt, "{}: tensor {} has the field \"{}\" twice", name_,
               shown(current_), value);
      seen_ |= field_;
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      SW_CHECK(seen_ == (kDtype | kShape | kOffsets) && offsets_ == 2, corrupt,
               "{}: tensor {} lacks one of dtype, shape and data_offsets", name_, shown(current_));
      SW_CHECK(tensors_.size() < kMaxTensors, corrupt, "{}: more than {} tensors", name_,
               kMaxTensors);
      tensors_.push_back({current_, type_, shape_, tensors_.size()});
      ranges_.push_back(range_);
    }
    place_ = place_ == Place::top ? Place::done : Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::tensor && field_ == kShape) {
      place_ = Place::shape;
    } else if (place_ == Place::tensor && field_ == kOffsets) {
      place_ = Place::offsets;
    } else {
      wrong("a list");
    }
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    fail(ErrorKind::corrupt, "{}: header is not JSON: something is wrong at byte {}", name_,
         8 + position);
  }

 private:
  enum class Place { outside, top, metadata, tensor, shape, offsets, done };
  static constexpr int kDtype = 1, kShape = 2, kOffsets = 4;

  [[noreturn]] void wrong(const char* what) {
    fail(ErrorKind::corrupt, "{}: header: {} stands where none may be{}", name_, what,
         current_.empty() ? std::string() : ", at " + shown(current_));
  }

  std::string name_, current_;
  std::vector<ArchiveTensor>& tensors_;
  std::vector<Range>& ranges_;
  Place place_ = Place::outside;
  int field_ = 0, seen_ = 0, offsets_ = 0;
  ElementType type_ = ElementType::f32;
  Shape shape_;
  Range range_;
  bool metadata_ = false;
  std::map<std::string, bool> metadata_keys_;
};

class SafetensorsFile : public TensorArchive {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path)
      : fd_(open_regular_file(path)), name_(path.string()) {
    struct stat info {};
    SW_CHECK(::fstat(fd_.get(), &info) == 0, io, "{}: {}", name_, std::strerror(errno));
    SW_CHECK(S_ISREG(info.st_mode), corrupt, "{}: not a file of tensors", name_);
    const auto size = static_cast<uint64_t>(info.st_size);
    SW_CHECK(size >= 8, corrupt, "{}: {} bytes, expected a safetensors file", name_, size);
    uint64_t header = 0;
    pread_all(fd_.get(), &header, 8, 0, name_);
    SW_CHECK(header <= kMaxHeader, corrupt,
             "{}: the header's length reads {}, at most {} are allowed: not a safetensors file, or "
             "damaged",
             name_, header, kMaxHeader);
    SW_CHECK(header <= size - 8, corrupt,
             "{}: the header has {} bytes, the file {}: cut short, or not a safetensors file",
             name_, header, size);
    std::vector<Range> ranges;
    parse(header, ranges);
    data_ = 8 + header;
    check_ranges(ranges, size - data_);
    sort_by_name(ranges);
  }

  void read_rows(size_t tensor, int64_t begin, int64_t end, void* out) const override {
    const ArchiveTensor& t = tensors_.at(tensor);
    SW_CHECK(begin >= 0 && begin <= end && end <= t.rows(), internal, "{}: rows [{}, {}) of {}",
             name_, begin, end, t.rows());
    if (t.bytes() == 0 || begin == end) return;
    const int64_t row = t.bytes() / t.rows();
    pread_all(fd_.get(), out, static_cast<size_t>((end - begin) * row),
              data_ + begins_[tensor] + static_cast<uint64_t>(begin * row), name_);
  }
  std::string file_of(size_t) const override { return name_; }

 private:
  void parse(uint64_t bytes, std::vector<Range>& ranges) {
    std::string header(bytes, '\0');
    pread_all(fd_.get(), header.data(), header.size(), 8, name_);
    SW_CHECK(!header.empty() && header[0] == '{', corrupt,
             "{}: the header does not begin with '{{': not a safetensors file", name_);
    HeaderParser parser(name_, tensors_, ranges);
    json::sax_parse(header.begin(), header.end(), &parser);
  }

  // Sorted by their begin, the tensors must tile the data exactly.
  void check_ranges(const std::vector<Range>& ranges, uint64_t data) const {
    std::vector<uint32_t> order(ranges.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return std::pair(ranges[a].begin, ranges[a].end) < std::pair(ranges[b].begin, ranges[b].end);
    });
    uint64_t at = 0;
    for (const uint32_t i : order) {
      const Range& range = ranges[i];
      const ArchiveTensor& tensor = tensors_[i];
      SW_CHECK(range.begin <= range.end && range.end <= data, corrupt,
               "{}: tensor {} claims the bytes [{}, {}) of {}: the file is cut short or damaged",
               name_, shown(tensor.name), range.begin, range.end, data);
      SW_CHECK(range.begin == at, corrupt,
               "{}: tensor {} begins at byte {} of the data, expected {}: tensors {}", name_,
               shown(tensor.name), range.begin, at, range.begin < at ? "overlap" : "leave a hole");
      const int64_t bytes = checked_bytes(tensor.shape, tensor.type);
      SW_CHECK(bytes >= 0 && static_cast<uint64_t>(bytes) == range.end - range.begin, corrupt,
               "{}: tensor {} of shape {} and dtype {} has {} bytes", name_, shown(tensor.name),
               tensor.shape.str(), element_name(tensor.type), range.end - range.begin);
      at = range.end;
    }
    SW_CHECK(at == data, corrupt, "{}: {} bytes follow the last tensor", name_, data - at);
  }

  void sort_by_name(const std::vector<Range>& ranges) {
    std::sort(tensors_.begin(), tensors_.end(),
              [](const ArchiveTensor& a, const ArchiveTensor& b) { return a.name < b.name; });
    begins_.reserve(tensors_.size());
    for (size_t i = 0; i < tensors_.size(); ++i) {
      SW_CHECK(i == 0 || tensors_[i].name != tensors_[i - 1].name, corrupt,
               "{}: tensor {} is there twice", name_, shown(tensors_[i].name));
      begins_.push_back(ranges[tensors_[i].identity].begin);
    }
  }

  FileDescriptor fd_;
  std::string name_;
  uint64_t data_ = 0;
  std::vector<uint64_t> begins_;  // of each tensor, from the start of the data
};

// The header that the reference writes, padded with spaces so that the data begin at a multiple
// of 8. Sorts `tensors` the way it does.
std::string make_header(std::vector<ArchiveTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const ArchiveTensor& a, const ArchiveTensor& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;
  });
  std::string header = "{";
  const auto quoted = [](const std::string& text) { return json(text).dump(); };
  if (!metadata.empty()) header += "\"__metadata__\":" + json(metadata).dump();
  int64_t at = 0;
  for (const ArchiveTensor& tensor : tensors) {
    if (header.size() > 1) header += ',';
    header +=
        fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                    quoted(tensor.name), element_name(tensor.type),
                    json(std::vector<int64_t>(tensor.shape.begin(), tensor.shape.end())).dump(), at,
                    at + tensor.bytes());
    at += tensor.bytes();
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

}  // namespace

std::unique_ptr<TensorArchive> open_safetensors(const std::filesystem::path& path) {
  return std::make_unique<SafetensorsFile>(path);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<ArchiveTensor> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), name_(path.string()) {
  const std::string header = make_header(tensors, metadata);
  const uint64_t length = header.size();
  pwrite_all(file_.fd(), &length, 8, 0, name_);
  pwrite_all(file_.fd(), header.data(), header.size(), 8, name_);
  uint64_t at = 8 + length;
  for (const ArchiveTensor& tensor : tensors) {
    SW_CHECK(places_.emplace(tensor.name, std::pair(at, tensor.bytes())).second, usage,
             "{}: tensor {} is given twice", name_, tensor.name);
    at += static_cast<uint64_t>(tensor.bytes());
    left_ += tensor.bytes();
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, int64_t first_byte, const void* data,
                              int64_t bytes) {
  const auto place = places_.find(name);
  SW_CHECK(place != places_.end() && first_byte >= 0 && bytes >= 0 &&
               first_byte + bytes <= place->second.second,
           internal, "{}: bytes [{}, {}) of tensor {}", name_, first_byte, first_byte + bytes,
           name);
  pwrite_all(file_.fd(), data, static_cast<size_t>(bytes),
             place->second.first + static_cast<uint64_t>(first_byte), name_);
  left_ -= bytes;
}

void SafetensorsWriter::commit() {
  SW_CHECK(left_ == 0, internal, "{}: {} bytes were not written", name_, left_);
  file_.commit();
}

}  // namespace sw
