// PyTorch files ('z' and the file), and the pickles inside them ('p' and the pickle).
#include "libswitch/io/torch_file.h"

#include "libswitch/io/state_dict_pickle.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace sw;

void read_file_in_halves(const std::string& path) {
  const auto archive = open_torch_file(path);
  std::string bytes;
  for (size_t i = 0; i < archive->tensors().size(); ++i) {
    const ArchiveTensor& tensor = archive->tensors()[i];
    bytes.resize(static_cast<size_t>(tensor.bytes()));
    const int64_t rows = tensor.rows(), half = rows / 2;
    archive->read_rows(i, 0, half, bytes.data());
    archive->read_rows(i, half, rows, bytes.data());
  }
}

void run_pickle(std::string_view pickle) {
  for (const PickledTensor& tensor : read_state_dict_pickle(pickle, "pickle")) {
    if (checked_bytes(tensor.shape, tensor.type) < 0) fuzz::found("a tensor without a size");
    if (tensor.shape.elements() > tensor.storage_elements) fuzz::found("a tensor out of nothing");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw::fuzz;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'p') {
    accepts(size, [&] { run_pickle(rest); });
  } else {
    const MemoryFile file(rest);
    accepts(size, [&] { read_file_in_halves(file.path()); });
  }
  return 0;
}
