// Whole models on a model axis against one rank. The axis splits sums: results agree to rounding.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "libswitch/base/error.h"
#include "libswitch/comm/local/threads.h"
#include "libswitch/nn/model.h"
#include "tests/support/kernel_case.h"
#include "tests/support/model_ranks.h"

namespace sw::test {
namespace {

constexpr int64_t kRanks[] = {2, 4};

ModelConfig t5_config(bool v1_1) {
  ModelConfig config;
  config.vocab_size = 96, config.d_model = 24, config.d_kv = 6, config.heads = 4, config.d_ff = 40;
  config.encoder_layers = config.decoder_layers = 2;
  config.dropout = 0.1;
  config.label_smoothing = 0.1;
  config.output_z_loss = 1e-2;
  config.init_scale = 1;
  if (v1_1) {
    config.activation = Activation::geglu;
    config.tied_embeddings = false;
    config.conventions = conventions_preset("hf");  // a mask for each position
    config.conventions.init = Conventions::InitRule::mesh;
  }
  return config;
}

// Rows with padding, made up.
struct Rows {
  explicit Rows(int64_t count) {
    rows.rows = count, rows.input_length = 11, rows.target_length = 7;
    for (int32_t i = 0; i < 11 * count; ++i) inputs.push_back(2 + (i * 7 + i / 5) % 90);
    for (int32_t i = 0; i < 7 * count; ++i) targets.push_back(2 + (i * 11 + i / 3) % 90);
    inputs[42] = inputs[43] = targets[26] = targets[27] = targets[13] = 0;
    rows.inputs = inputs, rows.targets = targets;
  }
  std::vector<int32_t> inputs, targets;
  TokenRows rows;
};

struct Pass {
  ForwardResult result;
  std::vector<Tensor> gradients;  // whole, by parameter
};

// Writes a rank's part into the whole.
void place(Tensor& whole, const Tensor& part, const Rectangle& box) {
  const std::vector<double> values = part.to_vector();
  for (int64_t i = 0; i < part.elements(); ++i) {
    const int64_t at = index_in_whole(whole.shape(), box, i);
    if (whole.dtype() == DType::f64) {
      whole.data<double>()[at] = values[static_cast<size_t>(i)];
    } else {
      whole.data<float>()[at] = static_cast<float>(values[static_cast<size_t>(i)]);
    }
  }
}

struct Setting {
  ModelConfig config;
  DType dtype = DType::f32;
  ForwardOptions options = {};
  int64_t rows = 4;
};

// One step's forward and backward pass on {model = ranks}.
Pass pass(const Setting& setting, int64_t ranks) {
  const Rows rows(setting.rows);
  Pass whole;
  std::mutex mutex;
  on_model_ranks(ranks, [&](Context& context, MeshPart part) {
    Model model(setting.config, setting.dtype, {}, *context.mesh);
    model.initialize(5);
    const ForwardResult result = model.forward(
        context, make_model_input(rows.rows, setting.config.conventions), setting.options);
    context.tape->backward();
    for (const auto& parameter : model.parameters()) {
      if (parameter->placement().model_dimension < 0) {
        expect_alike(context, parameter->gradient().gradient(), parameter->name());
      }
    }
    expect_alike(context, Tensor::from({2}, std::vector<double>{result.loss, result.cross_entropy}),
                 "loss");
    const std::lock_guard lock(mutex);
    if (part.index == 0) whole.result = result;
    whole.gradients.resize(model.parameters().size());
    for (size_t i = 0; i < whole.gradients.size(); ++i) {
      const Parameter& parameter = *model.parameters()[i];
      Tensor& gradient = whole.gradients[i];
      if (!gradient) {
        gradient = nan_tensor(parameter.spec().shape, master_dtype(setting.dtype));
      }
      place(gradient, parameter.gradient().gradient(), parameter.rectangle());
    }
  });
  return whole;
}

// |got - want| / |want|, of the vectors.
double distance(const Tensor& got, const Tensor& want) {
  const std::vector<double> x = got.to_vector(), y = want.to_vector();
  double difference = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    size += y[i] * y[i];
  }
  return std::sqrt(difference / size);
}

void expect_same_pass(const Pass& got, const Pass& want, const std::string& what) {
  EXPECT_EQ(got.result.loss, want.result.loss) << what;
  for (size_t i = 0; i < want.gradients.size(); ++i) {
    expect_same_bits(got.gradients[i], want.gradients[i], what + fmt::format(", parameter {}", i));
  }
}

class ModelParallelT5 : public testing::TestWithParam<bool> {
 protected:
  ModelConfig config_ = t5_config(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Versions, ModelParallelT5, testing::Bool(),
                         [](const auto& info) { return info.param ? "v1_1" : "v1_0"; });

TEST_P(ModelParallelT5, AgreesWithOneRankInFullPrecision) {
  for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-13}, {DType::f32, 1e-5}}) {
    const Setting setting{config_, dtype};
    const Pass want = pass(setting, 1);
    for (const int64_t ranks : kRanks) {
      SCOPED_TRACE(fmt::format("{} on {} ranks", dtype_name(dtype), ranks));
      const Pass got = pass(setting, ranks);
      EXPECT_NEAR(got.result.loss, want.result.loss, tolerance * want.result.loss);
      EXPECT_EQ(got.result.sums.correct, want.result.sums.correct);
      EXPECT_EQ(got.result.sums.targets, want.result.sums.targets);
      for (size_t i = 0; i < want.gradients.size(); ++i) {
        EXPECT_LT(distance(got.gradients[i], want.gradients[i]), tolerance)
            << parameter_specs(config_)[i].name;
      }
    }
  }
}

