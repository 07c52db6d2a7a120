#include "libswitch/io/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "libswitch/io/checkpoint_format.h"

namespace sw::hdf5 {

static_assert(std::is_same_v<Id, hid_t> && std::is_same_v<herr_t, int>);

template <>
Id scalar_type<float>() {
  return H5T_IEEE_F32LE;
}
template <>
Id scalar_type<double>() {
  return H5T_IEEE_F64LE;
}
template <>
Id scalar_type<int64_t>() {
  return H5T_STD_I64LE;
}
template <>
Id scalar_type<uint64_t>() {
  return H5T_STD_U64LE;
}
template <>
Id scalar_type<uint8_t>() {
  return H5T_STD_U8LE;
}

namespace {

// HDF5 prints its error stack on stderr unless told otherwise, and keeps that setting per thread.
// Its clean-up at exit crashes after a file that could not be written out (1.10.8), and has nothing
// to do here: every file is closed by its owner.
void silence() {
  static const bool once = [] {
    H5dont_atexit();
    return true;
  }();
  (void)once;
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// The innermost message of HDF5's error stack: the one nearest to the cause.
std::string hdf5_message() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  H5Eclear2(H5E_DEFAULT);
  // Of a failed system call it tells times and addresses over several lines: what the system said
  // is enough.
  constexpr std::string_view kSystem = "error message = '";
  if (const size_t begin = text.find(kSystem); begin != text.npos) {
    const size_t end = text.find('\'', begin + kSystem.size());
    text = text.substr(begin + kSystem.size(), end - begin - kSystem.size());
  }
  return text;
}

Handle access_properties(const std::string& name, int64_t objects) {
  silence();
  const auto checked = [&](herr_t code) {
    SW_CHECK(code >= 0, internal, "{}: HDF5 refuses an access property: {}", name, hdf5_message());
  };
  Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  checked(properties.get() < 0 ? -1 : 0);
  // V110 writes superblock 3, which marks a file that was not closed; older ones open cleanly and
  // read zeros.
  checked(H5Pset_libver_bounds(properties.get(), H5F_LIBVER_V110, H5F_LIBVER_V110));
  checked(H5Pset_alignment(properties.get(), 1, checkpoint_format::kAlignment));
  // Object headers are gathered in blocks, so that opening a file reads them in one go.
  const auto block = std::clamp<int64_t>(objects, 4, 512) * int64_t{checkpoint_format::kAlignment};
  checked(H5Pset_meta_block_size(properties.get(), static_cast<hsize_t>(block)));
  // A file is written under a name of its own and never changes afterwards: nothing to lock, and
  // locks fail on many network file systems.
  checked(H5Pset_file_locking(properties.get(), false, true));
  // Closing the file closes whatever an exception left open in it.
  checked(H5Pset_fclose_degree(properties.get(), H5F_CLOSE_STRONG));
  return properties;
}

}  // namespace

Handle tensor_type(DType dtype) {
  hid_t base = -1;
  switch (dtype) {
    case DType::f32:
    case DType::bf16: base = H5T_IEEE_F32LE; break;
    case DType::f64: base = H5T_IEEE_F64LE; break;
    case DType::i32: base = H5T_STD_I32LE; break;
    case DType::u8: base = H5T_STD_U8LE; break;
  }
  Handle type(H5Tcopy(base), H5Tclose);
  bool good = type.get() >= 0;
  if (dtype == DType::bf16) {
    // Fields first: they must lie within the precision, which shrinks last.
    good = good && H5Tset_fields(type.get(), 15, 7, 8, 0, 7) >= 0 &&
           H5Tset_size(type.get(), 2) >= 0 && H5Tset_ebias(type.get(), 127) >= 0;
  }
  SW_CHECK(good, internal, "HDF5 cannot make the type {}: {}", dtype_name(dtype), hdf5_message());
  return type;
}

Handle text_type(size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  const bool good = type.get() >= 0 && H5Tset_size(type.get(), std::max<size_t>(1, bytes)) >= 0 &&
                    H5Tset_strpad(type.get(), H5T_STR_NULLPAD) >= 0 &&
                    H5Tset_cset(type.get(), H5T_CSET_UTF8) >= 0;
  SW_CHECK(good, internal, "HDF5 cannot make a string type of {} bytes: {}", bytes, hdf5_message());
  return type;
}

namespace {

Handle variable_text_type() {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  const bool good = type.get() >= 0 && H5Tset_size(type.get(), H5T_VARIABLE) >= 0 &&
                    H5Tset_cset(type.get(), H5T_CSET_UTF8) >= 0;
  SW_CHECK(good, internal, "HDF5 cannot make a string type: {}", hdf5_message());
  return type;
}

}  // namespace

File File::create(const std::filesystem::path& path, int64_t objects) {
  File file;
  file.name_ = path.string();
  const Handle access = access_properties(file.name_, objects);
  file.kind_ = ErrorKind::cannot_create;
  file.id_ = file.own(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose,
                      "", "cannot create");
  file.kind_ = ErrorKind::io;
  file.file_bytes_ = std::numeric_limits<int64_t>::max();
  return file;
}

File File::open(const std::filesystem::path& path, uint64_t file_bytes) {
  File file;
  file.name_ = path.string();
  file.kind_ = ErrorKind::corrupt;
  file.file_bytes_ = file_bytes;
  const Handle access = access_properties(file.name_, 0);
  file.id_ = file.own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose, "",
                      "not a readable HDF5 file");
  return file;
}

