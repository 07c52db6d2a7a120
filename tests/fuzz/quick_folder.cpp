#include "tests/fuzz/fuzz_target.h"

namespace sw::fuzz {

namespace fs = std::filesystem;

const fs::path& quick_folder() {
  struct Folder {
    fs::path path;
    Folder() {
      const fs::path memory = "/dev/shm";
      const fs::path parent = fs::exists(memory) ? memory : fs::temp_directory_path();
      std::string name = (parent / "sw-fuzz-XXXXXX").string();
      if (::mkdtemp(name.data()) == nullptr) found(name + ": cannot be made");
      path = name;
    }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

}  // namespace sw::fuzz
