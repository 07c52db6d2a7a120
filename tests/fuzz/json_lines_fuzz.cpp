// Text files: the first byte says how a document is told, the rest is the file, which may be
// compressed.
#include "libswitch/data/text_source.h"
#include "libswitch/data/utf8.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  if (size == 0) return 0;
  TextOptions options;
  options.format = data[0] == 'l'   ? TextFormat::lines
                   : data[0] == 'b' ? TextFormat::blank_lines
                                    : TextFormat::json_lines;
  options.max_document_bytes = int64_t{1} << 20;
  const MemoryFile file({reinterpret_cast<const char*>(data) + 1, size - 1});
  // Archives of `zstd --ultra -22` need a window of 128 MiB.
  constexpr int64_t kWindow = int64_t{128} << 20;
  const auto read = [&] {
    TextSource source({file.path()}, options);
    std::string text;
    // A small archive can hold gigabytes; reading on would show nothing more.
    while (source.bytes_read() < (int64_t{8} << 20) && source.next(text)) {
      if (find_invalid_utf8(text) >= 0) found("a document that is not UTF-8");
      if (static_cast<int64_t>(text.size()) > options.max_document_bytes) found("a long document");
    }
  };
  accepts(size, read, kReaderBytes + kWindow);
  return 0;
}
