#include "libswitch/comm/mesh.h"

#include <charconv>
#include <numeric>

#include "libswitch/base/error.h"

namespace sw {
namespace {

constexpr std::array kAxes = {"data", "expert", "model"};

int64_t* axis_of(MeshShape& shape, std::string_view name) {
  if (name == kAxes[0]) return &shape.data;
  if (name == kAxes[1]) return &shape.expert;
  if (name == kAxes[2]) return &shape.model;
  return nullptr;
}

}  // namespace

std::string MeshShape::str() const {
  return fmt::format("data={},expert={},model={}", data, expert, model);
}

MeshShape parse_mesh_shape(const std::string& text) {
  MeshShape shape{0, 0, 0};
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const size_t equals = item.find('=');
    SW_CHECK(equals != std::string_view::npos, usage,
             "mesh '{}': '{}' is no AXIS=SIZE; expected for example data=8,expert=4,model=2", text,
             item);
    const std::string name(item.substr(0, equals));
    const std::string_view value = item.substr(equals + 1);
    int64_t* axis = axis_of(shape, name);
    SW_CHECK(axis != nullptr, usage, "mesh '{}': no axis '{}', expected data, expert or model{}",
             text, name, nearest_hint(name, kAxes));
    SW_CHECK(*axis == 0, usage, "mesh '{}': {} is given twice", text, name);
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *axis);
    SW_CHECK(error == std::errc() && end == value.data() + value.size() && *axis >= 1, usage,
             "mesh '{}': {} is '{}', expected a whole number of at least 1", text, name, value);
  }
  return shape;
}

MeshShape resolve_mesh_shape(MeshShape wanted, int64_t ranks, int64_t experts) {
  MeshShape shape = wanted;
  if (shape.model == 0) {
    SW_CHECK(shape.data == 0 || ranks % shape.data == 0, usage,
             "mesh: data={} does not divide the {} rank(s) of this job; give a divisor of {}, or "
             "start {} ranks (mpirun -n {})",
             shape.data, ranks, ranks, shape.data, shape.data);
    shape.model = shape.data == 0 ? 1 : ranks / shape.data;
  }
  if (shape.data == 0) {
    SW_CHECK(ranks % shape.model == 0, usage,
             "mesh: model={} does not divide the {} rank(s) of this job; give a divisor of {}, or "
             "start {} ranks (mpirun -n {})",
             shape.model, ranks, ranks, shape.model, shape.model);
    shape.data = ranks / shape.model;
  }
  SW_CHECK(shape.ranks() == ranks, usage,
           "mesh: data={} x model={} are {} ranks, but the job has {}; start {} ranks (mpirun -n "
           "{}), or give other sizes",
           shape.data, shape.model, shape.ranks(), ranks, shape.ranks(), shape.ranks());
  if (shape.expert == 0) shape.expert = experts > 0 ? std::gcd(shape.data, experts) : 1;
  SW_CHECK(shape.data % shape.expert == 0, usage,
           "mesh: expert={} does not divide data={}: the expert axis lies within the data axis",
           shape.expert, shape.data);
  SW_CHECK(shape.expert == 1 || experts > 0, usage,
           "mesh: expert={}, but the model is dense; leave expert out", shape.expert);
  SW_CHECK(experts % shape.expert == 0, usage,
           "mesh: {} experts cannot lie evenly over expert={}; the largest size that fits is {}",
           experts, shape.expert, std::gcd(shape.data, experts));
  return shape;
}

Mesh::Mesh()
    : world_(&single_group()), data_(world_), expert_(world_), replica_(world_), model_(world_) {}

Mesh::Mesh(World& world, const MeshShape& shape) : shape_(shape), world_(&world.group()) {
  SW_CHECK(shape.data >= 1 && shape.expert >= 1 && shape.model >= 1 &&
               shape.data % shape.expert == 0 && shape.ranks() == world.size(),
           usage, "mesh {} does not fit {} ranks", shape.str(), world.size());
  data_index_ = world.rank() / shape.model;
  model_index_ = world.rank() % shape.model;
  const auto rank_at = [&](int64_t data, int64_t model) { return data * shape.model + model; };
  // Every rank takes part in making every group, in one order.
  const auto make = [&](const char* name, int64_t count, const auto& members_of) {
    Group* own = nullptr;
    for (int64_t i = 0; i < count; ++i) {
      if (auto group = world.make_group(name, members_of(i))) {
        own = group.get();
        owned_.push_back(std::move(group));
      }
    }
    return own;
  };
  data_ = make("data", shape.model, [&](int64_t model) {
    std::vector<int64_t> ranks;
    for (int64_t d = 0; d < shape.data; ++d) ranks.push_back(rank_at(d, model));
    return ranks;
  });
  model_ = make("model", shape.data, [&](int64_t data) {
    std::vector<int64_t> ranks;
    for (int64_t m = 0; m < shape.model; ++m) ranks.push_back(rank_at(data, m));
    return ranks;
  });
  expert_ = make("expert", shape.replicas() * shape.model, [&](int64_t i) {
    std::vector<int64_t> ranks;
    for (int64_t x = 0; x < shape.expert; ++x) {
      ranks.push_back(rank_at(i / shape.model * shape.expert + x, i % shape.model));
    }
    return ranks;
  });
  replica_ = make("replica", shape.expert * shape.model, [&](int64_t i) {
    std::vector<int64_t> ranks;
    for (int64_t r = 0; r < shape.replicas(); ++r) {
      ranks.push_back(rank_at(r * shape.expert + i / shape.model, i % shape.model));
    }
    return ranks;
  });
}

const Mesh& single_mesh() {
  static const Mesh mesh;
  return mesh;
}

}  // namespace sw
