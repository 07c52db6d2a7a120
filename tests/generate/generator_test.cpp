#include "libswitch/generate/generator.h"

#include <gtest/gtest.h>

#include <mutex>

#include "libswitch/generate/decoder.h"
#include "libswitch/tensor/allocator.h"
#include "tests/support/kernel_case.h"
#include "tests/support/mesh_case.h"

namespace sw {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 64, config.d_model = 16, config.d_kv = 5, config.heads = 2, config.d_ff = 36;
  config.encoder_layers = config.decoder_layers = 4;
  config.experts = 4;
  config.init_scale = 3;
  return config;
}

// Prompts of many lengths, the end included.
std::vector<std::vector<int32_t>> prompts(int count) {
  std::vector<std::vector<int32_t>> out;
  for (int i = 0; i < count; ++i) {
    std::vector<int32_t> ids;
    for (int j = 0; j < i * 5 % 13; ++j) ids.push_back(2 + (i * 17 + j * 7 + i * j) % 62);
    ids.push_back(1);
    out.push_back(ids);
  }
  return out;
}

// Logits of the answer `tokens` to one prompt by the whole model at once.
Tensor whole_pass(const Model& model, const std::vector<int32_t>& prompt,
                  const std::vector<int32_t>& tokens) {
  TokenRows rows;
  rows.rows = 1;
  rows.input_length = static_cast<int64_t>(prompt.size());
  rows.target_length = static_cast<int64_t>(tokens.size());
  rows.inputs = prompt, rows.targets = tokens;
  Context context;
  ForwardOptions options;
  options.want_logits = true;
  return model.forward(context, make_model_input(rows, model.config().conventions), options).logits;
}

// Cached steps against whole passes, three prompts side by side.
void check_steps(ModelConfig config, DType compute, double tolerance) {
  config.conventions.capacity = CapacityRule::unlimited;
  Model model(config, compute);
  model.initialize(5);
  const DecodingWeights weights = packed_for_steps(weights_of(model));
  const auto experts = experts_of(model);
  SparseLayers sparse(config, compute, *experts, single_mesh(), false, 0);
  Decoder decoder(config, weights, sparse);
  const auto texts = prompts(3);
  const std::vector<std::span<const int32_t>> spans(texts.begin(), texts.end());
  const std::vector<uint64_t> ordinals{0, 1, 2};
  decoder.begin(encode(config, weights, sparse, spans, ordinals));
  const int64_t steps = 40;  // beyond the caches' first size
  std::vector<std::vector<int32_t>> tokens(3);
  for (int64_t t = 0; t < steps; ++t) {
    for (size_t i = 0; i < 3; ++i) {
      tokens[i].push_back(2 + static_cast<int32_t>((t * 11 + static_cast<int64_t>(i) * 5) % 60));
    }
  }
  std::vector<Tensor> want;
  double largest = 0;
  for (size_t i = 0; i < 3; ++i) {
    want.push_back(whole_pass(model, texts[i], tokens[i]));
    for (const double x : want.back().to_vector()) largest = std::max(largest, std::abs(x));
  }
  for (int64_t t = 0; t < steps; ++t) {
    std::vector<int32_t> in;
    for (size_t i = 0; i < 3; ++i) in.push_back(t == 0 ? 0 : tokens[i][static_cast<size_t>(t - 1)]);
    const Tensor& logits = decoder.step(std::vector<int32_t>{0, 1, 2}, in);
    for (int64_t i = 0; i < 3; ++i) {
      test::expect_close(logits.slice(i, i + 1).clone(),
                         want[static_cast<size_t>(i)].slice(t, t + 1).clone(),
                         {0, tolerance * largest}, fmt::format("prompt {} step {}", i, t));
    }
  }
}

TEST(Decoder, CachedStepsGiveTheLogitsOfAWholePass) {
  check_steps(small_config(), DType::f32, 1e-5);
}

TEST(Decoder, CachedStepsOfAGatedUntiedModelToo) {
  ModelConfig config = small_config();
  config.experts = 0;
  config.activation = Activation::geglu;
  config.tied_embeddings = false;
  config.relative_buckets = 8, config.relative_max_distance = 16;
  check_steps(config, DType::f32, 1e-5);
}

TEST(Decoder, CachedStepsOfTop2ExpertsToo) {
  ModelConfig config = small_config();
  config.router = "top2";
  config.second_policy = "all";
  check_steps(config, DType::f32, 1e-5);
}

TEST(Decoder, CachedStepsInBf16KeepItsPrecision) {
  // Dense: with experts, a rounding may send a token elsewhere.
  ModelConfig config = small_config();
  config.experts = 0;
  check_steps(config, DType::bf16, 0.03);  // activations of the whole pass are rounded to 2^-8
}

