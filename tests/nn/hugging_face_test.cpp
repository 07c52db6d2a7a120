// Numbers that Hugging Face transformers 4.57.6 gives for models whose weights follow from the
// tensors' names.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/oracle/oracle.h"

namespace sw {
namespace {

constexpr double kRelative = 2e-5;  // float32 against float32, other order of sums

struct Numbers {
  double loss, cross_entropy;
  std::vector<double> first_logits, last_logits;  // [0,0,:4], [1,3,36:]
  double sum, sum_of_squares, gradient_l2;
};

const std::vector<int32_t> kIds = {30, 21, 23, 30, 13, 2, 10, 3,  31, 24, 36, 1,
                                   18, 29, 10, 39, 33, 8, 11, 28, 1,  0,  0,  0};
const std::vector<uint8_t> kMask = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                    1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0};
const std::vector<int32_t> kLabels = {31, 35, 3, 22, 18, 8, 1, 11, 33, 37, 39, 1, -100, -100};

ModelConfig small_config() {
  ModelConfig config;
  config.conventions = conventions_preset("hf");
  config.vocab_size = 40, config.d_model = 16, config.d_kv = 6, config.heads = 3, config.d_ff = 20;
  config.relative_buckets = 8, config.relative_max_distance = 16;
  config.output_z_loss = 0, config.jitter = 0;
  return config;
}

ModelConfig switch_config(int64_t capacity, DroppedGate dropped) {
  ModelConfig config = small_config();
  config.encoder_layers = config.decoder_layers = 4;
  config.experts = 4;
  config.expert_capacity = capacity;
  config.router_z_loss = 0.001, config.aux_loss = 0.01;
  config.conventions.dropped_gate = dropped;
  return config;
}

struct Passed {
  Passed(const ModelConfig& config, HfFamily family) : model(config, DType::f32) {
    oracle::fill_weights(model, family, 1.0, "");
    TokenRows rows;
    rows.rows = 2, rows.input_length = 12, rows.target_length = 7;
    rows.inputs = kIds, rows.targets = kLabels, rows.input_mask = kMask;
    rows.first_target_id = 0;
    Tape tape;
    Context context;
    context.tape = &tape;
    result =
        model.forward(context, make_model_input(rows, config.conventions), {Recompute::none, true});
    tape.backward();
  }
  double gradient(const char* name) const {
    double squares = 0;
    for (const double g : model.find(name)->gradient().gradient().to_vector()) squares += g * g;
    return std::sqrt(squares);
  }
  Model model;
  ForwardResult result;
};

void expect_relative(double got, double expected, double tolerance, const char* what) {
  EXPECT_NEAR(got, expected, tolerance * std::abs(expected)) << what;
}

void check(const Passed& run, const Numbers& expected) {
  expect_relative(run.result.loss, expected.loss, kRelative, "loss");
  expect_relative(run.result.cross_entropy, expected.cross_entropy, kRelative, "cross-entropy");
  const std::vector<double> logits = run.result.logits.to_vector();
  double largest = 0, sum = 0, squares = 0;
  for (const double x : logits) {
    largest = std::max(largest, std::abs(x));
    sum += x, squares += x * x;
  }
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(logits[i], expected.first_logits[i], kRelative * largest) << i;
    EXPECT_NEAR(logits[(7 + 3) * 40 + 36 + i], expected.last_logits[i], kRelative * largest) << i;
  }
  EXPECT_NEAR(sum, expected.sum, 1e-4 * std::abs(expected.sum));
  expect_relative(squares, expected.sum_of_squares, 1e-4, "sum of squares");
  expect_relative(oracle::gradient_norm(run.model), expected.gradient_l2, 1e-4, "gradient");
}

// "21121-3-33--": experts of a row, '-' for a dropped token.
std::string routing(const ForwardResult& result, size_t layer, int64_t row) {
  const RoutingPlan& plan = result.layers[layer].routing->plan;
  const int64_t length = plan.tokens / 2;
  std::string text;
  for (int64_t i = row * length; i < (row + 1) * length; ++i) {
    const bool kept = plan.slot.data<int32_t>()[i] >= 0;
    text += kept ? static_cast<char>('0' + plan.expert.data<int32_t>()[i]) : '-';
  }
  return text;
}

