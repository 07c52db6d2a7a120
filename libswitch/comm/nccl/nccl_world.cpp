// Has compiled, but never run on a GPU yet.
#include "libswitch/comm/nccl/nccl_world.h"

#include "libswitch/base/error.h"
#include "libswitch/comm/nccl/nccl_group.h"

namespace sw {
namespace {

class NcclWorld final : public World {
 public:
  NcclWorld(World& host, Device device, DeviceReduction reduction)
      : host_(host),
        device_(device),
        reduction_(reduction),
        group_(make_nccl_group(host.group(), host.trace(), device, reduction)) {}

  Group& group() override { return *group_; }
  std::unique_ptr<Group> make_group(std::string name,
                                    const std::vector<int64_t>& world_ranks) override {
    auto group = host_.make_group(std::move(name), world_ranks);
    if (!group) return nullptr;
    return make_nccl_group(std::move(group), host_.trace(), device_, reduction_);
  }
  const std::string& host() const override { return host_.host(); }
  int64_t local_size() const override { return host_.local_size(); }
  int64_t local_rank() const override { return host_.local_rank(); }
  int64_t local_cores() const override { return host_.local_cores(); }
  CommTrace& trace() override { return host_.trace(); }

 private:
  World& host_;
  Device device_;
  DeviceReduction reduction_;
  std::unique_ptr<Group> group_;
};

}  // namespace

std::unique_ptr<World> make_nccl_world(World& host, Device device, DeviceReduction reduction) {
  SW_CHECK(device.is_cuda(), internal, "NCCL world on {}, expected a GPU", device.str());
  return std::make_unique<NcclWorld>(host, device, reduction);
}

}  // namespace sw
