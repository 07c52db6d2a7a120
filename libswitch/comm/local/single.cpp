// A world of one rank: every collective is a copy, or nothing.
#include "libswitch/comm/local/single.h"

#include <unistd.h>

#include <cstring>

#include "libswitch/base/error.h"
#include "libswitch/base/parallel.h"

namespace sw {
namespace {

class Done final : public PendingCollective {
 public:
  bool advance() override { return true; }
  void finish() override {}
};

// Has no state, so that threads may share one.
class SingleGroup final : public Group {
 public:
  explicit SingleGroup(std::string name) : Group(std::move(name), {0}, 0) {}
  std::unique_ptr<PendingCollective> start_all_reduce(std::vector<Tensor>, ReduceOp) override {
    return std::make_unique<Done>();
  }
  void reduce_scatter(Tensor& out, const Tensor& in) override { copy(out, in); }
  void all_gather(Tensor& out, const Tensor& in) override { copy(out, in); }
  void broadcast(Tensor&, int64_t) override {}
  void all_to_all_rows(Tensor& out, std::span<const int64_t>, const Tensor& in,
                       std::span<const int64_t>) override {
    copy(out, in);
  }
  void barrier() override {}

 private:
  static void copy(Tensor& out, const Tensor& in) {
    check_tensor("group of one rank", "out", out, in.shape(), in.dtype());
    if (out.raw() != in.raw()) {
      std::memcpy(out.raw(), in.raw(), static_cast<size_t>(in.bytes()));
    }
  }
};

class SingleWorld final : public World {
 public:
  SingleWorld() : group_("world"), host_(host_name()) {}
  Group& group() override { return group_; }
  std::unique_ptr<Group> make_group(std::string name,
                                    const std::vector<int64_t>& world_ranks) override {
    SW_CHECK(world_ranks == std::vector<int64_t>{0}, internal,
             "group {}: {} members in a world of one rank", name, world_ranks.size());
    return std::make_unique<SingleGroup>(std::move(name));
  }
  const std::string& host() const override { return host_; }
  int64_t local_size() const override { return 1; }
  int64_t local_rank() const override { return 0; }
  int64_t local_cores() const override { return usable_cores(); }
  CommTrace& trace() override { return trace_; }

 private:
  SingleGroup group_;
  std::string host_;
  CommTrace trace_;  // stays empty: nothing waits
};

}  // namespace

std::string host_name() {
  std::string name(256, '\0');
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  name.resize(name.find('\0'));
  return name;
}

Group& single_group() {
  static SingleGroup group("single");
  return group;
}

World& single_world() {
  static SingleWorld world;
  return world;
}

}  // namespace sw
