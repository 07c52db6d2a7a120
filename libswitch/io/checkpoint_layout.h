// The tables /layout/tensors and /layout/tiles. Private to io/.
//
//   tensors  {name char[], dtype char[8], axes char[] (labels joined by commas), rank i64,
//            shape i64[4] (1 beyond the rank), offset u64, bytes u64}, in canonical order
//   tiles    {tensor i64, index i64, start i64[4], count i64[4], offset u64, bytes u64, xxh3_64
//   u64},
//            in canonical order
//
// Offsets count from the start of the file. A tensor without elements has offset 0 and no tile.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "libswitch/io/checkpoint_schema.h"
#include "libswitch/io/checkpoint_seal.h"
#include "libswitch/io/hdf5_file.h"

namespace sw {

struct CheckpointLayout {
  std::vector<TensorEntry> entries;  // canonical order
  std::vector<uint64_t> offsets;     // of each entry, from the start of the file
  std::vector<Tile> tiles;           // canonical order
  std::vector<int64_t> first_tile;   // of each entry, and one past the last: entries + 1 values
  std::vector<uint64_t> checksums;   // XXH3-64 of each tile
};

/// Tiles and their first index for `entries`; offsets and checksums are left empty.
CheckpointLayout plan_layout(std::vector<TensorEntry> entries);

/// Creates /layout/tiles with the right size, to be written when the checksums are known.
void create_tile_table(hdf5::File& file, const CheckpointLayout& layout);
void write_tensor_table(hdf5::File& file, const CheckpointLayout& layout);
void write_tile_table(hdf5::File& file, const CheckpointLayout& layout);

/// Reads both tables and checks them: names, sizes, order, that the tiles of each tensor cover it
/// exactly, and that every tensor lies within the extents that the seal leaves to tiles.
CheckpointLayout read_layout(const hdf5::File& file, const Seal& seal);

}  // namespace sw
