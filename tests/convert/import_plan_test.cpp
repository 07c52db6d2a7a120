#include "libswitch/convert/import_plan.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "libswitch/base/error.h"
#include "libswitch/base/rng.h"
#include "libswitch/nn/model_options.h"

namespace sw {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Names and shapes of a model, without a byte of it.
class NamesAndShapes : public TensorArchive {
 public:
  NamesAndShapes(const ModelConfig& config, HfFamily family, const std::string& head) {
    for (const ParameterSpec& spec : parameter_specs(config)) {
      for (const HfTensor& theirs : hf_tensors(spec.name, family, config.experts)) {
        Shape shape = spec.shape;
        if (theirs.expert >= 0) shape = Shape(spec.shape.begin() + 1, spec.shape.end());
        if (theirs.transpose) shape = Shape{shape[1], shape[0]};
        tensors_.push_back({spec.name == "lm_head" ? head : theirs.name, ElementType::bf16, shape,
                            tensors_.size()});
      }
    }
    sort();
  }
  std::vector<ArchiveTensor>& mutable_tensors() { return tensors_; }
  void sort() {
    std::sort(tensors_.begin(), tensors_.end(),
              [](const ArchiveTensor& a, const ArchiveTensor& b) { return a.name < b.name; });
    tensors_.erase(std::unique(tensors_.begin(), tensors_.end(),
                               [](const ArchiveTensor& a, const ArchiveTensor& b) {
                                 return a.name == b.name;
                               }),
                   tensors_.end());
  }
  // The head is another tensor than the embedding.
  void read_rows(size_t tensor, int64_t begin, int64_t end, void* out) const override {
    const ArchiveTensor& t = tensors_[tensor];
    std::fill_n(static_cast<char*>(out), t.bytes() / t.rows() * (end - begin),
                static_cast<char>(tensor));
  }
  std::string file_of(size_t) const override { return "weights"; }
};

// The checkpoints that were published, as their tensors lie; config.json says what it said in 2023
// or what transformers would assume.
TEST(ImportPlan, FindsTheStructureOfEveryPublishedCheckpoint) {
  const struct {
    const char* preset;
    HfFamily family;
    const char* head;
    nlohmann::json config;
    int64_t parameters;
  } cases[] = {
      {"switch-base-8",
       HfFamily::switch_transformers,
       "lm_head.weight",
       {{"model_type", "switch_transformers"},
        {"d_ff", 3072},
        {"num_sparse_encoder_layers", 6},
        {"num_sparse_decoder_layers", 6}},
       619'339'008},
      {"switch-base-256",
       HfFamily::switch_transformers,
       "lm_head.weight",
       {{"model_type", "switch_transformers"}},
       14'664'154'368},
      {"switch-large-128",
       HfFamily::switch_transformers,
       "lm_head.weight",
       {{"model_type", "switch_transformers"}},
       26'309'291'008},
      {"switch-xxl-128",
       HfFamily::switch_transformers,
       "decoder.lm_head.weight",
       {{"model_type", "switch_transformers"}, {"num_layers", 24}, {"num_decoder_layers", 24}},
       394'675'073'024},
      {"switch-c-2048",
       HfFamily::switch_transformers,
       "decoder.lm_head.weight",
       {{"model_type", "switch_transformers"}, {"num_layers", 12}},
       1'571'327'875'360},
      {"t5-base", HfFamily::t5, "lm_head.weight", {{"model_type", "t5"}}, 0},
      {"t5-v1.1-large",
       HfFamily::t5,
       "lm_head.weight",
       {{"model_type", "t5"}, {"tie_word_embeddings", false}},
       0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.preset);
    ModelConfig model = model_config_of_preset(c.preset);
    model.vocab_size = 32128;
    const NamesAndShapes archive(model, c.family, c.head);
    const ImportPlan plan(archive, read_hugging_face_config(c.config, "config.json"),
                          "config.json");
    if (c.parameters > 0) {
      EXPECT_EQ(count_parameters(plan.model()).total, c.parameters);
    }
    EXPECT_EQ(count_parameters(plan.model()).total, count_parameters(model).total);
    EXPECT_EQ(plan.model().activation, model.activation);
    EXPECT_EQ(plan.model().tied_embeddings, model.tied_embeddings);
    EXPECT_EQ(plan.model().experts, model.experts);
    for (int64_t i = 0; i < model.encoder_layers; ++i) {
      EXPECT_EQ(plan.model().encoder_layer_is_sparse(i), model.encoder_layer_is_sparse(i));
    }
    EXPECT_EQ(plan.model().heads, model.heads);
  }
}

TEST(ImportPlan, SaysNothingWhereConfigurationAndTensorsAgree) {
  ModelConfig model = model_config_of_preset("switch-base-8");
  model.vocab_size = 32128;
  const NamesAndShapes archive(model, HfFamily::switch_transformers, "lm_head.weight");
  const nlohmann::json config = {{"model_type", "switch_transformers"},
                                 {"d_ff", 3072},
                                 {"num_sparse_encoder_layers", 6},
                                 {"num_sparse_decoder_layers", 6}};
  EXPECT_THAT(ImportPlan(archive, read_hugging_face_config(config, "c"), "c").notes(), IsEmpty());
  const nlohmann::json defaults = {{"model_type", "switch_transformers"}};
  const ImportPlan plan(archive, read_hugging_face_config(defaults, "c"), "c");
  EXPECT_THAT(plan.notes(), Contains(HasSubstr("encoder_sparse_step is 4")));
}

// Whatever names, shapes and keys say, the answer is a model or a refusal.
TEST(ImportPlan, SurvivesRandomDamage) {
  ModelConfig model = model_config_of_preset("tiny");
  model.vocab_size = 40, model.d_model = 8, model.d_ff = 6, model.d_kv = 4;
  const NamesAndShapes whole(model, HfFamily::switch_transformers, "lm_head.weight");
  const nlohmann::json config = {{"model_type", "switch_transformers"},
                                 {"num_layers", 2},
                                 {"num_decoder_layers", 2},
                                 {"encoder_sparse_step", 2},
                                 {"decoder_sparse_step", 2},
                                 {"d_kv", 4},
                                 {"num_experts", 8},
                                 {"tie_word_embeddings", true},
                                 {"dropout_rate", 0.1},
                                 {"dense_act_fn", "relu"},
                                 {"layer_norm_epsilon", 1e-6}};
  const nlohmann::json values[] = {nullptr,
                                   -1,
                                   0,
                                   1,
                                   3,
                                   1'000'000'000'000,
                                   0.5,
                                   -1e300,
                                   true,
                                   "x",
                                   "gated-gelu",
                                   nlohmann::json::array(),
                                   nlohmann::json::object()};
  constexpr int64_t kSizes[] = {0, 1, 2, 3, 7, 8, 40, int64_t{1} << 31, int64_t{1} << 60};
  RngStream random(rng_key(3, RngPurpose::test));
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    NamesAndShapes archive = whole;
    std::vector<ArchiveTensor>& tensors = archive.mutable_tensors();
    nlohmann::json damaged = config;
    for (uint64_t edits = 1 + random.below(3); edits > 0; --edits) {
      ArchiveTensor& tensor = tensors[random.below(tensors.size())];
      auto key = damaged.begin();
      switch (random.below(6)) {
        case 0:
          tensor.name[random.below(tensor.name.size())] = "0129.eltw_"[random.below(10)];
          break;
        case 1: tensor.name = tensors[random.below(tensors.size())].name + ".weight"; break;
        case 2:
          tensor.shape = Shape();
          for (uint64_t rank = random.below(5); rank > 0; --rank) {
            tensor.shape.push_back(kSizes[random.below(std::size(kSizes))]);
          }
          if (checked_bytes(tensor.shape, tensor.type) < 0) tensor.shape = Shape{0};
          break;
        case 3: tensor.type = static_cast<ElementType>(random.below(22)); break;
        case 4:
          if (tensors.size() > 1)
            tensors.erase(tensors.begin() + static_cast<long>(random.below(tensors.size())));
          break;
        default:
          std::advance(key, static_cast<long>(random.below(damaged.size())));
          *key = values[random.below(std::size(values))];
      }
    }
    archive.sort();
    try {
      const ImportPlan plan(archive, read_hugging_face_config(damaged, "c"), "c");
      write_hugging_face_config(plan.model(), plan.family(), nullptr, "float32");
      ++accepted;
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == ErrorKind::corrupt || error.kind() == ErrorKind::usage)
          << error.what();
    }
  }
  EXPECT_GT(accepted, 50);
}

// (i mod step == 1) or every layer; a count of 0 still makes layer 1 sparse, or the only one.
TEST(HuggingFaceConfig, DerivesSparseLayersAsTheLibraryDoes) {
  const auto sparse = [](nlohmann::json keys) {
    keys["model_type"] = "switch_transformers";
    const ModelConfig model = read_hugging_face_config(keys, "c").model;
    std::vector<int64_t> layers;
    for (int64_t i = 0; i < model.encoder_layers; ++i) {
      if (model.encoder_layer_is_sparse(i)) layers.push_back(i);
    }
    return layers;
  };
  using Layers = std::vector<int64_t>;
  EXPECT_EQ(sparse({}), (Layers{1, 5, 9}));
  EXPECT_EQ(sparse({{"num_sparse_encoder_layers", 6}}), (Layers{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(sparse({{"num_sparse_encoder_layers", 6}, {"encoder_sparse_step", 3}}),
            (Layers{1, 4, 7, 10}));
  EXPECT_EQ(sparse({{"num_layers", 3}, {"num_sparse_encoder_layers", 3}}), (Layers{0, 1, 2}));
  EXPECT_EQ(sparse({{"num_layers", 3}, {"num_sparse_encoder_layers", 0}}), (Layers{1}));
  EXPECT_EQ(sparse({{"num_layers", 1}, {"num_sparse_encoder_layers", 0}}), (Layers{0}));
  EXPECT_EQ(sparse({{"num_layers", 3}, {"encoder_sparse_step", 0}}), (Layers{}));
  EXPECT_EQ(sparse({{"num_layers", 2}, {"num_sparse_encoder_layers", 3}}), (Layers{}));
}

TEST(HuggingFaceConfig, KnowsTheDefaultsOfBothFamilies) {
  const auto read = [](nlohmann::json keys, const char* type) {
    keys["model_type"] = type;
    return read_hugging_face_config(keys, "c");
  };
  const ModelConfig sw = read({}, "switch_transformers").model;
  EXPECT_EQ(sw.decoder_layers, 12);
  EXPECT_EQ(sw.expert_capacity, 64);
  EXPECT_EQ(sw.aux_loss, 0.001);
  EXPECT_EQ(read({{"num_layers", 7}}, "switch_transformers").model.decoder_layers, 12);
  EXPECT_EQ(read({{"num_layers", 7}, {"num_decoder_layers", nullptr}}, "switch_transformers")
                .model.decoder_layers,
            7);
  EXPECT_EQ(read({{"num_layers", 7}}, "t5").model.decoder_layers, 7);
  EXPECT_EQ(read({{"feed_forward_proj", "gated-gelu"}}, "t5").model.activation, Activation::geglu);
  EXPECT_EQ(read({{"feed_forward_proj", "gated-silu"}}, "t5").model.activation, Activation::swiglu);
  EXPECT_EQ(read({{"feed_forward_proj", "gated-relu"}}, "t5").model.activation, Activation::reglu);
  EXPECT_EQ(read({{"feed_forward_proj", "gelu"}}, "t5").model.activation, Activation::gelu);
  EXPECT_EQ(read({{"dense_act_fn", "swish"}}, "switch_transformers").model.activation,
            Activation::silu);
  // transformers' Switch knows dense_act_fn alone.
  EXPECT_EQ(
      read({{"dense_act_fn", "relu"}, {"feed_forward_proj", "gated-gelu"}}, "switch_transformers")
          .model.activation,
      Activation::relu);
  EXPECT_THROW(read({{"dense_act_fn", "tanh"}}, "switch_transformers"), Error);
  EXPECT_TRUE(read({}, "t5").scaled_logits);
  EXPECT_FALSE(read({{"tie_word_embeddings", false}}, "t5").scaled_logits);
  EXPECT_FALSE(read({{"scale_decoder_outputs", false}}, "t5").scaled_logits);
}

}  // namespace
}  // namespace sw
