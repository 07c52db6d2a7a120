// Damaged and foreign files: refused by name, or read right.
#include <gmock/gmock.h>
#include <hdf5.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fcntl.h>
#include <functional>
#include <optional>

#include "libswitch/io/checkpoint_seal.h"
#include "tests/io/checkpoint_samples.h"
#include "tests/support/allocation_peak.h"

namespace sw {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;

void write_whole(const std::filesystem::path& path, const std::string& content) {
  write_file_atomically(path, content);
}

// Opens and reads everything; the error, or none. Never takes more memory than 64 MiB and twice the
// file, and 1 MiB of buffers of its own.
std::optional<Error> read_everything(const std::filesystem::path& path) {
  const test::AllocationPeak peak;
  std::optional<Error> refused;
  try {
    const CheckpointReader reader(path);
    reader.verify_all();
  } catch (const Error& error) {
    refused = error;
  }
  std::error_code none;
  const auto bytes = std::filesystem::file_size(path, none);
  EXPECT_LE(peak.bytes(), (int64_t{65} << 20) + (none ? 0 : 2 * static_cast<int64_t>(bytes)));
  return refused;
}

// In memory, to spare the disk.
TEST(CheckpointDamage, EveryTruncationIsRefused) {
  const TemporaryFolder folder;
  const std::string content = read_file(test::save_sample(folder / "a.h5").path);
  const FileDescriptor memory(::memfd_create("checkpoint", 0));
  ASSERT_GE(memory.get(), 0);
  pwrite_all(memory.get(), content.data(), content.size(), 0, "memory");
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  const auto size = static_cast<off_t>(content.size());
  for (off_t bytes = size - 1; bytes >= 0; --bytes) {
    ASSERT_EQ(::ftruncate(memory.get(), bytes), 0);
    const std::optional<Error> error = read_everything(path);
    ASSERT_TRUE(error.has_value()) << bytes;
    ASSERT_EQ(error->kind(), ErrorKind::corrupt) << bytes << ": " << error->what();
    ASSERT_EQ(std::string_view(error->what()).substr(0, path.size()), path) << bytes;
  }
  std::printf("counted: every truncation of a checkpoint, %lld: refused\n",
              static_cast<long long>(size));
}

TEST(CheckpointDamage, AppendedBytesAreRefused) {
  const TemporaryFolder folder;
  const auto path = test::save_sample(folder / "a.h5").path;
  const std::string content = read_file(path);
  for (const size_t bytes : {1, 64, 4096}) {
    write_whole(path, content + std::string(bytes, '\0'));
    EXPECT_EQ(read_everything(path)->kind(), ErrorKind::corrupt);
    write_whole(path, content + content.substr(content.size() - bytes));
    EXPECT_EQ(read_everything(path)->kind(), ErrorKind::corrupt);
  }
}

// 10,000 bits at random, and bits of the superblock, of the seal and of the tensors. A
// flip that is not refused must have hit padding: all content and the digest are as before.
TEST(CheckpointDamage, EveryFlippedBitIsRefusedOrHarmless) {
  const TemporaryFolder folder;
  const CommittedCheckpoint done = test::save_sample(folder / "a.h5");
  std::string content = read_file(done.path);
  std::vector<std::pair<size_t, int>> flips;  // byte, bit
  for (size_t i = 0; i < 96; ++i) {
    flips.push_back({i, static_cast<int>(i % 8)});
    flips.push_back({content.size() - 1 - i, static_cast<int>(i % 8)});
  }
  std::vector<TensorEntry> entries;
  std::vector<uint64_t> offsets;
  {
    CheckpointWriter layout(folder / "b.h5", test::sample_entries(), test::sample_meta(),
                            test::sample_telemetry());
    entries = layout.entries();
    offsets = layout.offsets();
  }
  size_t in_tensors = 0;
  for (size_t e = 0; e < entries.size(); ++e) {
    for (int64_t i = 0; i < entries[e].bytes(); i += 3, ++in_tensors) {
      flips.push_back({offsets[e] + static_cast<uint64_t>(i), static_cast<int>(i % 8)});
    }
  }
  RngStream random(rng_key(3, RngPurpose::test));
  for (int i = 0; i < 10000; ++i) {
    flips.push_back({random.below(content.size()), static_cast<int>(random.below(8))});
  }

  const test::Tensors tensors = test::sample_tensors(entries);
  size_t named = 0, harmless = 0;
  const std::filesystem::path& path = done.path;
  const FileDescriptor fd(::open(path.c_str(), O_RDWR));
  ASSERT_GE(fd.get(), 0);
  for (const auto& [at, bit] : flips) {
    const char good = content[at];
    const char bad = static_cast<char>(good ^ (1 << bit));
    ASSERT_EQ(::pwrite(fd.get(), &bad, 1, static_cast<off_t>(at)), 1);
    const std::optional<Error> error = read_everything(path);
    if (error) {
      ASSERT_EQ(error->kind(), ErrorKind::corrupt) << at << ": " << error->what();
      ASSERT_THAT(error->what(), HasSubstr(path.string()));
      named += std::string_view(error->what()).find(", tile ") != std::string_view::npos;
    } else {
      ++harmless;
      const CheckpointReader reader(path);
      ASSERT_EQ(reader.digest(), done.digest) << at;
      for (const auto& [name, tensor] : tensors) {
        ASSERT_TRUE(test::same_bytes(reader.read(name), tensor)) << at << " " << name;
      }
      ASSERT_EQ(reader.read_telemetry(), test::sample_telemetry()) << at;
      ASSERT_EQ(reader.meta().config_toml, test::sample_meta().config_toml) << at;
    }
    ASSERT_EQ(::pwrite(fd.get(), &good, 1, static_cast<off_t>(at)), 1);
  }
  // Each flip within a tensor was met by its tile, none elsewhere.
  EXPECT_GE(named, in_tensors);
  EXPECT_LT(harmless, flips.size() / 4);
  EXPECT_FALSE(read_everything(path).has_value());
  std::printf("counted: %zu flipped bits of a checkpoint: %zu refused, %zu in padding\n",
              flips.size(), flips.size() - harmless, harmless);
}

TEST(CheckpointDamage, ADamagedTensorIsNamedAndTheOthersAreReadable) {
  const TemporaryFolder folder;
  const auto path = test::save_sample(folder / "a.h5").path;
  uint64_t offset = 0;
  {
    CheckpointWriter layout(folder / "b.h5", test::sample_entries(), test::sample_meta(),
                            test::sample_telemetry());
    for (size_t e = 0; e < layout.entries().size(); ++e) {
      if (layout.entries()[e].path == "/model/encoder/block_001/moe/wi") {
        offset = layout.offsets()[e];
      }
    }
  }
  std::string content = read_file(path);
  content[offset + 2 * 6 * 5 + 7] ^= 16;  // in the second of three experts
  write_whole(path, content);
  const CheckpointReader reader(path);
  const std::string name = "/model/encoder/block_001/moe/wi";
  const Error error = error_of([&] { reader.read(name); });
  EXPECT_EQ(error.kind(), ErrorKind::corrupt);
  EXPECT_THAT(error.what(), HasSubstr(path.string() + ": " + name + ", tile 1"));
  const Tensor wi = test::sample_tensors(test::sample_entries()).at(name);
  EXPECT_TRUE(test::same_bytes(reader.read_rows(name, 2, 3), wi.slice(2, 3)));
  EXPECT_EQ(error_of([&] { reader.read_rows(name, 0, 2); }).kind(), ErrorKind::corrupt);
}

TEST(CheckpointDamage, OtherThingsThanCheckpointsAreRefused) {
  const TemporaryFolder folder;
  write_whole(folder / "empty", "");
  write_whole(folder / "text", "To be, or not to be, that is the question.\n");
  write_whole(folder / "zeros", std::string(100000, '\0'));
  for (const char* name : {"empty", "text", "zeros"}) {
    EXPECT_EQ(read_everything(folder / name)->kind(), ErrorKind::corrupt) << name;
  }
  EXPECT_EQ(read_everything(folder / "none")->kind(), ErrorKind::missing);
  EXPECT_EQ(read_everything(folder.path())->kind(), ErrorKind::missing);
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(read_everything(folder / "pipe")->what(), HasSubstr("standard input"));
}

// A seal proves integrity, not good will: files whose structure lies are refused behind it.
class ResealedCheckpoint : public testing::Test {
 protected:
  // Changes the HDF5 image of a good checkpoint by HDF5's own means and seals it again.
  std::filesystem::path changed(const std::function<void(hid_t file)>& change) {
    const auto path = test::save_sample(folder_ / "a.h5").path;
    Seal seal;
    {
      const FileDescriptor fd = open_for_read(path);
      seal = check_seal(fd.get(), "good");
    }
    EXPECT_EQ(::truncate(path.c_str(), static_cast<off_t>(seal.image_bytes)), 0);
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, access);
    EXPECT_GE(file, 0);
    change(file);
    EXPECT_GE(H5Fclose(file), 0);
    H5Pclose(access);
    const FileDescriptor fd(::open(path.c_str(), O_RDWR));
    seal.image_bytes = std::filesystem::file_size(path);
    const std::string bytes = make_seal(fd.get(), seal, "changed");
    pwrite_all(fd.get(), bytes.data(), bytes.size(), seal.image_bytes, "changed");
    return path;
  }
  void expect_refused(const std::string& reason, const std::function<void(hid_t file)>& change) {
    const std::optional<Error> error = read_everything(changed(change));
    ASSERT_TRUE(error.has_value()) << reason;
    EXPECT_EQ(error->kind(), ErrorKind::corrupt);
    EXPECT_THAT(error->what(), HasSubstr(reason));
  }
  static void put_dataset(hid_t file, const char* path, hid_t creation, hid_t type, int rank,
                          const hsize_t* dims) {
    const hid_t space = H5Screate_simple(rank, dims, nullptr);
    const hid_t dataset = H5Dcreate2(file, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    EXPECT_GE(dataset, 0);
    H5Dclose(dataset);
    H5Sclose(space);
  }
  static constexpr const char* kNorm = "/model/encoder/final_norm";
  TemporaryFolder folder_;
};

TEST_F(ResealedCheckpoint, IsReadWhenNothingChanged) {
  EXPECT_FALSE(read_everything(changed([](hid_t) {})).has_value());
}

TEST_F(ResealedCheckpoint, IsRefusedWithSoftAndExternalLinks) {
  expect_refused("hard link", [](hid_t file) {
    H5Ldelete(file, kNorm, H5P_DEFAULT);
    H5Lcreate_soft("/model/shared/embedding", file, kNorm, H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused("hard link", [](hid_t file) {
    H5Ldelete(file, "/telemetry/train", H5P_DEFAULT);
    H5Lcreate_external("/etc/passwd", "/x", file, "/telemetry/train", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_refused("hard link", [](hid_t file) {
    H5Lcreate_soft("/nowhere", file, "/anywhere", H5P_DEFAULT, H5P_DEFAULT);
  });
}

TEST_F(ResealedCheckpoint, IsRefusedWithFiltersChunksAndExternalFiles) {
  const hsize_t six = 6;
  const hid_t chunked = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(chunked, 1, &six);
  expect_refused("is not contiguous", [&](hid_t file) {
    H5Ldelete(file, kNorm, H5P_DEFAULT);
    put_dataset(file, kNorm, chunked, H5T_IEEE_F32LE, 1, &six);
  });
  H5Pset_deflate(chunked, 1);
  expect_refused("is not contiguous", [&](hid_t file) {
    put_dataset(file, "/extra", chunked, H5T_IEEE_F32LE, 1, &six);
  });
  H5Pclose(chunked);
  const hid_t external = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(external, "/etc/passwd", 0, 24);
  expect_refused("external", [&](hid_t file) {
    put_dataset(file, "/extra", external, H5T_IEEE_F32LE, 1, &six);
  });
  H5Pclose(external);
}

TEST_F(ResealedCheckpoint, IsRefusedWithOtherTypesShapesAndPlaces) {
  const hid_t early = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(early, H5D_ALLOC_TIME_EARLY);
  const hsize_t six = 6, seven = 7;
  const auto replaced = [&](hid_t type, const hsize_t* size) {
    return [=](hid_t file) {
      H5Ldelete(file, kNorm, H5P_DEFAULT);
      put_dataset(file, kNorm, early, type, 1, size);
    };
  };
  expect_refused("unexpected type", replaced(H5T_IEEE_F64LE, &six));
  expect_refused("expected shape [6], got [7]", replaced(H5T_IEEE_F32LE, &seven));
  const hid_t late = H5Pcreate(H5P_DATASET_CREATE);
  expect_refused("lies outside the file", [&](hid_t file) {
    H5Ldelete(file, kNorm, H5P_DEFAULT);
    put_dataset(file, kNorm, late, H5T_IEEE_F32LE, 1, &six);
  });
  expect_refused("is not in /layout/tensors", [&](hid_t file) {
    put_dataset(file, "/model/extra", early, H5T_IEEE_F32LE, 1, &six);
  });
  expect_refused("is missing", [](hid_t file) { H5Ldelete(file, kNorm, H5P_DEFAULT); });
  H5Pclose(early);
  H5Pclose(late);
}

TEST_F(ResealedCheckpoint, IsRefusedWithoutItsTablesOrOfAnotherVersion) {
  for (const char* path : {"/layout/tiles", "/layout/tensors", "/meta/config.toml", "/train/seed",
                           "/telemetry/router/tokens", "/meta", "/train/data"}) {
    expect_refused(std::string(path), [&](hid_t file) { H5Ldelete(file, path, H5P_DEFAULT); });
  }
  for (const char* name : {"format", "step", "digest", "format_version"}) {
    expect_refused(name, [&](hid_t file) { H5Adelete(file, name); });
  }
  expect_refused("this release reads version 1.x, got 2.0", [](hid_t file) {
    const hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
    const int64_t version[2] = {2, 0};
    H5Awrite(attribute, H5T_STD_I64LE, version);
    H5Aclose(attribute);
  });
  // A later minor version of this major may add what it likes outside the tensors.
  EXPECT_FALSE(read_everything(changed([](hid_t file) {
                 const hid_t attribute = H5Aopen(file, "format_version", H5P_DEFAULT);
                 const int64_t version[2] = {1, 9};
                 H5Awrite(attribute, H5T_STD_I64LE, version);
                 H5Aclose(attribute);
                 H5Gclose(H5Gcreate2(file, "/later", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
               })).has_value());
}

// Any number of the tables replaced by an extreme value: refused, without a crash or a huge
// allocation.
TEST_F(ResealedCheckpoint, IsRefusedWithLyingTables) {
  for (const char* table : {"/layout/tiles", "/layout/tensors"}) {
    // Behind the texts of a row of /layout/tensors are 7 words; /layout/tiles is all words.
    uint64_t offset = 0, rows = 0, row_bytes = 0, words = 0;
    changed([&](hid_t file) {
      const hid_t dataset = H5Dopen2(file, table, H5P_DEFAULT);
      offset = H5Dget_offset(dataset);
      const hid_t space = H5Dget_space(dataset);
      rows = static_cast<uint64_t>(H5Sget_simple_extent_npoints(space));
      row_bytes = H5Dget_storage_size(dataset) / rows;
      words = std::string_view(table) == "/layout/tensors" ? 7 : 13;
      H5Sclose(space);
      H5Dclose(dataset);
    });
    const auto path = folder_ / "a.h5";
    const std::string good = read_file(path);
    Seal seal;
    {
      const FileDescriptor fd = open_for_read(path);
      seal = check_seal(fd.get(), "good");
    }
    RngStream random(rng_key(5, RngPurpose::test));
    for (int i = 0; i < 300; ++i) {
      const uint64_t values[] = {0, 1, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{1} << 40};
      const uint64_t value = values[random.below(5)];
      const uint64_t at =
          offset + (random.below(rows) + 1) * row_bytes - 8 * (1 + random.below(words));
      std::string bad = good;
      std::memcpy(bad.data() + at, &value, 8);
      if (bad == good) continue;
      const FileDescriptor fd(::open(path.c_str(), O_RDWR));
      pwrite_all(fd.get(), bad.data(), bad.size(), 0, "lie");
      const std::string sealed = make_seal(fd.get(), seal, "lie");
      pwrite_all(fd.get(), sealed.data(), sealed.size(), seal.image_bytes, "lie");
      const std::optional<Error> error = read_everything(path);
      ASSERT_TRUE(error.has_value()) << table << " " << at - offset << " " << value;
      ASSERT_EQ(error->kind(), ErrorKind::corrupt) << error->what();
    }
  }
}

}  // namespace
}  // namespace sw
