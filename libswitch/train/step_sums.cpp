#include "libswitch/train/step_sums.h"

#include <cstring>
#include <type_traits>

#include "libswitch/base/error.h"

namespace sw {
namespace {

// Calls fn on every number that is summed, always in the same order. Counts go along as doubles,
// which hold them exactly up to 2^53.
template <class Result, class Fn>
void for_each_sum(Result& result, const Fn& fn) {
  fn(result.loss);
  fn(result.cross_entropy);
  fn(result.aux_loss);
  fn(result.z_loss);
  fn(result.soft_cross_entropy);
  fn(result.teacher_cross_entropy);
  fn(result.log_likelihood);
  fn(result.targets);
  fn(result.correct);
  fn(result.tokens);
  for (auto& layer : result.layers) {
    fn(layer.gate_sum);
    fn(layer.entropy_sum);
    fn(layer.aux_sum);
    fn(layer.z_sum);
    fn(layer.loss_weight);
    fn(layer.tokens);
    fn(layer.dropped_tokens);
    fn(layer.slots);
    for (auto& value : layer.probability) fn(value);
    for (auto& value : layer.chosen) fn(value);
    for (auto& value : layer.kept) fn(value);
  }
}

std::vector<double> sums_of(const StepResult& result) {
  std::vector<double> sums;
  for_each_sum(result, [&](auto value) { sums.push_back(static_cast<double>(value)); });
  return sums;
}

void put_sums(const double* sums, StepResult& result) {
  for_each_sum(result, [&](auto& value) {
    value = static_cast<std::remove_reference_t<decltype(value)>>(*sums++);
  });
}

}  // namespace

void add_observations(StepResult& left, const StepResult& right) {
  left.loss += right.loss;
  left.cross_entropy += right.cross_entropy;
  left.aux_loss += right.aux_loss;
  left.z_loss += right.z_loss;
  left.soft_cross_entropy += right.soft_cross_entropy;
  left.teacher_cross_entropy += right.teacher_cross_entropy;
  left.log_likelihood += right.log_likelihood;
  left.targets += right.targets;
  left.correct += right.correct;
  left.tokens += right.tokens;
  for (size_t i = 0; i < left.layers.size(); ++i) left.layers[i].merge(right.layers[i]);
}

namespace {

// The fault of the first rank that has one.
void name_fault(Group& group, StepResult& result) {
  const std::vector<std::string> texts = group.all_gather_bytes(result.fault);
  result.finite = false;
  for (size_t r = 0; r < texts.size(); ++r) {
    if (texts[r].empty()) continue;
    result.fault = texts[r].starts_with("rank ")
                       ? texts[r]
                       : fmt::format("rank {}: {}", group.world_ranks()[r], texts[r]);
    return;
  }
}

}  // namespace

void sum_over_ranks(Group& group, StepResult& result) {
  if (group.size() == 1) return;
  std::vector<double> sums = sums_of(result);
  sums.push_back(result.finite ? 0 : 1);
  Tensor tensor = Tensor::from({static_cast<int64_t>(sums.size())}, sums);
  group.all_reduce(tensor);
  put_sums(tensor.data<double>(), result);
  const double faults = tensor.data<double>()[tensor.elements() - 1];
  if (faults != 0) name_fault(group, result);
}

void share_fault(Group& group, StepResult& result) {
  if (group.size() == 1) return;
  if (group.all_reduce_value(result.finite ? 0 : 1, ReduceOp::max) != 0) name_fault(group, result);
}

namespace {

// And the largest capacities, which are no sums.
std::vector<double> packed(const StepResult& result) {
  std::vector<double> values = sums_of(result);
  for (const RouterStatistics& layer : result.layers) {
    values.push_back(static_cast<double>(layer.capacity));
  }
  return values;
}

}  // namespace

std::string pack_observations(const StepResult& result) {
  const std::vector<double> values = packed(result);
  std::string bytes(values.size() * sizeof(double), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

void unpack_observations(const std::string& bytes, StepResult& result) {
  std::vector<double> values = packed(result);
  SW_CHECK(bytes.size() == values.size() * sizeof(double), internal,
           "observations: {} bytes do not fit {} layers", bytes.size(), result.layers.size());
  std::memcpy(values.data(), bytes.data(), bytes.size());
  put_sums(values.data(), result);
  const double* capacity = values.data() + values.size() - result.layers.size();
  for (RouterStatistics& layer : result.layers) {
    layer.capacity = static_cast<int64_t>(*capacity++);
  }
}

}  // namespace sw
