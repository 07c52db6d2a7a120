// A checkpoint written by all ranks into one file.
//
//   CheckpointSave save(file, model, optimizer, meta, telemetry, CheckpointSave::Source::tensors);
//   save.write();
//   const CommittedCheckpoint done = save.finish();
//
// Beginning and finishing are collectives of the mesh; write() talks to nobody, so that with
// Source::snapshot it may run in a thread of its own (start_writing) while training goes on. An
// error on any rank becomes the same error on all of them, naming the rank, and the temporary file
// is removed; what had the file's name before stays as it was.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "libswitch/comm/agree.h"
#include "libswitch/io/checkpoint_writer.h"
#include "libswitch/nn/model.h"
#include "libswitch/train/optimizer.h"

namespace sw {

class CheckpointSave {
 public:
  enum class Source {
    tensors,   // written from where they are: nothing may change them before write() returned
    snapshot,  // from a copy in memory that the constructor makes
  };

  /// Rank 0 creates the temporary file with everything but the tensors. `meta` and `telemetry`
  /// count on rank 0; the counts of parameters are filled in. Throws cannot_create, io.
  CheckpointSave(const std::filesystem::path& file, const Model& model, const Optimizer& optimizer,
                 CheckpointMeta meta, const Telemetry& telemetry, Source source,
                 FileCalls calls = {});
  /// Waits for the thread, if one writes, and drops what is not finished.
  ~CheckpointSave();
  CheckpointSave(const CheckpointSave&) = delete;
  CheckpointSave& operator=(const CheckpointSave&) = delete;

  /// Writes this rank's parts. Does not throw: what fails is reported by finish().
  void write();
  /// write() in a thread of its own, which takes one core.
  void start_writing();
  /// Whether write() is done, on this rank.
  bool written() const { return written_.load(std::memory_order_acquire); }

  /// Once every rank has written (it waits for its own thread): completes the file and gives it its
  /// name. Throws io.
  CommittedCheckpoint finish();

  const std::filesystem::path& file() const { return file_; }

 private:
  struct Part {
    std::string path;
    Rectangle rectangle;
    Tensor tensor;
  };
  void wait();
  std::vector<TileReport> gather_reports();

  std::filesystem::path file_;
  const Mesh& mesh_;
  std::vector<Part> parts_;
  std::unique_ptr<CheckpointWriter> writer_;
  bool sync_ =
      false;  // after writing: others read it from another machine, or for the thread's sake
  std::optional<Failure> failure_;
  std::atomic<bool> written_{false}, dropped_{false};
  std::thread thread_;
};

/// Tensors of a checkpoint: /model/<parameter> in master precision, /optim/<parameter>/<state>.
std::vector<TensorEntry> checkpoint_entries(const Model& model, const Optimizer& optimizer);

/// Writes weights, optimizer state, `meta` and `telemetry` to `file`, which appears only when it is
/// whole. All ranks of the model's mesh call it. Fills in the counts of parameters. Throws
/// cannot_create, io.
CommittedCheckpoint write_checkpoint(const std::filesystem::path& file, const Model& model,
                                     const Optimizer& optimizer, CheckpointMeta meta,
                                     const Telemetry& telemetry, FileCalls calls = {});

}  // namespace sw
