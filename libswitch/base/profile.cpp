#include "libswitch/base/profile.h"

#include <algorithm>

namespace sw {

namespace profile_detail {
thread_local constinit Profile* recording = nullptr;
thread_local constinit const char* scope = "";
}  // namespace profile_detail

namespace {
thread_local constinit ProfileRegion* innermost = nullptr;
}

std::vector<ProfileEntry> Profile::entries() const {
  std::vector<ProfileEntry> sums;
  for (const Place& place : places_) {
    // One literal may have several addresses, one in each shared object or file.
    const auto same = std::find_if(sums.begin(), sums.end(), [&](const ProfileEntry& entry) {
      return entry.name == place.entry.name;
    });
    if (same == sums.end()) {
      sums.push_back(place.entry);
      continue;
    }
    same->calls += place.entry.calls;
    same->seconds += place.entry.seconds;
    same->flops += place.entry.flops;
    same->bytes += place.entry.bytes;
  }
  std::stable_sort(sums.begin(), sums.end(), [](const ProfileEntry& a, const ProfileEntry& b) {
    return a.seconds > b.seconds;
  });
  return sums;
}

double Profile::seconds() const {
  double sum = 0;
  for (const Place& place : places_) sum += place.entry.seconds;
  return sum;
}

ProfileEntry& Profile::entry(const char* scope, const char* name) {
  for (Place& place : places_) {
    if (place.scope == scope && place.name == name) return place.entry;
  }
  Place place{scope, name, {}};
  place.entry.name = *scope == '\0' ? std::string(name) : std::string(scope) + ' ' + name;
  places_.push_back(std::move(place));
  return places_.back().entry;
}

ProfileRecording::ProfileRecording(Profile& profile) : before_(profile_detail::recording) {
  profile_detail::recording = &profile;
}

ProfileRecording::~ProfileRecording() { profile_detail::recording = before_; }

void ProfileRegion::open(const char* scope, const char* name, double flops, double bytes) {
  profile_ = profile_detail::recording;
  scope_ = scope, name_ = name, flops_ = flops, bytes_ = bytes;
  outer_ = innermost;
  innermost = this;
  start_ = Clock::now();
}

void ProfileRegion::close() {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  innermost = outer_;
  if (outer_ != nullptr) outer_->inner_seconds_ += seconds;
  ProfileEntry& entry = profile_->entry(scope_, name_);
  ++entry.calls;
  entry.seconds += seconds - inner_seconds_;
  entry.flops += flops_;
  entry.bytes += bytes_;
}

}  // namespace sw