std::vector<GenerateOptions> kinds() {
  std::vector<GenerateOptions> all(3);
  for (GenerateOptions& options : all) options.max_length = 12;
  all[1].beam = 4;
  all[2].temperature = 1, all[2].top_k = 20, all[2].seed = 9;
  return all;
}

TEST(Generator, AnAnswerDoesNotDependOnItsBatchMates) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const char* router : {"switch", "top2"}) {
      ModelConfig config = small_config();
      config.router = router;
      Model model(config, compute);
      model.initialize(5);
      const auto texts = prompts(23);
      for (GenerateOptions options : kinds()) {
        options.batch = 23;
        const auto together = Generator(model, options).generate(texts);
        for (const int64_t batch : {1, 4}) {
          options.batch = batch;
          EXPECT_EQ(Generator(model, options).generate(texts), together) << router;
        }
        Generator alone(model, options);
        for (size_t i = 0; i < texts.size(); i += 5) {
          EXPECT_EQ(alone.generate(std::span(texts).subspan(i, 1), i)[0], together[i]);
        }
      }
    }
  }
}

TEST(Generator, AnswersHaveTheSameBitsOnAnyNumberOfThreads) {
  Model model(small_config(), DType::f32);
  model.initialize(5);
  for (const GenerateOptions& options : kinds()) {
    std::vector<std::vector<Answer>> answers;
    for (const int threads : {1, 2, 3}) {
      const test::ThreadsScope scope(threads);
      answers.push_back(Generator(model, options).generate(prompts(9)));
    }
    EXPECT_EQ(answers[0], answers[1]);
    EXPECT_EQ(answers[0], answers[2]);
  }
}

TEST(Generator, EveryMeshGivesTheAnswersOfOneRank) {
  const ModelConfig config = small_config();
  Model model(config, DType::f32);
  model.initialize(5);
  const auto texts = prompts(11);
  for (GenerateOptions options : kinds()) {
    options.batch = 3;
    const auto want = Generator(model, options).generate(texts);
    for (const MeshShape& shape : testing::all_meshes()) {
      std::mutex mutex;
      int ranks = 0;
      testing::on_mesh(shape, [&](const Mesh& mesh) {
        Model part(config, DType::f32, {}, mesh);
        part.initialize(5);
        const auto got = Generator(part, options).generate(texts);
        const std::lock_guard lock(mutex);
        EXPECT_EQ(got, want) << shape.str();
        ++ranks;
      });
      EXPECT_EQ(ranks, shape.ranks());
    }
  }
}

TEST(Generator, UnderTheCapacityRuleTokensAreDropped) {
  ModelConfig config = small_config();
  config.eval_capacity_factor = 0.1, config.min_capacity = 1;
  Model model(config, DType::f32);
  model.initialize(5);
  GenerateOptions options;
  options.max_length = 8;
  const auto dropless = Generator(model, options).generate(prompts(9));
  options.use_capacity = true;
  EXPECT_NE(Generator(model, options).generate(prompts(9)), dropless);
}

TEST(Generator, RefusesPromptsThatTheModelCannotRead) {
  Model model(small_config(), DType::f32);
  model.initialize(5);
  Generator generator(model, {});
  const std::vector<std::vector<int32_t>> empty{{1}, {}};
  const std::vector<std::vector<int32_t>> unknown{{64, 1}};
  EXPECT_THROW(generator.generate(empty), Error);
  EXPECT_THROW(generator.generate(unknown), Error);
  EXPECT_TRUE(generator.generate({}).empty());
}

TEST(Generator, ItsMemoryIsKnownBefore) {
  for (const int64_t experts : {0, 4}) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const int64_t beam : {1, 4}) {
        ModelConfig config = small_config();
        config.vocab_size = 2048, config.d_model = 64, config.d_kv = 16, config.heads = 4;
        config.d_ff = 256, config.experts = experts;
        GenerateOptions options;
        options.beam = beam, options.batch = 16, options.max_length = 48;
        std::vector<std::vector<int32_t>> texts(16);
        for (size_t i = 0; i < texts.size(); ++i) {
          for (int32_t j = 0; j < 63; ++j) {
            texts[i].push_back(2 + (static_cast<int32_t>(i) * 31 + j * 7) % 2000);
          }
          texts[i].push_back(1);
        }
        const auto expected = static_cast<double>(generation_bytes(config, compute, options, 64));
        Model model(config, compute);
        model.initialize(5);
        const int64_t before = allocator_stats().in_use_bytes;
        reset_peak();
        Generator(model, options).generate(texts);
        const auto peak = static_cast<double>(allocator_stats().peak_bytes - before);
        EXPECT_NEAR(expected / peak, 1, 0.15)
            << experts << " experts, " << dtype_name(compute) << ", " << beam
            << " beams: " << expected << " bytes expected, " << peak;
      }
    }
  }
}

}  // namespace
}  // namespace sw