void File::fail_at(const std::string& object, const std::string& what) const {
  const std::string cause = hdf5_message();
  fail(kind_, "{}: {}{}{}{}{}", name_, object, object.empty() ? "" : ": ", what,
       cause.empty() ? "" : ": ", cause);
}

Handle File::own(hid_t id, Handle::Close close, const std::string& object, const char* what) const {
  if (id < 0) fail_at(object, what);
  return Handle(id, close);
}

void File::flush() { check(H5Fflush(id(), H5F_SCOPE_LOCAL), "", "write failed"); }

uint64_t File::image_bytes() const {
  hsize_t bytes = 0;
  check(H5Fget_filesize(id(), &bytes), "", "cannot get the file size");
  return bytes;
}

void File::close() { check(id_.reset(), "", "write failed"); }

void File::create_group(const std::string& path) {
  const Handle links = own(H5Pcreate(H5P_LINK_CREATE), H5Pclose, path, "no link properties");
  check(H5Pset_create_intermediate_group(links.get(), 1), path, "no link properties");
  own(H5Gcreate2(id(), path.c_str(), links.get(), H5P_DEFAULT, H5P_DEFAULT), H5Gclose, path,
      "cannot create the group");
}

uint64_t File::create_dataset(const std::string& path, hid_t type, std::span<const int64_t> dims,
                              const Labels& labels) {
  std::vector<hsize_t> sizes(dims.begin(), dims.end());
  const Handle space =
      own(dims.empty() ? H5Screate(H5S_SCALAR)
                       : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
          H5Sclose, path, "no such shape");
  const Handle links = own(H5Pcreate(H5P_LINK_CREATE), H5Pclose, path, "no link properties");
  check(H5Pset_create_intermediate_group(links.get(), 1), path, "no link properties");
  const Handle creation = own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path, "no properties");
  check(H5Pset_layout(creation.get(), H5D_CONTIGUOUS), path, "no contiguous layout");
  check(H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY), path, "no early allocation");
  // Every byte is written by us; filling first would write large files twice.
  check(H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER), path, "no fill time");
  check(H5Pset_obj_track_times(creation.get(), false), path, "no object times");
  const Handle dataset = own(
      H5Dcreate2(id(), path.c_str(), type, space.get(), links.get(), creation.get(), H5P_DEFAULT),
      H5Dclose, path, "cannot create the dataset");
  if (!labels.empty()) {
    // What H5DSset_label writes, without the high-level library.
    const Handle text = variable_text_type();
    const hsize_t count = labels.size();
    const Handle label_space =
        own(H5Screate_simple(1, &count, nullptr), H5Sclose, path, "no label space");
    const Handle attribute = own(H5Acreate2(dataset.get(), "DIMENSION_LABELS", text.get(),
                                            label_space.get(), H5P_DEFAULT, H5P_DEFAULT),
                                 H5Aclose, path, "cannot create dimension labels");
    std::vector<const char*> pointers;
    for (const std::string& label : labels) pointers.push_back(label.c_str());
    check(H5Awrite(attribute.get(), text.get(), pointers.data()), path,
          "cannot write dimension labels");
  }
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return 0;
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF) fail_at(path, "dataset has no place in the file");
  return offset;
}

