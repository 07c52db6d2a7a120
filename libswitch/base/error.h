// One exception type for the whole library, with a kind that decides the exit code of a tool.
//
// A message reads "where: what, expected, got; what to do". It is thrown where the fact is known
// and caught once, in a tool's main.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sw {

enum class ErrorKind {
  usage,    // option, configuration, shape or argument that the caller chose            exit 2
  corrupt,  // input that is damaged or does not fit (wrong vocabulary, wrong layout)    exit 65
  missing,  // input that is not there                                                   exit 66
  device,   // device, launcher or processor feature unavailable                         exit 69
  cannot_create,  // output that cannot be created                                             exit
                  // 73
  io,        // read or write failed, disk full                                           exit 74
  stopped,   // stopped on request, checkpoint committed: requeue                         exit 75
  diverged,  // training diverged                                                         exit 80
  replicas,  // replicas disagree                                                         exit 81
  hang,      // a rank or a wait exceeded its limit                                       exit 82
  internal,  // our own mistake                                                           exit 70
};

/// The exit code of design table "Exit codes" for an error of this kind.
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// Throws Error of `kind` with a formatted message.
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// "; did you mean 'x'?" for the candidate nearest to `word` by edit distance, or "" when none is
/// near.
template <class Range>
std::string nearest_hint(const std::string& word, const Range& candidates);

/// Levenshtein distance.
int edit_distance(const std::string& a, const std::string& b);

template <class Range>
std::string nearest_hint(const std::string& word, const Range& candidates) {
  std::string best;
  int best_distance = static_cast<int>(word.size()) / 3 + 2;
  for (const auto& candidate : candidates) {
    const int distance = edit_distance(word, std::string(candidate));
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best.empty() ? std::string() : "; did you mean '" + best + "'?";
}

}  // namespace sw

/// Throws sw::Error(kind) with a formatted message when `cond` does not hold. The message is built
/// only then.
#define SW_CHECK(cond, kind, ...)                     \
  do {                                                \
    if (!(cond)) [[unlikely]]                         \
      ::sw::fail(::sw::ErrorKind::kind, __VA_ARGS__); \
  } while (false)
