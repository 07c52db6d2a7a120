#include "libswitch/io/checkpoint_layout.h"

#include <hdf5.h>
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "libswitch/base/error.h"

namespace sw {
namespace {

using hdf5::Handle;

constexpr const char* kTensors = "/layout/tensors";
constexpr const char* kTiles = "/layout/tiles";
constexpr size_t kDtypeWidth = 8;

// Memory and file image of a row of /layout/tiles.
struct TileRow {
  int64_t tensor, index;
  int64_t start[4], count[4];
  uint64_t offset, bytes, checksum;
};
static_assert(sizeof(TileRow) == 104);

// A row of /layout/tensors is packed: name, dtype, axes, then these.
struct TensorNumbers {
  int64_t rank;
  int64_t shape[4];
  uint64_t offset, bytes;
};
static_assert(sizeof(TensorNumbers) == 56);

void insert(const hdf5::File& file, const Handle& compound, const char* name, size_t at,
            hid_t type) {
  file.check(H5Tinsert(compound.get(), name, at, type), "/layout", "cannot make the row type");
}

Handle four_integers(const hdf5::File& file) {
  const hsize_t four = 4;
  return file.own(H5Tarray_create2(H5T_STD_I64LE, 1, &four), H5Tclose, "/layout", "no array type");
}

Handle tile_row_type(const hdf5::File& file) {
  Handle type = file.own(H5Tcreate(H5T_COMPOUND, sizeof(TileRow)), H5Tclose, kTiles, "no row type");
  const Handle four = four_integers(file);
  insert(file, type, "tensor", offsetof(TileRow, tensor), H5T_STD_I64LE);
  insert(file, type, "index", offsetof(TileRow, index), H5T_STD_I64LE);
  insert(file, type, "start", offsetof(TileRow, start), four.get());
  insert(file, type, "count", offsetof(TileRow, count), four.get());
  insert(file, type, "offset", offsetof(TileRow, offset), H5T_STD_U64LE);
  insert(file, type, "bytes", offsetof(TileRow, bytes), H5T_STD_U64LE);
  insert(file, type, "xxh3_64", offsetof(TileRow, checksum), H5T_STD_U64LE);
  return type;
}

size_t tensor_row_bytes(size_t name_width, size_t axes_width) {
  return name_width + kDtypeWidth + axes_width + sizeof(TensorNumbers);
}

Handle tensor_row_type(const hdf5::File& file, size_t name_width, size_t axes_width) {
  Handle type = file.own(H5Tcreate(H5T_COMPOUND, tensor_row_bytes(name_width, axes_width)),
                         H5Tclose, kTensors, "no row type");
  const Handle four = four_integers(file);
  size_t at = 0;
  insert(file, type, "name", at, hdf5::text_type(name_width).get());
  insert(file, type, "dtype", at += name_width, hdf5::text_type(kDtypeWidth).get());
  insert(file, type, "axes", at += kDtypeWidth, hdf5::text_type(axes_width).get());
  at += axes_width;
  insert(file, type, "rank", at + offsetof(TensorNumbers, rank), H5T_STD_I64LE);
  insert(file, type, "shape", at + offsetof(TensorNumbers, shape), four.get());
  insert(file, type, "offset", at + offsetof(TensorNumbers, offset), H5T_STD_U64LE);
  insert(file, type, "bytes", at + offsetof(TensorNumbers, bytes), H5T_STD_U64LE);
  return type;
}

std::string join_axes(const std::vector<std::string>& axes) {
  return fmt::format("{}", fmt::join(axes, ","));
}

std::vector<std::string> split_axes(const std::string& text) {
  std::vector<std::string> axes;
  size_t at = 0;
  while (at < text.size()) {
    const size_t comma = std::min(text.find(',', at), text.size());
    axes.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return axes;
}

std::optional<DType> dtype_from_name(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return std::nullopt;
}

std::string take_text(const char*& at, size_t width) {
  std::string text(at, width);
  text.resize(text.find_last_not_of('\0') + 1);
  at += width;
  return text;
}

// Width of the string member `index` of the stored row type.
size_t member_width(const hdf5::File& file, hid_t type, unsigned index) {
  const Handle member =
      file.own(H5Tget_member_type(type, index), H5Tclose, kTensors, "has an unexpected row type");
  const size_t width = H5Tget_size(member.get());
  if (width == 0 || width > 4096) file.fail_at(kTensors, "has an unexpected row type");
  return width;
}

bool within(const std::vector<Extent>& extents, uint64_t begin, uint64_t bytes) {
  const auto after =
      std::upper_bound(extents.begin(), extents.end(), begin,
                       [](uint64_t value, const Extent& extent) { return value < extent.begin; });
  return after != extents.begin() && bytes <= (after - 1)->end - begin && begin < (after - 1)->end;
}

void read_tensors(const hdf5::File& file, const Seal& seal, CheckpointLayout& layout) {
  const hdf5::Dataset dataset = file.open_dataset(kTensors, -1);
  const Handle stored = file.own(H5Dget_type(dataset.id.get()), H5Tclose, kTensors, "has no type");
  if (H5Tget_class(stored.get()) != H5T_COMPOUND || H5Tget_nmembers(stored.get()) != 7) {
    file.fail_at(kTensors, "has an unexpected row type");
  }
  const size_t name_width = member_width(file, stored.get(), 0);
  const size_t axes_width = member_width(file, stored.get(), 2);
  const Handle type = tensor_row_type(file, name_width, axes_width);
  if (H5Tequal(stored.get(), type.get()) <= 0) file.fail_at(kTensors, "has an unexpected row type");
  if (dataset.dims.size() != 1) file.fail_at(kTensors, "is not a list");
  std::string rows(tensor_row_bytes(name_width, axes_width) * static_cast<size_t>(dataset.dims[0]),
                   '\0');
  if (!rows.empty()) file.read(dataset, kTensors, type.get(), rows.data());

  std::vector<Extent> places;
  const char* at = rows.data();
  for (int64_t i = 0; i < dataset.dims[0]; ++i) {
    TensorEntry entry;
    entry.path = take_text(at, name_width);
    const std::string dtype_text = take_text(at, kDtypeWidth);
    entry.axes = split_axes(take_text(at, axes_width));
    TensorNumbers numbers;
    std::memcpy(&numbers, at, sizeof numbers);
    at += sizeof numbers;
    const auto bad = [&](const char* what) {
      file.fail_at(kTensors, fmt::format("row {} ({}): {}", i, entry.path, what));
    };
    const std::optional<DType> dtype = dtype_from_name(dtype_text);
    if (!dtype) bad("unknown dtype");
    entry.dtype = *dtype;
    if (numbers.rank < 0 || numbers.rank > Shape::kMaxRank) bad("rank out of range");
    int64_t bytes = element_bytes(entry.dtype);
    for (int64_t d = 0; d < numbers.rank; ++d) {
      const int64_t size = numbers.shape[d];
      if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) bad("shape out of range");
      entry.shape.push_back(size);
    }
    for (int64_t d = numbers.rank; d < 4; ++d) {
      if (numbers.shape[d] != 1) bad("shape out of range");
    }
    if (static_cast<uint64_t>(bytes) != numbers.bytes) bad("bytes do not fit the shape");
    if (bytes > 0 && !within(seal.extents, numbers.offset, numbers.bytes)) {
      bad("lies outside the tensors' part of the file");
    }
    if (bytes > 0) places.push_back({numbers.offset, numbers.offset + numbers.bytes});
    layout.entries.push_back(std::move(entry));
    layout.offsets.push_back(numbers.offset);
  }
  std::vector<TensorEntry> sorted = layout.entries;
  try {
    canonicalize(sorted);
  } catch (const Error& error) {
    file.fail_at(kTensors, error.what());
  }
  if (sorted != layout.entries) file.fail_at(kTensors, "is not in canonical order");
  std::sort(places.begin(), places.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < places.size(); ++i) {
    if (places[i].begin < places[i - 1].end) file.fail_at(kTensors, "tensors overlap in the file");
  }
}

// Start and count of a tile as the table has them: rows by dimension 0, whole other dimensions.
TileRow tile_row(const CheckpointLayout& layout, const Tile& tile) {
  const auto e = static_cast<size_t>(tile.entry);
  const Shape& shape = layout.entries[e].shape;
  TileRow row{};
  row.tensor = tile.entry, row.index = tile.index;
  for (int d = 0; d < 4; ++d) row.count[d] = d < shape.rank() ? shape[d] : 1;
  row.start[0] = tile.begin, row.count[0] = tile.end - tile.begin;
  row.offset = layout.offsets[e] + static_cast<uint64_t>(tile.first_byte);
  row.bytes = static_cast<uint64_t>(tile.bytes);
  return row;
}

}  // namespace

CheckpointLayout plan_layout(std::vector<TensorEntry> entries) {
  CheckpointLayout layout;
  layout.entries = std::move(entries);
  layout.tiles = make_tiles(layout.entries);
  layout.first_tile.assign(layout.entries.size() + 1, static_cast<int64_t>(layout.tiles.size()));
  for (size_t t = layout.tiles.size(); t-- > 0;) {
    layout.first_tile[static_cast<size_t>(layout.tiles[t].entry)] = static_cast<int64_t>(t);
  }
  // A tensor without tiles begins where the next one does.
  for (size_t e = layout.entries.size(); e-- > 0;) {
    layout.first_tile[e] = std::min(layout.first_tile[e], layout.first_tile[e + 1]);
  }
  return layout;
}

void write_tensor_table(hdf5::File& file, const CheckpointLayout& layout) {
  size_t name_width = 1, axes_width = 1;
  for (const TensorEntry& entry : layout.entries) {
    name_width = std::max(name_width, entry.path.size());
    axes_width = std::max(axes_width, join_axes(entry.axes).size());
  }
  std::string rows;
  const auto append = [&](const std::string& text, size_t width) {
    rows += text + std::string(width - text.size(), '\0');
  };
  for (size_t e = 0; e < layout.entries.size(); ++e) {
    const TensorEntry& entry = layout.entries[e];
    append(entry.path, name_width);
    append(dtype_name(entry.dtype), kDtypeWidth);
    append(join_axes(entry.axes), axes_width);
    TensorNumbers numbers{};
    numbers.rank = entry.shape.rank();
    for (int d = 0; d < 4; ++d) numbers.shape[d] = d < entry.shape.rank() ? entry.shape[d] : 1;
    numbers.offset = layout.offsets[e];
    numbers.bytes = static_cast<uint64_t>(entry.bytes());
    rows.append(reinterpret_cast<const char*>(&numbers), sizeof numbers);
  }
  const Handle type = tensor_row_type(file, name_width, axes_width);
  const auto count = static_cast<int64_t>(layout.entries.size());
  file.create_dataset(kTensors, type.get(), {&count, 1}, {"tensor"});
  if (count > 0) file.write_dataset(kTensors, type.get(), rows.data());
}

void create_tile_table(hdf5::File& file, const CheckpointLayout& layout) {
  const auto count = static_cast<int64_t>(layout.tiles.size());
  file.create_dataset(kTiles, tile_row_type(file).get(), {&count, 1}, {"tile"});
}

void write_tile_table(hdf5::File& file, const CheckpointLayout& layout) {
  std::vector<TileRow> rows;
  for (size_t t = 0; t < layout.tiles.size(); ++t) {
    rows.push_back(tile_row(layout, layout.tiles[t]));
    rows.back().checksum = layout.checksums[t];
  }
  if (!rows.empty()) file.write_dataset(kTiles, tile_row_type(file).get(), rows.data());
}

CheckpointLayout read_layout(const hdf5::File& file, const Seal& seal) {
  CheckpointLayout read;
  read_tensors(file, seal, read);

  const Handle type = tile_row_type(file);
  const hdf5::Dataset dataset = file.open_dataset(kTiles, type.get());
  if (dataset.dims.size() != 1) file.fail_at(kTiles, "is not a list");
  std::vector<TileRow> rows(static_cast<size_t>(dataset.dims[0]));
  if (!rows.empty()) file.read(dataset, kTiles, type.get(), rows.data());

  // Tiles are taken as the table cuts them, so that a later release may cut them otherwise; but
  // each tensor must be covered row by row.
  CheckpointLayout layout = std::move(read);
  size_t t = 0;
  for (size_t e = 0; e < layout.entries.size(); ++e) {
    const TensorEntry& entry = layout.entries[e];
    layout.first_tile.push_back(static_cast<int64_t>(t));
    if (entry.bytes() == 0) continue;
    const int64_t dimension = entry.shape.rank() == 0 ? 1 : entry.shape[0];
    const int64_t row_bytes = entry.bytes() / dimension;
    for (int64_t begin = 0, index = 0; begin < dimension; ++index, ++t) {
      const int64_t end =
          t < rows.size() && rows[t].count[0] > 0 && rows[t].count[0] <= dimension - begin
              ? begin + rows[t].count[0]
              : begin;
      const Tile tile{static_cast<int64_t>(e),  index, begin, end, begin * row_bytes,
                      (end - begin) * row_bytes};
      TileRow expected = tile_row(layout, tile);
      if (end > begin) expected.checksum = rows[t].checksum;
      if (end == begin || std::memcmp(&expected, &rows[t], sizeof expected) != 0) {
        file.fail_at(kTiles,
                     fmt::format("row {}: does not continue the cover of {}", t, entry.path));
      }
      layout.tiles.push_back(tile);
      layout.checksums.push_back(rows[t].checksum);
      begin = end;
    }
  }
  layout.first_tile.push_back(static_cast<int64_t>(t));
  if (t != rows.size()) file.fail_at(kTiles, "has more rows than the tensors need");
  return layout;
}

}  // namespace sw