void File::write_dataset(const std::string& path, hid_t type, const void* data) {
  const Handle dataset =
      own(H5Dopen2(id(), path.c_str(), H5P_DEFAULT), H5Dclose, path, "cannot open the dataset");
  check(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), path, "write failed");
}

void File::write_text(const std::string& path, const std::string& text) {
  const Handle type = text_type(text.size());
  create_dataset(path, type.get(), {}, {});
  write_dataset(path, type.get(), text.c_str());
}

void File::write_texts(const std::string& path, const std::string& label,
                       const std::vector<std::string>& texts) {
  size_t width = 1;
  for (const std::string& text : texts) width = std::max(width, text.size());
  const Handle type = text_type(width);
  std::string padded;
  for (const std::string& text : texts) padded += text + std::string(width - text.size(), '\0');
  const int64_t count = static_cast<int64_t>(texts.size());
  create_dataset(path, type.get(), {&count, 1}, {label});
  if (count > 0) write_dataset(path, type.get(), padded.data());
}

Handle File::open_object(const std::string& path) const {
  return own(H5Oopen(id(), path.c_str(), H5P_DEFAULT), H5Oclose, path, "is missing");
}

void File::write_attribute(const std::string& object, const std::string& name,
                           const AttributeValue& value) {
  const Handle target = open_object(object);
  const Handle text = variable_text_type();
  const auto* string = std::get_if<std::string>(&value);
  const hid_t type = string != nullptr                       ? text.get()
                     : std::holds_alternative<double>(value) ? scalar_type<double>()
                                                             : scalar_type<int64_t>();
  const Handle space = own(H5Screate(H5S_SCALAR), H5Sclose, object, "no scalar space");
  const std::string what = object + "@" + name;
  const Handle attribute =
      own(H5Acreate2(target.get(), name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, what, "cannot create the attribute");
  const char* pointer = string != nullptr ? string->c_str() : nullptr;
  const void* data = string != nullptr ? static_cast<const void*>(&pointer)
                     : std::holds_alternative<double>(value)
                         ? &std::get<double>(value)
                         : static_cast<const void*>(&std::get<int64_t>(value));
  check(H5Awrite(attribute.get(), type, data), what, "write failed");
}

void File::write_attribute(const std::string& object, const std::string& name,
                           const std::vector<int64_t>& values) {
  const Handle target = open_object(object);
  const hsize_t count = values.size();
  const std::string what = object + "@" + name;
  const Handle space = own(H5Screate_simple(1, &count, nullptr), H5Sclose, what, "no space");
  const Handle attribute = own(
      H5Acreate2(target.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose, what, "cannot create the attribute");
  check(H5Awrite(attribute.get(), H5T_STD_I64LE, values.data()), what, "write failed");
}

bool File::exists(const std::string& path) const {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    const htri_t there = H5Lexists(id(), part.c_str(), H5P_DEFAULT);
    check(there < 0 ? -1 : 0, part, "cannot be looked up");
    if (there == 0) return false;
    if (at == std::string::npos) return true;
  }
}

Dataset File::open_dataset(const std::string& path, hid_t type) const {
  // A soft or external link may lead into another file; refused before it is followed.
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    H5L_info_t link;
    check(H5Lget_info(id(), part.c_str(), &link, H5P_DEFAULT), part, "is missing");
    if (link.type != H5L_TYPE_HARD) fail_at(part, "is not a hard link, which is refused");
    if (at == std::string::npos) break;
  }
  Dataset out;
  out.id = open_object(path);
  if (H5Iget_type(out.id.get()) != H5I_DATASET) fail_at(path, "is not a dataset");
  const Handle creation =
      own(H5Dget_create_plist(out.id.get()), H5Pclose, path, "has no properties");
  if (H5Pget_layout(creation.get()) != H5D_CONTIGUOUS) fail_at(path, "is not contiguous");
  if (H5Pget_nfilters(creation.get()) != 0) fail_at(path, "has a filter, which is refused");
  if (H5Pget_external_count(creation.get()) != 0) {
    fail_at(path, "lies in an external file, which is refused");
  }
  const Handle stored = own(H5Dget_type(out.id.get()), H5Tclose, path, "has no type");
  if (type >= 0 && H5Tequal(stored.get(), type) <= 0) fail_at(path, "has an unexpected type");
  const size_t element = H5Tget_size(stored.get());
  const Handle space = own(H5Dget_space(out.id.get()), H5Sclose, path, "has no shape");
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank < 0 || rank > 8 || element == 0) fail_at(path, "has an unexpected shape");
  std::vector<hsize_t> sizes(static_cast<size_t>(rank));
  if (rank > 0) {
    check(H5Sget_simple_extent_dims(space.get(), sizes.data(), nullptr), path, "has no shape");
  } else if (H5Sget_simple_extent_type(space.get()) != H5S_SCALAR) {
    fail_at(path, "has no elements");
  }
  uint64_t bytes = element, elements = 1;
  for (const hsize_t size : sizes) {
    if (size != 0 && (bytes > file_bytes_ / size)) fail_at(path, "is larger than the file");
    bytes *= size, elements *= size;
    out.dims.push_back(static_cast<int64_t>(size));
  }
  out.elements = static_cast<int64_t>(elements);
  if (elements > 0) {
    out.offset = H5Dget_offset(out.id.get());
    if (out.offset == HADDR_UNDEF || bytes > file_bytes_ || out.offset > file_bytes_ - bytes) {
      fail_at(path, "lies outside the file");
    }
  }
  return out;
}

