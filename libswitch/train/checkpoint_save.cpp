#include "libswitch/train/checkpoint_save.h"

#include <cstring>

#include "libswitch/base/parallel.h"
#include "libswitch/comm/local/single.h"

namespace sw {
namespace {

constexpr int64_t kRoot = 0;

std::string weight_path(const Parameter& parameter) { return "/model/" + parameter.name(); }

template <class T>
std::string to_bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
template <class T>
std::vector<T> from_bytes(std::string_view bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace

std::vector<TensorEntry> checkpoint_entries(const Model& model, const Optimizer& optimizer) {
  std::vector<TensorEntry> entries;
  for (const auto& parameter : model.parameters()) {
    entries.push_back({weight_path(*parameter), parameter->master().dtype(),
                       parameter->spec().shape, parameter->spec().axes});
  }
  for (const OptimizerState& state : optimizer.states()) {
    entries.push_back({state.path, state.dtype, state.shape, state.axes});
  }
  return entries;
}

CheckpointSave::CheckpointSave(const std::filesystem::path& file, const Model& model,
                               const Optimizer& optimizer, CheckpointMeta meta,
                               const Telemetry& telemetry, Source source, FileCalls calls)
    : file_(file), mesh_(model.mesh()) {
  Group& world = mesh_.world();
  const bool root = world.rank() == kRoot;
  std::vector<TensorEntry> entries = checkpoint_entries(model, optimizer);
  std::optional<Failure> failure;
  if (root) {
    failure = failure_of([&] {
      const ParameterCount count = count_parameters(model.config());
      meta.params_total = count.total;
      meta.params_active = count.active;
      writer_ = std::make_unique<CheckpointWriter>(file, entries, meta, telemetry, calls);
    });
  }
  agree(world, failure);
  if (world.size() > 1) {
    const std::string offsets =
        world.broadcast_bytes(root ? to_bytes(writer_->offsets()) : std::string(), kRoot);
    const std::string host = world.broadcast_bytes(root ? host_name() : std::string(), kRoot);
    sync_ = host != host_name();
    if (!root) {
      failure_ = failure_of([&] {
        writer_ = std::make_unique<CheckpointWriter>(
            file, std::move(entries), from_bytes<uint64_t>(offsets), std::move(calls));
      });
    }
  }
  // A thread can wait for the disk where training could not.
  if (source == Source::snapshot) sync_ = true;

  const auto add = [&](const std::string& path, const Rectangle& rectangle, const Tensor& tensor) {
    SW_CHECK(!tensor.device().is_cuda(), device, "{}: {} lies on {}, expected the CPU",
             file.string(), path, tensor.device().str());
    parts_.push_back({path, rectangle, source == Source::snapshot ? tensor.clone() : tensor});
  };
  if (failure_) return;
  failure_ = failure_of([&] {
    for (const auto& parameter : model.parameters()) {
      if (!writes_part(parameter->placement(), mesh_)) continue;
      add(weight_path(*parameter), parameter->rectangle(), parameter->master());
    }
    for (const OptimizerState& state : optimizer.states()) {
      if (state.writes) add(state.path, state.rectangle, state.tensor);
    }
  });
}

CheckpointSave::~CheckpointSave() {
  dropped_ = true;
  wait();
}

void CheckpointSave::write() {
  if (!failure_) {
    failure_ = failure_of([&] {
      for (Part& part : parts_) {
        if (dropped_) return;
        writer_->write_rectangle(part.path, part.rectangle, part.tensor.raw());
        part.tensor = Tensor();
      }
      if (sync_) writer_->sync();
    });
  }
  parts_.clear();
  written_.store(true, std::memory_order_release);
}

void CheckpointSave::start_writing() {
  thread_ = std::thread([this] {
    const SerialScope serial;
    write();
  });
}

void CheckpointSave::wait() {
  if (thread_.joinable()) thread_.join();
}

CommittedCheckpoint CheckpointSave::finish() {
  wait();
  SW_CHECK(written(), internal, "{}: finish() before write()", file_.string());
  Group& world = mesh_.world();
  const bool root = world.rank() == kRoot;
  CommittedCheckpoint done;
  try {
    agree(world, failure_);
    // Of all ranks but rank 0, which has its own.
    std::vector<TileReport> others;
    if (world.size() > 1) {
      const auto all = world.all_gather_bytes(root ? "" : to_bytes(writer_->reports()));
      for (const std::string& bytes : all) {
        for (const TileReport& report : from_bytes<TileReport>(bytes)) others.push_back(report);
      }
    }
    std::optional<Failure> failure;
    if (root) failure = failure_of([&] { done = writer_->finish(others); });
    agree(world, failure);
  } catch (...) {
    writer_.reset();
    throw;
  }
  if (world.size() > 1) {
    done.path = file_;
    done.digest = world.broadcast_bytes(done.digest, kRoot);
    done.bytes = world.all_reduce_value(done.bytes, ReduceOp::max);
  }
  writer_.reset();
  return done;
}

CommittedCheckpoint write_checkpoint(const std::filesystem::path& file, const Model& model,
                                     const Optimizer& optimizer, CheckpointMeta meta,
                                     const Telemetry& telemetry, FileCalls calls) {
  CheckpointSave save(file, model, optimizer, std::move(meta), telemetry,
                      CheckpointSave::Source::tensors, std::move(calls));
  save.write();
  return save.finish();
}

}  // namespace sw
