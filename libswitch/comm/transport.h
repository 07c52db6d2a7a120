// Nonblocking messages between the ranks of one group: all that a backend must provide for
// MessageGroup to run every collective on it.
#pragma once

#include <cstdint>
#include <memory>

namespace sw {

/// A message under way. Its memory must not be touched before test() returned true. Destroying an
/// unfinished one abandons it, which only a rank about to leave may do.
class Message {
 public:
  virtual ~Message() = default;
  /// Makes progress without waiting; true when sent (the memory may be reused) or received.
  virtual bool test() = 0;
};

/// Ranks are those of the group. Messages with one tag between two ranks arrive in the order in
/// which they were sent; messages with different tags do not disturb each other. Sizes fit on both
/// sides; any size from 0 bytes up. Errors are thrown as kind device.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::unique_ptr<Message> send(int64_t to, int64_t tag, const void* data,
                                        int64_t bytes) = 0;
  virtual std::unique_ptr<Message> receive(int64_t from, int64_t tag, void* data,
                                           int64_t bytes) = 0;
};

}  // namespace sw