void File::read(const Dataset& dataset, const std::string& path, hid_t type, void* out) const {
  check(H5Dread(dataset.id.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out), path, "read failed");
}

void File::check_dims(const std::string& path, const Dataset& dataset,
                      std::span<const int64_t> dims) const {
  if (!std::equal(dims.begin(), dims.end(), dataset.dims.begin(), dataset.dims.end())) {
    fail_at(path,
            fmt::format("expected shape [{}], got [{}]", fmt::join(dims.begin(), dims.end(), ", "),
                        fmt::join(dataset.dims.begin(), dataset.dims.end(), ", ")));
  }
}

namespace {

// Opens a dataset of fixed-length strings and returns it with the length.
std::pair<Dataset, size_t> open_text(const File& file, const std::string& path) {
  Dataset dataset = file.open_dataset(path, -1);
  const Handle stored = file.own(H5Dget_type(dataset.id.get()), H5Tclose, path, "has no type");
  const size_t width = H5Tget_size(stored.get());
  if (H5Tget_class(stored.get()) != H5T_STRING || H5Tis_variable_str(stored.get()) != 0 ||
      H5Tequal(stored.get(), text_type(width).get()) <= 0) {
    file.fail_at(path, "is not a string of fixed length");
  }
  return {std::move(dataset), width};
}

}  // namespace

