#include "libswitch/base/stack_trace.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>

namespace sw {
namespace {

constexpr int kFrames = 100;
constexpr int kHandlerFrames = 2;  // the handler and the kernel's way into it

// Written by the handler. `answered` follows the frames.
void* frames[kFrames];
std::atomic<int> frame_count{0};
std::atomic<bool> answered{false};

void handle(int) {
  const int saved = errno;
  frame_count = backtrace(frames, kFrames);
  answered.store(true, std::memory_order_release);
  errno = saved;
}

int stack_signal() { return SIGRTMIN + 3; }

void install_handler() {
  // The first call loads a library, which a handler must not do.
  void* one[1];
  backtrace(one, 1);
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(stack_signal(), &action, nullptr);
}

std::string line(int number, void* address) {
  Dl_info info{};
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) {
    return fmt::format("#{} {}\n", number, address);
  }
  const char* file = std::strrchr(info.dli_fname, '/');
  file = file == nullptr ? info.dli_fname : file + 1;
  const auto distance = [&](const void* base) {
    return static_cast<const char*>(address) - static_cast<const char*>(base);
  };
  if (info.dli_sname == nullptr) {  // a local function: for addr2line
    return fmt::format("#{} {} {}+{:#x}\n", number, address, file, distance(info.dli_fbase));
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
  return fmt::format("#{} {} {}+{:#x} ({})\n", number, address,
                     status == 0 ? name.get() : info.dli_sname, distance(info.dli_saddr), file);
}

}  // namespace

std::string stack_of(pthread_t thread, double seconds) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  install_handler();
  answered = false;
  if (pthread_kill(thread, stack_signal()) != 0) return "(the thread has ended)\n";
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!answered.load(std::memory_order_acquire)) {
    if (std::chrono::steady_clock::now() > end) {
      return fmt::format("(the thread did not answer within {} s)\n", seconds);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::string text;
  for (int i = kHandlerFrames; i < frame_count; ++i) text += line(i - kHandlerFrames, frames[i]);
  return text;
}

}  // namespace sw
