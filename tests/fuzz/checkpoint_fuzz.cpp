// Edits of a good checkpoint, then everything read. An input is a list of edits of 12 bytes each:
//   u8 region   whose content, of the datasets
//   u8 change   0 a byte, 1 eight bytes at a multiple of eight, 2 one bit, 3 four bytes
//   u16 place   in the region, modulo its size
//   u64 value
// A trailing odd byte leaves the seal as it was; otherwise the file is sealed again, so that what
// lies behind the seal is reached. HDF5's own structures are left alone: its parser is not safe
// against a file whose seal was forged (README.md, "When things go wrong"), and its heaps, which
// hold links and texts, have no checksum of its own.
#include <hdf5.h>

#include <algorithm>
#include <cstring>

#include "libswitch/io/checkpoint_seal.h"
#include "tests/fuzz/configuration.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/io/checkpoint_samples.h"

namespace sw::fuzz {
namespace {

struct Edit {
  uint8_t region, change;
  uint16_t place;
  uint8_t value[8];
};
static_assert(sizeof(Edit) == 12);

herr_t add_region(hid_t group, const char* name, const H5L_info_t*, void* out) {
  const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  if (H5Iget_type(object) == H5I_DATASET && H5Dget_storage_size(object) > 0) {
    const uint64_t begin = H5Dget_offset(object);
    static_cast<std::vector<Extent>*>(out)->push_back({begin, begin + H5Dget_storage_size(object)});
  }
  H5Oclose(object);
  return 0;
}

// The good file, its seal and the places that can be changed.
struct Sample {
  std::string bytes;
  Seal seal;
  std::vector<Extent> regions;  // contents of datasets, in order of their paths
  std::filesystem::path path = quick_folder() / "a.h5";
  FileDescriptor file;

  Sample() {
    test::save_sample(path);
    bytes = read_file(path);
    seal = check_seal(open_for_read(path).get(), "sample");
    const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    H5Lvisit(id, H5_INDEX_NAME, H5_ITER_INC, add_region, &regions);
    H5Fclose(id);
    file = FileDescriptor(::open(path.c_str(), O_RDWR));
    if (!accepts(bytes.size(), [&] { CheckpointReader(path).verify_all(); })) {
      found("the good checkpoint cannot be read");
    }
  }

  // Where an edit begins, and how many bytes of its region follow.
  Extent target(const Edit& edit) const {
    const Extent region = regions[edit.region % regions.size()];
    uint64_t place = edit.place;
    if (edit.change % 4 == 1) place *= 8;
    return {region.begin + place % (region.end - region.begin), region.end};
  }
};

void read_everything(const std::string& path) {
  const CheckpointReader reader(path);
  reader.verify_all();
  reader.read_telemetry();
  for (const TensorEntry& entry : reader.entries()) reader.read(entry.path);
  Configuration configuration;
  configuration.registry.apply_toml(reader.meta().config_toml, "config.toml", Source::file,
                                    UnknownKeys::ignore);
}

}  // namespace
}  // namespace sw::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  static const Sample sample;
  std::string changed = sample.bytes;
  std::vector<Extent> touched;
  for (size_t at = 0; at + sizeof(Edit) <= size; at += sizeof(Edit)) {
    Edit edit;
    std::memcpy(&edit, data + at, sizeof edit);
    const Extent target = sample.target(edit);
    const uint64_t widths[] = {1, 8, 1, 4};
    const uint64_t bytes = std::min(widths[edit.change % 4], target.end - target.begin);
    if (edit.change % 4 == 2) {
      changed[target.begin] = static_cast<char>(changed[target.begin] ^ (1 << edit.value[0] % 8));
    } else {
      std::memcpy(changed.data() + target.begin, edit.value, bytes);
    }
    touched.push_back({target.begin, target.begin + bytes});
  }
  const int fd = sample.file.get();
  for (const Extent& extent : touched) {
    pwrite_all(fd, changed.data() + extent.begin, extent.end - extent.begin, extent.begin, "input");
  }
  const bool sealed = size % 2 == 0;
  if (sealed) {
    const std::string seal = make_seal(fd, sample.seal, "input");
    pwrite_all(fd, seal.data(), seal.size(), sample.seal.image_bytes, "input");
  }
  accepts(sample.bytes.size(), [&] { read_everything(sample.path); });
  for (const Extent& extent : touched) {
    pwrite_all(fd, sample.bytes.data() + extent.begin, extent.end - extent.begin, extent.begin,
               "input");
  }
  const uint64_t image = sample.seal.image_bytes;
  pwrite_all(fd, sample.bytes.data() + image, sample.bytes.size() - image, image, "input");
  return 0;
}
