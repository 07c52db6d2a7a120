// HDF5 with every return code checked and identifiers owned. Private to io/. HDF5's own header
// stays in .cpp files; its identifiers (Id) are 64-bit integers, its return codes (herr_t) are int.
//
// A file that is being written fails with ErrorKind::io, one that is read with corrupt: its bytes
// have been read successfully by then, so whatever HDF5 dislikes lies in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/tensor/dtype.h"

namespace sw::hdf5 {

using Id = int64_t;

/// Owner of an HDF5 identifier.
class Handle {
 public:
  using Close = int (*)(Id);
  Handle() = default;
  Handle(Id id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1), close_ = other.close_;
    }
    return *this;
  }
  ~Handle() { reset(); }
  Id get() const { return id_; }
  /// Closes now; the return code of HDF5.
  int reset() { return id_ >= 0 ? close_(std::exchange(id_, -1)) : 0; }

 private:
  Id id_ = -1;
  Close close_ = nullptr;
};

/// File type of the values stored outside tensors: float, double, int64_t, uint64_t, uint8_t.
template <class T>
Id scalar_type();
template <>
Id scalar_type<float>();
template <>
Id scalar_type<double>();
template <>
Id scalar_type<int64_t>();
template <>
Id scalar_type<uint64_t>();
template <>
Id scalar_type<uint8_t>();

/// A contiguous dataset that passed the checks of File::open_dataset.
struct Dataset {
  Handle id;
  std::vector<int64_t> dims;
  uint64_t offset = 0;  // of its first byte in the file; 0 when it has no elements
  int64_t elements = 0;
};

using Labels = std::vector<std::string>;

class File {
 public:
  /// Creates or truncates `path`. `objects`: about how many objects it will hold (sizes the blocks
  /// that metadata is gathered in, so that they lie together). Throws cannot_create.
  static File create(const std::filesystem::path& path, int64_t objects);
  /// Opens for reading. `file_bytes` bounds what datasets may claim.
  static File open(const std::filesystem::path& path, uint64_t file_bytes);

  Id id() const { return id_.get(); }
  /// Writes everything out, without closing.
  void flush();
  /// Bytes of the HDF5 image.
  uint64_t image_bytes() const;
  void close();

  // Writing. Paths are absolute; missing groups are created.
  /// Creates a dataset, not yet written; the file offset of its first byte (0: no elements).
  uint64_t create_dataset(const std::string& path, Id type, std::span<const int64_t> dims,
                          const Labels& labels);
  void write_dataset(const std::string& path, Id type, const void* data);
  template <class T>
  void write_array(const std::string& path, std::span<const int64_t> dims, const Labels& labels,
                   const std::vector<T>& values) {
    create_dataset(path, scalar_type<T>(), dims, labels);
    if (!values.empty()) write_dataset(path, scalar_type<T>(), values.data());
  }
  template <class T>
  void write_scalar(const std::string& path, T value) {
    create_dataset(path, scalar_type<T>(), {}, {});
    write_dataset(path, scalar_type<T>(), &value);
  }
  /// A scalar string of fixed length, padded with zero bytes (an empty one is a single zero byte).
  void write_text(const std::string& path, const std::string& text);
  /// A one-dimensional array of strings of one fixed length.
  void write_texts(const std::string& path, const std::string& label,
                   const std::vector<std::string>& texts);
  void create_group(const std::string& path);
  /// A scalar attribute; strings have variable length, so that h5py gives a str.
  void write_attribute(const std::string& object, const std::string& name,
                       const AttributeValue& value);
  void write_attribute(const std::string& object, const std::string& name,
                       const std::vector<int64_t>& values);

  // Reading.
  /// True when every part of `path` is there.
  bool exists(const std::string& path) const;
  /// Opens a dataset of type `type` (any, if negative) that is reached by hard links only,
  /// contiguous, without filter or external file, and within the file.
  Dataset open_dataset(const std::string& path, Id type) const;
  void read(const Dataset& dataset, const std::string& path, Id type, void* out) const;
  template <class T>
  std::vector<T> read_array(const std::string& path, std::span<const int64_t> dims) const {
    const Dataset dataset = open_dataset(path, scalar_type<T>());
    check_dims(path, dataset, dims);
    std::vector<T> values(static_cast<size_t>(dataset.elements));
    if (!values.empty()) read(dataset, path, scalar_type<T>(), values.data());
    return values;
  }
  template <class T>
  T read_scalar(const std::string& path) const {
    return read_array<T>(path, {})[0];
  }
  std::string read_text(const std::string& path) const;
  std::vector<std::string> read_texts(const std::string& path) const;
  /// Throws corrupt unless the dataset has these dimensions.
  void check_dims(const std::string& path, const Dataset& dataset,
                  std::span<const int64_t> dims) const;
  bool has_attribute(const std::string& object, const std::string& name) const;
  AttributeValue read_attribute(const std::string& object, const std::string& name) const;
  std::vector<int64_t> read_integers_attribute(const std::string& object,
                                               const std::string& name) const;
  std::vector<std::string> attribute_names(const std::string& object) const;

  /// Throws this file's kind of error with "file: object: what: HDF5's own words".
  [[noreturn]] void fail_at(const std::string& object, const std::string& what) const;
  /// Wraps an identifier that HDF5 returned; throws as fail_at when it is an error.
  Handle own(Id id, Handle::Close close, const std::string& object, const char* what) const;
  /// Throws as fail_at when `code` is an error.
  void check(int code, const std::string& object, const char* what) const {
    if (code < 0) fail_at(object, what);
  }

 private:
  Handle open_object(const std::string& path) const;
  Handle id_;
  std::string name_;
  ErrorKind kind_ = ErrorKind::io;
  uint64_t file_bytes_ = 0;
};

/// File type of a tensor's elements; bf16 is a 16-bit float with an 8-bit exponent.
Handle tensor_type(DType dtype);
/// A string type of `bytes` bytes, UTF-8, padded with zeros.
Handle text_type(size_t bytes);

}  // namespace sw::hdf5
