// Checkpoints that all ranks of a mesh write and read.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <mutex>

#include "libswitch/base/file.h"
#include "libswitch/base/rng.h"
#include "libswitch/train/checkpoint_save.h"
#include "libswitch/train/checkpoint_state.h"
#include "tests/support/kernel_case.h"
#include "tests/support/mesh_case.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using ::testing::HasSubstr;
using testing::on_mesh;

class CheckpointOnAMesh : public testing::TrainingTest {};

FileCalls unsynced_calls() {
  FileCalls calls;
  calls.fsync = [](int) { return 0; };
  return calls;
}

CheckpointMeta some_meta() {
  CheckpointMeta meta;
  meta.preset = "small";
  meta.tool_version = "test";
  meta.optimizer = "adafactor";
  meta.config_toml = "[model]\n";
  return meta;
}

// Bits that depend on (seed, name, global index) only.
void fill_part(Tensor& part, const std::string& name, const Shape& shape, const Rectangle& box,
               uint64_t seed) {
  const RngKey key = rng_key(seed, RngPurpose::test, name);
  for (int64_t i = 0; i < part.elements(); ++i) {
    part.data<float>()[i] =
        random_uniform(key, static_cast<uint64_t>(index_in_whole(shape, box, i)));
  }
}

// A model and its optimizer at one rank of a mesh.
struct State {
  std::unique_ptr<Model> model;
  std::unique_ptr<Optimizer> optimizer;

  State(const Mesh& mesh, bool shard, OptimizerConfig::Kind kind) {
    model = std::make_unique<Model>(testing::small_model(), DType::bf16, Device{}, mesh);
    OptimizerConfig config;
    config.kind = kind;
    config.min_factored_size = 16;
    config.shard = shard;
    optimizer = make_optimizer(config, *model);
    fill(0);
  }
  void fill(uint64_t seed) {
    for (auto& parameter : model->parameters()) {
      fill_part(parameter->master(), parameter->name(), parameter->spec().shape,
                parameter->rectangle(), seed);
      parameter->refresh({});
    }
    for (const OptimizerState& state : optimizer->states()) {
      Tensor tensor = state.tensor;
      if (tensor) fill_part(tensor, state.path, state.shape, state.rectangle, seed);
    }
  }
  void expect_equal(const State& other) const {
    for (size_t p = 0; p < model->parameters().size(); ++p) {
      Parameter& here = *model->parameters()[p];
      Parameter& there = *other.model->parameters()[p];
      test::expect_same_bits(here.master(), there.master(), here.name());
      if (here.working_copy()) {
        test::expect_same_bits(here.working_copy(), there.working_copy(), here.name());
      }
    }
    for (size_t i = 0; i < optimizer->states().size(); ++i) {
      const OptimizerState& here = optimizer->states()[i];
      if (here.tensor) {
        test::expect_same_bits(here.tensor, other.optimizer->states()[i].tensor, here.path);
      }
    }
  }
  CommittedCheckpoint save(const std::filesystem::path& file,
                           FileCalls calls = unsynced_calls()) const {
    return write_checkpoint(file, *model, *optimizer, some_meta(), {}, std::move(calls));
  }
  void load(const std::filesystem::path& file) {
    const CheckpointReader reader(file);
    read_weights(reader, *model);
    read_optimizer(reader, *optimizer);
  }
};

constexpr auto kAdafactor = OptimizerConfig::Kind::adafactor;

TEST_F(CheckpointOnAMesh, SavedOnAnyMeshLoadsOnAnyOther) {
  for (const auto kind : {kAdafactor, OptimizerConfig::Kind::adamw}) {
    std::string digest;
    for (const MeshShape& saver : testing::all_meshes()) {
      const bool shard = saver.data == 4;
      const auto file = path(saver.str() + ".h5");
      on_mesh(saver, [&](const Mesh& mesh) {
        State state(mesh, shard, kind);
        state.fill(1);
        const CommittedCheckpoint done = state.save(file);
        EXPECT_EQ(done.path, file);
        EXPECT_EQ(done.bytes, static_cast<int64_t>(std::filesystem::file_size(file)));
        EXPECT_EQ(done.digest, CheckpointReader(file).digest());
      });
      CheckpointReader(file).verify_all();
      if (digest.empty()) digest = CheckpointReader(file).digest();
      EXPECT_EQ(CheckpointReader(file).digest(), digest) << saver.str();
      for (const MeshShape& loader : testing::all_meshes()) {
        SCOPED_TRACE(saver.str() + " -> " + loader.str());
        on_mesh(loader, [&](const Mesh& mesh) {
          State state(mesh, loader.data == 2, kind), expected(mesh, loader.data == 2, kind);
          expected.fill(1);
          state.load(file);
          state.expect_equal(expected);
        });
      }
    }
  }
}

// What `fn` throws at each rank, by rank.
std::vector<std::string> errors_on(const MeshShape& shape, ErrorKind kind,
                                   const std::function<void(const Mesh&)>& fn) {
  std::vector<std::string> errors(static_cast<size_t>(shape.ranks()));
  on_mesh(shape, [&](const Mesh& mesh) {
    errors[static_cast<size_t>(mesh.world().rank())] = testing::message_of(kind, [&] { fn(mesh); });
  });
  return errors;
}

