// Safetensors files ('s' and the file) and indexes of them ('i' and the JSON).
#include "libswitch/io/safetensors.h"

#include "libswitch/io/name_map.h"
#include "libswitch/io/weights_folder.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using namespace sw;

void read_all(const TensorArchive& archive) {
  std::string previous, bytes;
  for (size_t i = 0; i < archive.tensors().size(); ++i) {
    const ArchiveTensor& tensor = archive.tensors()[i];
    if (i > 0 && tensor.name <= previous) fuzz::found("tensors that are not sorted");
    previous = tensor.name;
    if (const auto ours = our_tensor(tensor.name)) parameter_axes(ours->name);
    bytes.resize(static_cast<size_t>(tensor.bytes()));
    archive.read_rows(i, 0, tensor.rows(), bytes.data());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw::fuzz;
  if (size == 0) return 0;
  const MemoryFile file({reinterpret_cast<const char*>(data) + 1, size - 1});
  if (data[0] == 'i') {
    accepts(size, [&] {
      for (const auto& [tensor, name] : sw::read_weights_index(file.path())) {
        if (name.find('/') != std::string::npos || name[0] == '.') found("a way out: " + name);
      }
    });
  } else {
    accepts(size, [&] { read_all(*sw::open_safetensors(file.path())); });
  }
  return 0;
}
