#include "libswitch/comm/agree.h"

#include "libswitch/comm/local/single.h"

namespace sw {

std::optional<Failure> failure_of(const std::function<void()>& fn) {
  try {
    fn();
    return std::nullopt;
  } catch (const Error& error) {
    return Failure{error.kind(), error.what()};
  } catch (const std::exception& error) {
    return Failure{ErrorKind::internal, error.what()};
  }
}

void agree(Group& group, const std::optional<Failure>& own) {
  if (group.size() == 1) {
    if (own) throw Error(own->kind, own->message);
    return;
  }
  // The kind, then the words; nothing from a rank that is well.
  std::string bytes;
  if (own) {
    bytes = static_cast<char>(own->kind);
    bytes += fmt::format("rank {} ({}): {}", group.world_ranks()[static_cast<size_t>(group.rank())],
                         host_name(), own->message);
  }
  for (const std::string& theirs : group.all_gather_bytes(bytes)) {
    if (!theirs.empty()) throw Error(static_cast<ErrorKind>(theirs[0]), theirs.substr(1));
  }
}

void agree_on(Group& group, const std::function<void()>& fn) { agree(group, failure_of(fn)); }

}  // namespace sw