TEST_F(CheckpointOnAMesh, AWriteThatFailsOnOneRankFailsOnAllAndKeepsTheOldFile) {
  const MeshShape shape{4, 2, 2};
  const auto file = path("step-000000001.h5");
  on_mesh(shape, [&](const Mesh& mesh) { State(mesh, false, kAdafactor).save(file); });
  const std::string before = read_file(file);
  for (int64_t failing : {0, 1, 3}) {  // those that write: of expert parts 0 and 1
    for (const auto& error : errors_on(shape, ErrorKind::io, [&](const Mesh& mesh) {
           State state(mesh, false, kAdafactor);
           state.fill(2);
           FileCalls calls = unsynced_calls();
           if (mesh.world().rank() == failing) {
             calls.pwrite = [](int, const void*, size_t, off_t) -> ssize_t {
               return errno = ENOSPC, -1;
             };
           }
           state.save(file, calls);
         })) {
      EXPECT_THAT(error, HasSubstr(fmt::format("rank {} (", failing)));
      EXPECT_THAT(error, HasSubstr("No space left on device"));
    }
    EXPECT_TRUE(read_file(file) == before);
    EXPECT_FALSE(std::filesystem::exists(file.string() + ".tmp"));
  }
}

TEST_F(CheckpointOnAMesh, WhatOnlyRankZeroDoesFailsOnAllToo) {
  const MeshShape shape{2, 2, 1};
  const auto file = path("a.h5");
  std::vector<FileCalls> all(3, unsynced_calls());
  all[0].fsync = [](int) { return errno = EIO, -1; };
  all[1].rename = [](const char*, const char*) { return errno = EIO, -1; };
  all[2].allocate = [](int, off_t) { return errno = EIO, -1; };
  for (const FileCalls& calls : all) {
    for (const auto& error : errors_on(shape, ErrorKind::io, [&](const Mesh& mesh) {
           State(mesh, false, kAdafactor).save(file, calls);
         })) {
      EXPECT_THAT(error, HasSubstr("rank 0 ("));
      EXPECT_THAT(error, HasSubstr("Input/output error"));
    }
    EXPECT_TRUE(std::filesystem::is_empty(path("")));
  }
  for (const auto& error : errors_on(shape, ErrorKind::cannot_create, [&](const Mesh& mesh) {
         State(mesh, false, kAdafactor).save(path("nowhere") / "a.h5");
       })) {
    EXPECT_THAT(error, HasSubstr("nowhere"));
  }
}

TEST_F(CheckpointOnAMesh, DamageThatOneRankMeetsFailsOnAll) {
  const MeshShape shape{4, 4, 1};
  const auto file = path("a.h5");
  on_mesh(shape, [&](const Mesh& mesh) { State(mesh, false, kAdafactor).save(file); });
  // A bit of the third expert of one matrix.
  const std::string name = "encoder/block_001/moe/wi";
  Tensor expert = CheckpointReader(file).read_rows("/model/" + name, 2, 3);
  std::string bytes = read_file(file);
  const size_t at = bytes.find(
      std::string(static_cast<const char*>(expert.raw()), static_cast<size_t>(expert.bytes())));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  std::ofstream(file, std::ios::binary) << bytes;
  for (const auto& error : errors_on(shape, ErrorKind::corrupt, [&](const Mesh& mesh) {
         State(mesh, false, kAdafactor).load(file);
       })) {
    EXPECT_THAT(error, HasSubstr("rank 2 ("));
    EXPECT_THAT(error, HasSubstr(name + ", tile 2"));
  }
}

TEST_F(CheckpointOnAMesh, AnotherModelsFileChangesNothing) {
  const auto file = path("a.h5");
  State(single_mesh(), false, kAdafactor).save(file);
  errors_on({2, 1, 1}, ErrorKind::corrupt, [&](const Mesh& mesh) {
    ModelConfig config = testing::small_model();
    config.d_ff = 64;  // the embedding, which would be read first, fits
    Model model(config, DType::f32, {}, mesh);
    model.initialize(1);
    const std::string before = testing::weights_checksum(model);
    try {
      read_weights(CheckpointReader(file), model);
    } catch (const Error&) {
      EXPECT_EQ(testing::weights_checksum(model), before);
      throw;
    }
  });
}

TEST_F(CheckpointOnAMesh, ASnapshotIsWrittenWhileTheWeightsChange) {
  for (const MeshShape& shape : testing::all_meshes()) {
    SCOPED_TRACE(shape.str());
    const auto file = path(shape.str() + ".h5");
    on_mesh(shape, [&](const Mesh& mesh) {
      State state(mesh, false, kAdafactor), expected(mesh, false, kAdafactor);
      state.fill(1);
      expected.fill(1);
      CheckpointSave save(file, *state.model, *state.optimizer, some_meta(), {},
                          CheckpointSave::Source::snapshot, unsynced_calls());
      state.fill(2);
      save.start_writing();
      state.fill(3);
      EXPECT_FALSE(std::filesystem::exists(file));
      save.finish();
      state.load(file);
      state.expect_equal(expected);
    });
  }
}

TEST_F(CheckpointOnAMesh, ASaveThatIsDroppedLeavesNothing) {
  on_mesh({2, 1, 1}, [&](const Mesh& mesh) {
    State state(mesh, false, kAdafactor);
    CheckpointSave save(path("a.h5"), *state.model, *state.optimizer, some_meta(), {},
                        CheckpointSave::Source::snapshot);
    save.start_writing();
  });
  EXPECT_TRUE(std::filesystem::is_empty(path("")));
}

}  // namespace
}  // namespace sw
