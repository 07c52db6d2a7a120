// Says which processor is needed before any code that needs it runs.
//
// The entry in .preinit_array runs ahead of the constructors of every shared library; this file
// alone is compiled for the oldest x86-64 and calls nothing but the system.
#include <unistd.h>

#include <cstring>

namespace {

const char* missing_level() {
  __builtin_cpu_init();
  constexpr const char* kArch = SW_BUILD_ARCH;
  // By features that each level brought: not every compiler knows the levels by name.
  const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (std::strcmp(kArch, "x86-64-v2") == 0 && !v2) return kArch;
  if (std::strcmp(kArch, "x86-64-v3") == 0 && !(v2 && v3)) return kArch;
  if (std::strcmp(kArch, "x86-64-v4") == 0 && !(v2 && v3 && v4)) return kArch;
  return nullptr;
}

void say(const char* text) {
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;  // there is no one to tell
}

void check_processor(int argc, char** argv, char**) {
  const char* level = missing_level();
  if (level == nullptr) return;
  const char* name = argc > 0 ? argv[0] : "sw";
  if (const char* slash = std::strrchr(name, '/')) name = slash + 1;
  say(name);
  say(": error: this processor lacks ");
  say(level);
  say(" (for v3: AVX2, FMA, BMI2), which this build needs; build with -DSW_ARCH=x86-64\n");
  ::_exit(69);
}

[[gnu::section(".preinit_array"), gnu::used]] void (*const entry)(int, char**,
                                                                  char**) = check_processor;

}  // namespace
