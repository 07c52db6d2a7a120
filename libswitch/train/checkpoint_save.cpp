#include "libswitch/train/checkpoint_save.h"

#include <cstring>
#include <map>

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
    sync_ = world.all_reduce_value(host == host_name() ? 0 : 1, ReduceOp::max) > 0;
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

// What the other ranks know of the tiles. Those that nobody wrote whole, because the model axis
// cuts them, are read back by one of the ranks that wrote parts of them.
std::vector<TileReport> CheckpointSave::gather_reports() {
  Group& world = mesh_.world();
  std::vector<TileReport> others;
  if (world.size() == 1) return others;
  const auto gather = [&](const std::vector<TileReport>& own, const auto& take) {
    const auto all = world.all_gather_bytes(to_bytes(own));
    for (int64_t rank = 0; rank < world.size(); ++rank) {
      for (const TileReport& r : from_bytes<TileReport>(all[static_cast<size_t>(rank)])) {
        take(rank, r);
        if (rank != world.rank()) others.push_back(r);
      }
    }
  };
  std::map<int64_t, std::vector<int64_t>> writers;  // of tiles without a checksum
  gather(writer_->reports(), [&](int64_t rank, const TileReport& report) {
    if (report.checked == 0) writers[report.tile].push_back(rank);
  });
  if (writers.empty()) return others;
  std::vector<int64_t> own;
  for (const auto& [tile, ranks] : writers) {
    const auto turn = static_cast<size_t>(tile % std::ssize(ranks));
    if (ranks[turn] == world.rank()) own.push_back(tile);
  }
  std::vector<TileReport> read;
  agree_on(world, [&] { read = writer_->read_back(own); });
  gather(read, [&](int64_t, const TileReport&) {});
  // Rank 0 takes its own from here too.
  others.insert(others.end(), read.begin(), read.end());
  return others;
}

CommittedCheckpoint CheckpointSave::finish() {
  wait();
  SW_CHECK(written(), internal, "{}: finish() before write()", file_.string());
  Group& world = mesh_.world();
  const bool root = world.rank() == kRoot;
  CommittedCheckpoint done;
  try {
    agree(world, failure_);
    const std::vector<TileReport> others = gather_reports();
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
