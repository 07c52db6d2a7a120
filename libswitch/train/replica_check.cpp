#include "libswitch/train/replica_check.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/base/hash.h"
#include "libswitch/base/parallel.h"
#include "libswitch/base/profile.h"

namespace sw {
namespace {

// A group whose ranks hold the same parts of some of the parameters.
struct Copies {
  Group* group;
  std::vector<size_t> parameters;  // indices
};

std::vector<Copies> copies_of(const Model& model) {
  const Mesh& mesh = model.mesh();
  Copies dense{&mesh.data(), {}}, expert{&mesh.replica(), {}}, uncut{&mesh.model(), {}};
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    const Placement& placement = model.parameters()[i]->placement();
    (placement.expert_dimension >= 0 ? expert : dense).parameters.push_back(i);
    if (placement.model_dimension < 0) uncut.parameters.push_back(i);
  }
  return {dense, expert, uncut};
}

std::vector<int64_t> checksums(const Model& model) {
  const auto& parameters = model.parameters();
  std::vector<int64_t> sums(parameters.size());
  parallel_for(std::ssize(parameters), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Tensor& weight = parameters[i]->master();
      sums[i] = static_cast<int64_t>(xxh3_64(weight.raw(), static_cast<size_t>(weight.bytes())));
    }
  });
  return sums;
}

std::vector<int64_t> pick(const std::vector<int64_t>& sums, const std::vector<size_t>& indices) {
  std::vector<int64_t> picked;
  for (const size_t i : indices) picked.push_back(sums[i]);
  return picked;
}

// One number for all of them; the same on all members of a healthy group.
bool agree(const Copies& copies, const std::vector<int64_t>& sums) {
  const std::vector<int64_t> own = pick(sums, copies.parameters);
  const int64_t joined = static_cast<int64_t>(xxh3_64(own.data(), own.size() * sizeof(int64_t)));
  const std::vector<int64_t> all = copies.group->all_gather_values(std::vector<int64_t>{joined});
  return std::all_of(all.begin(), all.end(), [&](int64_t other) { return other == joined; });
}

std::string named(const std::vector<int64_t>& ranks, const std::vector<std::string>& hosts) {
  std::string text;
  for (const int64_t rank : ranks) {
    text += fmt::format("{}rank {} ({})", text.empty() ? "" : ", ", rank,
                        hosts[static_cast<size_t>(rank)]);
  }
  return text;
}

// How the members' copies of one parameter differ; empty when they do not.
std::string difference(const std::string& name, const std::vector<int64_t>& sums,
                       const std::vector<int64_t>& world_ranks,
                       const std::vector<std::string>& hosts) {
  std::map<int64_t, std::vector<int64_t>> holders;
  for (size_t r = 0; r < sums.size(); ++r) holders[sums[r]].push_back(world_ranks[r]);
  if (holders.size() == 1) return "";
  const auto most = std::max_element(
      holders.begin(), holders.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  if (2 * most->second.size() <= sums.size()) {
    return fmt::format("{} differs between {}, without a majority", name,
                       named(world_ranks, hosts));
  }
  std::vector<int64_t> odd;
  for (const auto& [sum, ranks] : holders) {
    if (sum != most->first) odd.insert(odd.end(), ranks.begin(), ranks.end());
  }
  std::sort(odd.begin(), odd.end());
  return fmt::format("{} of {} differs from that of {} other ranks", name, named(odd, hosts),
                     most->second.size());
}

}  // namespace

void check_replicas(const Model& model, int64_t step, const std::string& host) {
  Group& world = model.mesh().world();
  if (world.size() == 1) return;
  const ProfileRegion region("replica check");
  const std::vector<int64_t> sums = checksums(model);
  const std::vector<Copies> all_copies = copies_of(model);
  bool same = true;
  for (const Copies& copies : all_copies) same = agree(copies, sums) && same;
  if (world.all_reduce_value(same ? 1 : 0, ReduceOp::min) != 0) return;

  const std::vector<std::string> hosts = world.all_gather_bytes(host);
  std::string own;
  for (const Copies& copies : all_copies) {
    const std::vector<int64_t> theirs =
        copies.group->all_gather_values(pick(sums, copies.parameters));
    const size_t count = copies.parameters.size();
    for (size_t p = 0; p < count; ++p) {
      std::vector<int64_t> of_one;
      for (size_t r = 0; r < static_cast<size_t>(copies.group->size()); ++r) {
        of_one.push_back(theirs[r * count + p]);
      }
      const std::string text = difference(model.parameters()[copies.parameters[p]]->name(), of_one,
                                          copies.group->world_ranks(), hosts);
      if (!text.empty()) own += text + "\n";
    }
  }
  // Every member of a group found the same; groups found different things.
  std::set<std::string> found;
  for (const std::string& texts : world.all_gather_bytes(own)) {
    for (size_t at = 0, end; (end = texts.find('\n', at)) != std::string::npos; at = end + 1) {
      found.insert(texts.substr(at, end - at));
    }
  }
  constexpr size_t kShown = 4;
  std::string text;
  size_t shown = 0;
  for (const std::string& line : found) {
    if (++shown <= kShown) text += (text.empty() ? "" : "; ") + line;
  }
  if (found.size() > kShown) text += fmt::format("; and {} more", found.size() - kShown);
  fail(ErrorKind::replicas,
       "replicas disagree after step {}: {}; go on from the last checkpoint without those machines "
       "(the same command resumes), and check their memory",
       step, text);
}

}  // namespace sw