std::string File::read_text(const std::string& path) const {
  const auto [dataset, width] = open_text(*this, path);
  check_dims(path, dataset, {});
  std::string text(width, '\0');
  read(dataset, path, text_type(width).get(), text.data());
  text.resize(text.find_last_not_of('\0') + 1);
  return text;
}

std::vector<std::string> File::read_texts(const std::string& path) const {
  const auto [dataset, width] = open_text(*this, path);
  if (dataset.dims.size() != 1) fail_at(path, "is not a list");
  // A string of one byte in the file takes 32 in memory.
  if (dataset.elements > (int64_t{1} << 20)) fail_at(path, "has over 1,048,576 texts");
  std::string all(width * static_cast<size_t>(dataset.elements), '\0');
  if (!all.empty()) read(dataset, path, text_type(width).get(), all.data());
  std::vector<std::string> texts;
  for (size_t at = 0; at < all.size(); at += width) {
    std::string text = all.substr(at, width);
    text.resize(text.find_last_not_of('\0') + 1);
    texts.push_back(std::move(text));
  }
  return texts;
}

bool File::has_attribute(const std::string& object, const std::string& name) const {
  const htri_t there = H5Aexists_by_name(id(), object.c_str(), name.c_str(), H5P_DEFAULT);
  check(there < 0 ? -1 : 0, object + "@" + name, "cannot be looked up");
  return there > 0;
}

AttributeValue File::read_attribute(const std::string& object, const std::string& name) const {
  const std::string what = object + "@" + name;
  const Handle attribute =
      own(H5Aopen_by_name(id(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
          what, "is missing");
  const Handle type = own(H5Aget_type(attribute.get()), H5Tclose, what, "has no type");
  const Handle space = own(H5Aget_space(attribute.get()), H5Sclose, what, "has no shape");
  if (H5Sget_simple_extent_npoints(space.get()) != 1) fail_at(what, "is not one value");
  if (H5Tequal(type.get(), H5T_STD_I64LE) > 0) {
    int64_t value = 0;
    check(H5Aread(attribute.get(), H5T_STD_I64LE, &value), what, "read failed");
    return value;
  }
  if (H5Tequal(type.get(), H5T_IEEE_F64LE) > 0) {
    double value = 0;
    check(H5Aread(attribute.get(), H5T_IEEE_F64LE, &value), what, "read failed");
    return value;
  }
  const Handle text = variable_text_type();
  if (H5Tequal(type.get(), text.get()) <= 0) fail_at(what, "has an unexpected type");
  char* pointer = nullptr;
  check(H5Aread(attribute.get(), text.get(), &pointer), what, "read failed");
  std::string value = pointer != nullptr ? pointer : "";
  H5free_memory(pointer);
  return value;
}

std::vector<int64_t> File::read_integers_attribute(const std::string& object,
                                                   const std::string& name) const {
  const std::string what = object + "@" + name;
  const Handle attribute =
      own(H5Aopen_by_name(id(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
          what, "is missing");
  const Handle type = own(H5Aget_type(attribute.get()), H5Tclose, what, "has no type");
  const Handle space = own(H5Aget_space(attribute.get()), H5Sclose, what, "has no shape");
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (H5Tequal(type.get(), H5T_STD_I64LE) <= 0 || count < 0 || count > 1024) {
    fail_at(what, "is not a short list of 64-bit integers");
  }
  std::vector<int64_t> values(static_cast<size_t>(count));
  if (count > 0) check(H5Aread(attribute.get(), H5T_STD_I64LE, values.data()), what, "read failed");
  return values;
}

std::vector<std::string> File::attribute_names(const std::string& object) const {
  const Handle target = open_object(object);
  std::vector<std::string> names;
  hsize_t at = 0;
  check(H5Aiterate2(
            target.get(), H5_INDEX_NAME, H5_ITER_INC, &at,
            [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
              static_cast<std::vector<std::string>*>(out)->push_back(name);
              return 0;
            },
            &names),
        object, "cannot list the attributes");
  return names;
}

}  // namespace sw::hdf5
