// Runs a fuzz target over inputs that are kept: files, or all files of folders. Stands in for
// libFuzzer, which only clang brings, where the target is a test like any other.
//
//   replay_shard FOLDER|FILE...
#include <algorithm>
#include <filesystem>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> inputs;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      inputs.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      inputs.push_back(entry.path());
    }
  }
  std::sort(inputs.begin(), inputs.end());
  for (const auto& input : inputs) {
    std::fprintf(stderr, "%s\n", input.c_str());
    const std::string bytes = sw::read_file(input);
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("counted: %zu kept inputs read again\n", inputs.size());
  return inputs.empty() ? 1 : 0;
}
