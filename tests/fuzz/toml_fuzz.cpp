// A configuration file as every tool reads it, through the registry of options: what is taken can
// be printed and read back to the same values.
#include "tests/fuzz/configuration.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sw;
  using namespace sw::fuzz;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Configuration read;
  if (!accepts(size, [&] { read.registry.apply_toml(text, "a.toml", Source::file); })) return 0;
  const std::string printed = read.registry.to_toml();
  Configuration again;
  again.registry.apply_toml(printed, "printed.toml", Source::file);
  if (again.registry.to_toml() != printed) found("printed configuration reads back otherwise");
  return 0;
}
