#include <gmock/gmock.h>

#include "tests/convert/model_samples.h"

namespace sw {
namespace {

using ::testing::HasSubstr;

// What a checkpoint says of the folder that it came from may be anything.
TEST(HostileCheckpoint, IsExportedOrRefusedWhateverItsOriginalConfigurationSays) {
  const test::TemporaryFolder root;
  const ModelConfig model = test::small_t5();
  std::vector<TensorEntry> entries;
  for (const ParameterSpec& spec : parameter_specs(model)) {
    entries.push_back({"/model/" + spec.name, DType::f32, spec.shape, spec.axes});
  }
  for (const char* config : {"3", "[]", "{\"model_type\": 3}", "{\"dtype\": {}}", "{\"d_ff\": [1]}",
                             "not JSON", "{\"a\":1,\"a\":1}", "\"\\ud800\""}) {
    SCOPED_TRACE(config);
    CheckpointMeta meta;
    meta.config_toml = model_config_to_toml(model);
    meta.attributes["hugging_face/config.json"] = std::string(config);
    CheckpointWriter writer(root / "a.h5", entries, meta, Telemetry());
    for (const TensorEntry& entry : entries) {
      writer.write_tensor(entry.path, Tensor::zeros(entry.shape, entry.dtype));
    }
    writer.finish();
    ConversionOptions options;
    options.replace = true;
    const CheckpointReader reader(root / "a.h5");
    try {
      convert_to_hugging_face(reader, root / "hf", options);
      EXPECT_THAT(compare_conversion(root / "hf", reader, true, {}), ::testing::IsEmpty());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::corrupt) << error.what();
    }
  }
}

}  // namespace
}  // namespace sw