TEST(HuggingFace, SwitchWithBindingCapacityAgrees) {
  const Passed run(switch_config(3, DroppedGate::zero), HfFamily::switch_transformers);
  check(run, {4.3153319,
              4.2668700,
              {0.570273, -0.228463, -0.797131, -0.758704},
              {0.426061, 0.085138, -0.509021, -0.425344},
              -7.70019,
              203.5613,
              3.520456});
  expect_relative(run.result.encoder_z, 12.4751806, kRelative, "encoder z");
  expect_relative(run.result.decoder_z, 13.6933908, kRelative, "decoder z");
  expect_relative(run.result.encoder_aux, 1.0391924, kRelative, "encoder aux");
  expect_relative(run.result.decoder_aux, 1.1901579, kRelative, "decoder aux");
  EXPECT_EQ(routing(run.result, 0, 0), "21121-3-33--");
  EXPECT_EQ(routing(run.result, 0, 1), "2122--11----");
  EXPECT_EQ(routing(run.result, 1, 0), "1021020--2--");
  EXPECT_EQ(routing(run.result, 1, 1), "20233003----");
  EXPECT_EQ(routing(run.result, 2, 0), "1131-3-");
  EXPECT_EQ(routing(run.result, 2, 1), "1113332");
  EXPECT_EQ(routing(run.result, 3, 0), "332232-");
  EXPECT_EQ(routing(run.result, 3, 1), "1121-22");
  expect_relative(run.gradient("shared/embedding"), 0.763120, 1e-4, "shared");
  expect_relative(run.gradient("encoder/block_000/attn/q"), 1.237105, 1e-4, "q");
  expect_relative(run.gradient("encoder/block_000/attn/relative_bias"), 0.134911, 1e-4, "bias");
  expect_relative(run.gradient("encoder/block_001/moe/router"), 0.040864, 1e-4, "router");
  expect_relative(run.gradient("encoder/final_norm"), 0.279881, 1e-4, "final norm");
  expect_relative(run.gradient("decoder/block_000/cross/k"), 0.328674, 1e-4, "cross k");
  expect_relative(run.gradient("decoder/block_001/moe/router"), 0.049341, 1e-4, "router");
  expect_relative(run.gradient("decoder/block_002/mlp/wo"), 0.146817, 1e-4, "wo");
  EXPECT_EQ(count_parameters(run.model.config()).total, 27920);
}

TEST(HuggingFace, DroppedTokensOfOldReleasesAgree) {
  const Passed run(switch_config(3, DroppedGate::kept), HfFamily::switch_transformers);
  check(run, {4.3252544,
              4.2762904,
              {0.498837, -0.291483, -0.804430, -0.735609},
              {0.439395, 0.064273, -0.504091, -0.434150},
              -8.06476,
              205.7715,
              3.783942});
  expect_relative(run.result.encoder_z, 12.4145403, kRelative, "encoder z");
  expect_relative(run.result.decoder_aux, 1.2312613, kRelative, "decoder aux");
  expect_relative(run.gradient("shared/embedding"), 0.803778, 1e-4, "shared");
  expect_relative(run.gradient("encoder/block_001/moe/router"), 0.053067, 1e-4, "router");
}

TEST(HuggingFace, SwitchWithRoomForAllAgreesWhateverDroppedTokensGive) {
  for (const DroppedGate dropped : {DroppedGate::zero, DroppedGate::kept}) {
    const Passed run(switch_config(64, dropped), HfFamily::switch_transformers);
    check(run, {4.2076173,
                4.1578994,
                {0.293650, -0.013341, -0.372620, 0.143187},
                {0.429954, 0.068628, -0.538977, -0.426050},
                9.81360,
                190.1959,
                3.465500});
    expect_relative(run.result.encoder_aux, 1.1820985, kRelative, "encoder aux");
    expect_relative(run.result.decoder_aux, 1.4000607, kRelative, "decoder aux");
    expect_relative(run.gradient("encoder/block_001/moe/router"), 0.059041, 1e-4, "router");
  }
}

TEST(HuggingFace, DenseT5Agrees) {
  ModelConfig config = small_config();
  config.encoder_layers = 2, config.decoder_layers = 3;
  const Passed relu(config, HfFamily::t5);
  check(relu, {3.9664085,
               3.9664085,
               {0.617138, 0.574129, 0.175578, -0.411756},
               {0.267351, 0.465123, -0.545604, 0.235170},
               16.08384,
               154.5253,
               3.092761});
  EXPECT_EQ(count_parameters(config).total, 13344);
  expect_relative(relu.gradient("encoder/block_001/mlp/wi"), 0.322638, 1e-4, "wi");

  config.activation = Activation::geglu;
  config.tied_embeddings = false;
  const Passed geglu(config, HfFamily::t5);
  check(geglu, {6.6923161,
                6.6923161,
                {-3.330825, 2.545570, 0.194311, -3.780840},
                {3.666467, -0.831056, 1.589682, -0.238167},
                61.03338,
                2603.0856,
                15.530528});
  EXPECT_EQ(count_parameters(config).total, 15584);
  expect_relative(geglu.gradient("lm_head"), 1.409259, 1e-4, "head");
  expect_relative(geglu.gradient("encoder/block_001/mlp/wi_1"), 1.531419, 1e-4, "wi_1");
}

}  // namespace
}  // namespace sw
