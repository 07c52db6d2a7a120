// Local work that may fail on some ranks only: either all go on, or all fail with the same error.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "libswitch/base/error.h"
#include "libswitch/comm/group.h"

namespace sw {

/// What an exception said.
struct Failure {
  ErrorKind kind = ErrorKind::internal;
  std::string message;
};

/// Runs fn; what it threw, if it did.
std::optional<Failure> failure_of(const std::function<void()>& fn);

/// All ranks of the group call it with their own failures. Throws on all of them when there is any:
/// the failure of the lowest such rank, in a group of several with that rank and its machine.
void agree(Group& group, const std::optional<Failure>& own);

/// Runs fn, which must use no collective, on every rank; throws on all when it throws on any.
void agree_on(Group& group, const std::function<void()>& fn);

}  // namespace sw
