// Where the time of a step goes: named regions with wall time, calls, operations and bytes moved.
//
//   Profile profile;
//   {
//     const ProfileRecording recording(profile);  // regions of this thread count from here on
//     training_step(...);
//   }
//   for (const ProfileEntry& entry : profile.entries()) ...
//
// Without a recording a region costs one branch. Regions are opened by the thread that calls
// kernels; what runs in parallel lies inside of them. On a GPU, where kernels run after their call
// returned, times are those of the calls.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace sw {

struct ProfileEntry {
  std::string name;    // "ffn.wi forward"
  int64_t calls = 0;   // regions of this name
  double seconds = 0;  // wall time in them, without what regions inside of them took
  double flops = 0;    // a multiplication and an addition count as two
  double bytes = 0;    // read and written at least: each operand once
};

class Profile {
 public:
  /// What was recorded, by total over regions of one name, the longest first.
  std::vector<ProfileEntry> entries() const;
  /// Time in all regions.
  double seconds() const;
  void clear() { places_.clear(); }

 private:
  friend class ProfileRegion;
  // Names are literals: their addresses tell them apart faster than their letters.
  struct Place {
    const char* scope;
    const char* name;
    ProfileEntry entry;
  };
  ProfileEntry& entry(const char* scope, const char* name);

  std::vector<Place> places_;
};

/// While it lives, regions opened by this thread are added to `profile`. Recordings nest: the
/// innermost receives.
class ProfileRecording {
 public:
  explicit ProfileRecording(Profile& profile);
  ~ProfileRecording();
  ProfileRecording(const ProfileRecording&) = delete;
  ProfileRecording& operator=(const ProfileRecording&) = delete;

 private:
  Profile* before_;
};

namespace profile_detail {
extern thread_local constinit Profile* recording;
extern thread_local constinit const char* scope;
}  // namespace profile_detail

/// A scope to come back to: backward passes keep that of their forward pass.
struct NotedScope {
  const char* name;
};
constexpr NotedScope kNoScope{""};
/// The scope that regions opened now belong to.
inline NotedScope profile_scope() { return {profile_detail::scope}; }

/// Says which part of a model the ops called while it lives are: "ffn.wi". `name` must be a string
/// literal.
class ProfileScope {
 public:
  explicit ProfileScope(const char* name) : before_(profile_detail::scope) {
    profile_detail::scope = name;
  }
  ~ProfileScope() { profile_detail::scope = before_; }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  const char* before_;
};

/// One timed region. Its entry is named "SCOPE NAME", or "NAME" alone without a scope; `name` must
/// be a string literal.
class ProfileRegion {
 public:
  explicit ProfileRegion(const char* name, double flops = 0, double bytes = 0)
      : ProfileRegion(profile_scope(), name, flops, bytes) {}
  /// The same in a scope that was noted earlier.
  ProfileRegion(NotedScope scope, const char* name, double flops = 0, double bytes = 0) {
    if (profile_detail::recording != nullptr) open(scope.name, name, flops, bytes);
  }
  ~ProfileRegion() {
    if (profile_ != nullptr) close();
  }
  ProfileRegion(const ProfileRegion&) = delete;
  ProfileRegion& operator=(const ProfileRegion&) = delete;

  /// Adds to a region what is known only at its end.
  void add(double flops, double bytes) { flops_ += flops, bytes_ += bytes; }

 private:
  using Clock = std::chrono::steady_clock;
  void open(const char* scope, const char* name, double flops, double bytes);
  void close();

  Profile* profile_ = nullptr;
  const char* scope_ = nullptr;
  const char* name_ = nullptr;
  ProfileRegion* outer_ = nullptr;
  double flops_ = 0, bytes_ = 0, inner_seconds_ = 0;
  Clock::time_point start_;
};

}  // namespace sw