// bf16 rounds activations to 8 bits, so that any other order of sums changes some of them, and some
// fall to the other side of a ReLU. What can be asked is the loss, and that gradients are about as
// far from those of f64 as one rank's; the distances of single parameters vary.
TEST_P(ModelParallelT5, IsAsGoodAsOneRankInBf16) {
  constexpr int64_t kRows = 64;
  const Setting setting{config_, DType::bf16, {}, kRows};
  const Pass exact = pass({config_, DType::f64, {}, kRows}, 1), want = pass(setting, 1);
  for (const int64_t ranks : kRanks) {
    SCOPED_TRACE(fmt::format("{} ranks", ranks));
    const Pass got = pass(setting, ranks);
    EXPECT_NEAR(got.result.loss, want.result.loss, 2e-3 * want.result.loss);
    double sum = 0, one_rank_sum = 0;
    for (size_t i = 0; i < want.gradients.size(); ++i) {
      const double far = distance(got.gradients[i], exact.gradients[i]);
      const double one_rank = distance(want.gradients[i], exact.gradients[i]);
      EXPECT_LT(far, 3 * one_rank) << parameter_specs(config_)[i].name;
      sum += far, one_rank_sum += one_rank;
    }
    EXPECT_LT(sum, 1.5 * one_rank_sum);
  }
}

TEST_P(ModelParallelT5, GivesTheSameBitsTwiceAndRecomputed) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Setting setting{config_, dtype};
    const Pass kept = pass(setting, 2);
    expect_same_pass(pass(setting, 2), kept, "again");
    for (const Recompute recompute : {Recompute::layer, Recompute::full}) {
      setting.options.recompute = recompute;
      expect_same_pass(pass(setting, 2), kept, "recomputed");
    }
  }
}

// Fedus et al. 2022, section 5.2: each sublayer sums its rows over the model ranks once forward and
// once backward. Besides: both embeddings forward, the encoder's output and the output layer's
// input backward, and five numbers of each target.
TEST_P(ModelParallelT5, SendsWhatTheFormulaSays) {
  const Rows rows(4);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t ranks : kRanks) {
      on_model_ranks(ranks, [&](Context& context, MeshPart) {
        Model model(config_, dtype, {}, *context.mesh);
        model.initialize(5);
        const ForwardResult result =
            model.forward(context, make_model_input(rows.rows, config_.conventions));
        context.tape->backward();
        const int64_t encoder = 44 * config_.d_model * element_bytes(dtype);
        const int64_t decoder = 28 * config_.d_model * element_bytes(dtype);
        const int64_t encoder_sums = 2 * 2 * config_.encoder_layers + 2;
        const int64_t decoder_sums = 2 * 3 * config_.decoder_layers + 2;
        const int64_t statistics =
            result.sums.targets * kernels::kCrossEntropyStatistics * element_bytes(DType::f64);
        const int64_t steps = ranks == 2 ? 1 : 2;
        const CommVolume want{
            (2 * (encoder_sums + decoder_sums) + 1) * steps,
            2 * (encoder_sums * encoder + decoder_sums * decoder) * (ranks - 1) / ranks +
                statistics * (ranks - 1)};
        const CommVolume got = context.mesh->model().volume();
        EXPECT_EQ(got.messages, want.messages) << dtype_name(dtype) << ", ranks " << ranks;
        EXPECT_EQ(got.bytes, want.bytes) << dtype_name(dtype) << ", ranks " << ranks;
      });
    }
  }
}

TEST_P(ModelParallelT5, GathersLogits) {
  Setting setting{config_, DType::f32};
  setting.options.want_logits = true;
  const Pass want = pass(setting, 1), got = pass(setting, 4);
  EXPECT_LT(distance(got.result.logits, want.result.logits), 1e-5);
}

TEST(ModelParallelT5Errors, SizesThatDoNotDivideAreUsageErrorsThatNameTheParameter) {
  const auto message = [](void (*change)(ModelConfig&)) {
    ModelConfig config = t5_config(true);
    change(config);
    std::string text;
    on_model_ranks(2, [&](Context& context, MeshPart part) {
      try {
        const Model model(config, DType::f32, {}, *context.mesh);
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::usage);
        if (part.index == 0) text = error.what();
      }
    });
    return text;
  };
  EXPECT_EQ(message([](ModelConfig&) {}), "");
  EXPECT_EQ(message([](ModelConfig& c) { c.heads = 3; }),
            "mesh data=1,expert=1,model=2: dimension 0 of 'encoder/block_000/attn/relative_bias' "
            "is 3, which model=2 does not divide");
  EXPECT_EQ(message([](ModelConfig& c) { c.d_ff = 41; }),
            "mesh data=1,expert=1,model=2: dimension 1 of 'encoder/block_000/mlp/wi_0' is 41, "
            "which model=2 does not divide");
  EXPECT_EQ(message([](ModelConfig& c) { c.vocab_size = 97; }),
            "mesh data=1,expert=1,model=2: dimension 0 of 'shared/embedding' is 97, which model=2 "
            "does not divide");
}

}  // namespace
}  // namespace sw::test
