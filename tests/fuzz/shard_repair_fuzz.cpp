// Repair of a damaged shard: what it writes is a whole shard, and it keeps the old file.
#include "libswitch/data/shard_repair.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace fs = std::filesystem;
  using namespace sw;
  using namespace sw::fuzz;
  const fs::path file = quick_folder() / "a.swt";
  const fs::path kept = quick_folder() / "a.swt.damaged";
  fs::remove(kept);
  {
    const FileDescriptor fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    write_all(fd.get(), data, size, file);
  }
  RepairReport report;
  if (!accepts(size, [&] { report = repair_shard(file); })) {
    if (read_file(file).compare(0, std::string::npos, reinterpret_cast<const char*>(data), size)) {
      found("a refused repair changed the file");
    }
    return 0;
  }
  if (report.changed) {
    if (read_file(kept) != std::string_view(reinterpret_cast<const char*>(data), size)) {
      found("the old file was not kept");
    }
    if (verify_shard(file).tokens != report.kept_tokens) found("repair kept another number");
  }
  if (repair_shard(file).changed) found("a second repair changes the file again");
  return 0;
}
