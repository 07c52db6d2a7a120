#include "libswitch/convert/conversion.h"

#include <gmock/gmock.h>

#include "libswitch/convert/layout.h"
#include "tests/convert/model_samples.h"

namespace sw {
namespace {

using test::small_switch;
using test::small_t5;
using test::TemporaryFolder;
using test::write_model;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A model as checkpoint a.h5 and as folder hf.
class Conversion : public ::testing::Test {
 protected:
  void export_model(const ModelConfig& config,
                    const std::function<DType(const std::string&)>& dtype_of = {}) {
    write_model(root_ / "a.h5", config, dtype_of);
    convert_to_hugging_face(CheckpointReader(root_ / "a.h5"), hf_, {});
  }
  ConversionReport import_model() {
    ConversionOptions options;
    options.replace = true;
    return convert_from_hugging_face(hf_, root_ / "b.h5", options);
  }
  std::string import_error() {
    try {
      import_model();
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::internal) << error.what();
      EXPECT_FALSE(std::filesystem::exists(root_ / "b.h5"));
      return error.what();
    }
    return "accepted";
  }
  void change(const std::function<void(test::LooseTensors&)>& edit) {
    test::LooseTensors tensors = test::load_tensors(hf_);
    edit(tensors);
    test::save_tensors(hf_, tensors);
  }
  std::vector<std::string> structure_notes() {
    std::vector<std::string> notes = import_model().notes;
    std::erase_if(notes, [](const std::string& n) { return n.starts_with("no spiece.model"); });
    return notes;
  }
  std::string digest_a() { return CheckpointReader(root_ / "a.h5").digest(); }

  TemporaryFolder root_;
  std::filesystem::path hf_ = root_ / "hf";
};

TEST_F(Conversion, BackAndForthGivesEveryBitOfEveryKindOfModel) {
  std::vector<ModelConfig> configs = {
      small_switch(), small_t5(),     small_switch(), small_switch(), small_t5(),
      small_switch(), small_switch(), small_t5(),     small_switch(), small_t5()};
  configs[2].encoder_sparse_step = 1, configs[2].encoder_sparse_offset = 0;
  configs[2].decoder_sparse_step = configs[2].decoder_sparse_offset = 0;
  configs[3].encoder_sparse_step = 3, configs[3].encoder_sparse_offset = 1;
  configs[3].tied_embeddings = false, configs[3].router_bias = true;
  configs[4].activation = Activation::geglu, configs[4].tied_embeddings = false;
  configs[5].activation = Activation::geglu;
  configs[7].activation = Activation::swiglu, configs[8].activation = Activation::gelu_new;
  configs[9].activation = Activation::gelu;
  configs[6].encoder_layers = 1, configs[6].decoder_layers = 1;
  configs[6].encoder_sparse_step = 1, configs[6].encoder_sparse_offset = 0;
  configs[6].decoder_sparse_step = 1, configs[6].decoder_sparse_offset = 0;
  for (size_t i = 0; i < configs.size(); ++i) {
    SCOPED_TRACE(i);
    std::filesystem::remove_all(hf_);
    export_model(configs[i]);
    EXPECT_THAT(structure_notes(), IsEmpty());
    const CheckpointReader a(root_ / "a.h5"), b(root_ / "b.h5");
    EXPECT_EQ(a.digest(), b.digest());
    EXPECT_EQ(a.entries(), b.entries());
    EXPECT_EQ(a.meta().config_toml, b.meta().config_toml);
    EXPECT_THAT(compare_conversion(hf_, a, true, {}), IsEmpty());
    EXPECT_THAT(compare_conversion(hf_, b, false, {}), IsEmpty());
  }
}

TEST_F(Conversion, KeepsTheDtypeOfEachTensor) {
  export_model(small_switch(), [](const std::string& name) {
    return name.ends_with("router") ? DType::f32 : name.ends_with("/q") ? DType::f64 : DType::bf16;
  });
  const auto tensors = test::load_tensors(hf_);
  EXPECT_EQ(tensors.at("shared.weight").type, ElementType::bf16);
  EXPECT_EQ(tensors.at("encoder.block.1.layer.1.mlp.router.classifier.weight").type,
            ElementType::f32);
  EXPECT_EQ(read_json_file(hf_ / "config.json")["torch_dtype"], "bfloat16");
  import_model();
  EXPECT_EQ(CheckpointReader(root_ / "b.h5").digest(), digest_a());
}

TEST_F(Conversion, CutsFoldersIntoFilesOfTheSizeAskedFor) {
  write_model(root_ / "a.h5", small_switch());
  ConversionOptions options;
  options.max_shard_bytes = 1500;
  const CheckpointReader reader(root_ / "a.h5");
  const ConversionReport report = convert_to_hugging_face(reader, hf_, options);
  EXPECT_GT(report.files, 5);
  const nlohmann::json index = read_json_file(hf_ / "model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], report.bytes);
  std::map<std::string, int64_t> bytes;
  const auto archive = open_weights(hf_);
  for (const ArchiveTensor& tensor : archive->tensors()) {
    bytes[index["weight_map"][tensor.name]] += tensor.bytes();
  }
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), report.files);
  for (const auto& [file, size] : bytes) EXPECT_LE(size, 1500) << file;
  EXPECT_THAT(compare_conversion(hf_, reader, true, {}), IsEmpty());
}

TEST_F(Conversion, TakesTheStructureFromTheTensorsAndReportsEachDisagreement) {
  export_model(small_switch());
  test::edit_config(hf_, {{"num_layers", 12},
                          {"num_decoder_layers", nullptr},
                          {"num_experts", 8},
                          {"d_ff", 64},
                          {"num_heads", 3},
                          {"d_kv", 2},
                          {"vocab_size", 32128},
                          {"relative_attention_num_buckets", 32},
                          {"encoder_sparse_step", 4},
                          {"feed_forward_proj", "gated-gelu"},
                          {"dense_act_fn", "relu"},
                          {"is_gated_act", true},
                          {"router_dtype", "bfloat16"},
                          {"router_bias", true}});
  const std::vector<std::string> notes = structure_notes();
  for (const char* text :
       {"num_layers is 12, the tensors say 4", "num_decoder_layers is 12, the tensors say 3",
        "num_experts is 8, the tensors say 3", "d_ff is 64, the tensors say 10",
        "num_heads is 3, the tensors say 2", "d_kv is 2, the tensors say 3",
        "vocab_size is 32128, the tensors say 24",
        "relative_attention_num_buckets is 32, the tensors say 8",
        "encoder_sparse_step is 4, the tensors have 2 sparse layers of 4, the first being 1",
        "are gated, by the tensors they are not gated",
        "router_dtype is bfloat16; routers are computed in float32",
        "router_bias is true, the tensors say false"}) {
    EXPECT_THAT(notes, Contains(HasSubstr(text)));
  }
  EXPECT_EQ(notes.size(), 12u);
  EXPECT_EQ(CheckpointReader(root_ / "b.h5").digest(), digest_a());
}

// As of 2023: 15 layers of each stack where config.json said 12, all sparse, a head of its own
// under decoder.lm_head with tied embeddings by default, no aliases, bf16.
TEST_F(Conversion, LoadsTheLargestPublishedCheckpointsConfiguration) {
  ModelConfig config = small_switch();
  config.encoder_layers = config.decoder_layers = 5;
  config.encoder_sparse_step = config.decoder_sparse_step = 1;
  config.encoder_sparse_offset = config.decoder_sparse_offset = 0;
  config.tied_embeddings = false;
  export_model(config, [](const std::string&) { return DType::bf16; });
  change([](test::LooseTensors& t) {
    auto head = t.extract("lm_head.weight");
    head.key() = "decoder.lm_head.weight";
    t.insert(std::move(head));
  });
  test::edit_config(hf_, {{"num_layers", 12},
                          {"num_decoder_layers", 12},
                          {"encoder_sparse_step", nullptr},
                          {"decoder_sparse_step", nullptr},
                          {"num_sparse_encoder_layers", 6},
                          {"tie_word_embeddings", nullptr}});
  EXPECT_THAT(structure_notes(),
              Contains(HasSubstr("decoder.lm_head.weight is another tensor than shared.weight: it "
                                 "is the head, and logits are not scaled")));
  const CheckpointReader b(root_ / "b.h5");
  EXPECT_EQ(b.digest(), digest_a());
  EXPECT_FALSE(model_config_from_toml(b.meta().config_toml, "b").tied_embeddings);
  EXPECT_THAT(compare_conversion(hf_, b, false, {}), IsEmpty());
}

TEST_F(Conversion, KnowsAliasesPrefixesAndTensorsThatCarryNothing) {
  export_model(small_switch());
  change([](test::LooseTensors& t) {
    test::LooseTensors out;
    for (auto& [name, tensor] : t) out["switch_transformers." + name] = std::move(tensor);
    const auto shared = out.at("switch_transformers.shared.weight");
    out["encoder.embed_tokens.weight"] = out["decoder.embed_tokens.weight"] = shared;
    out["lm_head.weight"] = shared;
    out["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = {
        ElementType::f32, Shape{1}, std::string(4, 'x')};
    t = std::move(out);
  });
  EXPECT_THAT(structure_notes(), ElementsAre(HasSubstr("is left out: no model ever used it")));
  const CheckpointReader b(root_ / "b.h5");
  EXPECT_EQ(b.digest(), digest_a());
  EXPECT_THAT(compare_conversion(hf_, b, false, {}), IsEmpty());

  change([](test::LooseTensors& t) { t.at("encoder.embed_tokens.weight").bytes[5] ^= 1; });
  std::filesystem::remove(root_ / "b.h5");
  EXPECT_THAT(import_error(), HasSubstr("encoder.embed_tokens.weight: differs from"));
}

TEST_F(Conversion, WritesTheEmbeddingsOfAnUntiedSwitchThreeTimesSinceTransformersWouldNotTieThem) {
  ModelConfig config = small_switch();
  config.tied_embeddings = false;
  export_model(config);
  const auto tensors = test::load_tensors(hf_);
  for (const char* alias : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}) {
    ASSERT_TRUE(tensors.contains(alias));
    EXPECT_EQ(tensors.at(alias).bytes, tensors.at("shared.weight").bytes);
  }
  config = small_t5();
  config.tied_embeddings = false;
  std::filesystem::remove_all(hf_);
  export_model(config);
  EXPECT_FALSE(test::load_tensors(hf_).contains("encoder.embed_tokens.weight"));
}

// transformers 5 writes T5 v1.1 as tied, and says in another key that it is not.
TEST_F(Conversion, ReadsT5AsTransformers5WritesIt) {
  ModelConfig config = small_t5();
  config.activation = Activation::geglu, config.tied_embeddings = false;
  export_model(config);
  EXPECT_EQ(read_json_file(hf_ / "config.json")["scale_decoder_outputs"], false);
  test::edit_config(hf_, {{"tie_word_embeddings", true}, {"scale_decoder_outputs", false}});
  EXPECT_THAT(structure_notes(), IsEmpty());
  EXPECT_EQ(CheckpointReader(root_ / "b.h5").digest(), digest_a());
  // One made there as untied is tied, and unscaled all the same.
  change([](test::LooseTensors& t) { t.erase("lm_head.weight"); });
  EXPECT_THAT(structure_notes(),
              ElementsAre(HasSubstr("the head becomes a copy of shared.weight")));
  const CheckpointReader b(root_ / "b.h5");
  EXPECT_THAT(compare_conversion(hf_, b, false, {}), IsEmpty());
  convert_to_hugging_face(b, root_ / "again", {});
  const test::LooseTensors again = test::load_tensors(root_ / "again");
  EXPECT_EQ(again.at("lm_head.weight").bytes, again.at("shared.weight").bytes);
  EXPECT_THAT(compare_conversion(root_ / "again", b, true, {}), IsEmpty());
}

// A head of its own whose logits are scaled: to drop the scaling would change every logit.
TEST_F(Conversion, RefusesAScaledHeadOfItsOwn) {
  ModelConfig config = small_t5();
  config.tied_embeddings = false;
  export_model(config);
  test::edit_config(hf_, {{"tie_word_embeddings", true}, {"scale_decoder_outputs", true}});
  EXPECT_THAT(import_error(), HasSubstr("scale_decoder_outputs with a head of its own"));
  test::edit_config(hf_, {{"scale_decoder_outputs", nullptr}});
  EXPECT_EQ(import_error(), "accepted");
}

TEST_F(Conversion, LeavesOutLargeFilesThatNoModelNeeds) {
  export_model(small_switch());
  std::ofstream(hf_ / "added_tokens.json") << std::string(size_t{3} << 20, ' ') << "{}";
  EXPECT_THAT(structure_notes(), ElementsAre(HasSubstr("added_tokens.json is left out: 3145730")));
}

TEST_F(Conversion, KeepsTheFolderThatHoldsItsSource) {
  export_model(small_switch());
  write_model(hf_ / "tuned.h5", small_switch());
  const CheckpointReader reader(hf_ / "tuned.h5");
  ConversionOptions force;
  force.replace = true;
  for (const bool dry_run : {true, false}) {
    force.dry_run = dry_run;
    EXPECT_THROW(convert_to_hugging_face(reader, hf_, force), Error);
    EXPECT_THROW(convert_to_hugging_face(reader, hf_ / "", force), Error);
  }
  EXPECT_TRUE(std::filesystem::exists(hf_ / "tuned.h5"));
  EXPECT_TRUE(std::filesystem::exists(hf_ / "config.json"));
}

TEST_F(Conversion, MakesFloat32OfFloat16AndSaysSo) {
  export_model(small_t5());
  change([](test::LooseTensors& t) {
    for (auto& [name, tensor] : t) {
      tensor.type = ElementType::f16;
      tensor.bytes.resize(tensor.bytes.size() / 2);
    }
  });
  EXPECT_THAT(structure_notes(), ElementsAre(HasSubstr("float16 becomes float32, exactly")));
  EXPECT_THAT(compare_conversion(hf_, CheckpointReader(root_ / "b.h5"), false, {}), IsEmpty());
}

TEST_F(Conversion, RefusesTensorsThatAreNoModel) {
  export_model(small_switch());
  const test::LooseTensors whole = test::load_tensors(hf_);
  const auto error_with = [&](const std::function<void(test::LooseTensors&)>& edit) {
    test::LooseTensors tensors = whole;
    edit(tensors);
    test::save_tensors(hf_, tensors);
    return import_error();
  };
  const std::string expert = "encoder.block.1.layer.1.mlp.experts.expert_1.wo.weight";
  EXPECT_THAT(error_with([&](auto& t) { t.erase(expert); }),
              HasSubstr("there is no " + expert + ": not a whole model"));
  EXPECT_THAT(error_with([&](auto& t) {
                t.erase(expert);
                t.erase("decoder.final_layer_norm.weight");
              }),
              HasSubstr("and 1 more are missing"));
  EXPECT_THAT(error_with([&](auto& t) { t["pooler.weight"] = t.at(expert); }),
              HasSubstr("pooler.weight: belongs to no Switch or T5 model"));
  EXPECT_THAT(
      error_with([&](auto& t) { t["encoder.block.0.layer.1.mlp.wi_0.weight"] = t.at(expert); }),
      HasSubstr("encoder.block.0.layer.1.mlp."));
  EXPECT_THAT(error_with([&](auto& t) {
                t.at(expert).shape = Shape{10, 8};
              }),
              HasSubstr(expert + ": shape [10, 8], expected [8, 10]"));
  EXPECT_THAT(error_with([&](auto& t) { t.at(expert).type = ElementType::i32; }),
              HasSubstr("dtype I32, expected a floating-point type"));
  EXPECT_THAT(error_with([&](auto& t) { t.erase("shared.weight"); }),
              HasSubstr("no shared.weight"));
  EXPECT_THAT(error_with([&](auto& t) {
                t["encoder.block.999999.layer.0.layer_norm.weight"] =
                    t.at("encoder.final_layer_norm.weight");
              }),
              HasSubstr("1000000 layers of the encoder"));
  EXPECT_THAT(error_with([&](auto& t) {
                t["encoder.block.1.layer.1.mlp.experts.expert_999999.wi.weight"] = t.at(expert);
              }),
              HasSubstr("expert 999999 of a model"));
  EXPECT_THAT(error_with([&](auto& t) {
                t["encoder.block.2.layer.1.mlp.router.classifier.weight"] =
                    t.at("encoder.block.1.layer.1.mlp.router.classifier.weight");
              }),
              HasSubstr("do not follow each other at equal distances"));
  EXPECT_THAT(error_with([&](auto& t) { t.clear(); }), HasSubstr("0 layers of the encoder"));
}

TEST_F(Conversion, RefusesConfigurationsThatMakeNoSense) {
  export_model(small_switch());
  const std::string original = read_file(hf_ / "config.json");
  const auto error_with = [&](const nlohmann::json& changes) {
    std::ofstream(hf_ / "config.json") << original;
    test::edit_config(hf_, changes);
    return import_error();
  };
  EXPECT_THAT(error_with({{"model_type", "bert"}}), HasSubstr("model_type \"bert\", expected"));
  EXPECT_THAT(error_with({{"model_type", "t5"}}), HasSubstr("but the tensors have experts"));
  EXPECT_THAT(error_with({{"d_ff", "many"}}), HasSubstr("d_ff: expected an integer"));
  EXPECT_THAT(error_with({{"num_layers", -1}}), HasSubstr("num_layers: expected an integer"));
  EXPECT_THAT(error_with({{"vocab_size", 1e30}}), HasSubstr("vocab_size: expected an integer"));
  EXPECT_THAT(error_with({{"dropout_rate", 2}}), HasSubstr("dropout is 2"));
  EXPECT_THAT(error_with({{"router_bias", 1}}), HasSubstr("router_bias: expected true or false"));
  EXPECT_THAT(error_with({{"dense_act_fn", "tanh"}}), HasSubstr("the activation tanh"));
  EXPECT_THAT(error_with({{"tie_word_embeddings", false}}),
              HasSubstr("there is no lm_head.weight"));
  EXPECT_THAT(error_with({{"relative_attention_max_distance", 1}}),
              HasSubstr("relative_max_distance"));
  std::ofstream(hf_ / "config.json") << "[]";
  EXPECT_THAT(import_error(), HasSubstr("not an object"));
  std::ofstream(hf_ / "config.json") << "{\"a\":1,\"a\":2}";
  EXPECT_THAT(import_error(), HasSubstr("given twice"));
}

TEST_F(Conversion, SaysWhatAFolderCannotHold) {
  ModelConfig config = small_switch();
  config.router = "top2";
  EXPECT_THROW(export_model(config), Error);
  config = small_switch();
  config.encoder_sparse_step = 4, config.encoder_sparse_offset = 3;
  try {
    export_model(config);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::usage);
    EXPECT_THAT(error.what(), HasSubstr("i mod 4 == 3; transformers knows only i mod step == 1"));
  }
  EXPECT_FALSE(std::filesystem::exists(hf_));
  config = small_switch();
  config.conventions = conventions_preset("paper");
  write_model(root_ / "a.h5", config);
  const auto report = convert_to_hugging_face(CheckpointReader(root_ / "a.h5"), hf_, {});
  EXPECT_THAT(report.notes, Contains(HasSubstr("transformers drops no token")));
  EXPECT_EQ(read_json_file(hf_ / "config.json")["expert_capacity"], 1 << 20);
}

TEST_F(Conversion, KeepsTheKeysOfAConfigurationThatCameFromThere) {
  export_model(small_switch());
  test::edit_config(hf_, {{"num_selected_experts", 1},
                          {"transformers_version", "4.25.1"},
                          {"d_kv", 3},
                          {"router_type", "tokens_masked"},
                          {"is_gated_act", nullptr}});
  std::ofstream(hf_ / "generation_config.json") << "{\"max_length\": 33}\n";
  const nlohmann::json before = read_json_file(hf_ / "config.json");
  import_model();
  convert_to_hugging_face(CheckpointReader(root_ / "b.h5"), root_ / "again", {});
  EXPECT_EQ(read_json_file(root_ / "again/config.json"), before);
  EXPECT_EQ(read_file(root_ / "again/generation_config.json"), "{\"max_length\": 33}\n");
}

TEST_F(Conversion, LeavesWhatIsThereAndNothingHalfDone) {
  export_model(small_switch());
  const CheckpointReader reader(root_ / "a.h5");
  EXPECT_THROW(convert_to_hugging_face(reader, hf_, {}), Error);
  EXPECT_THROW(convert_from_hugging_face(hf_, root_ / "a.h5", {}), Error);
  ConversionOptions force;
  force.replace = true;
  convert_to_hugging_face(reader, hf_, force);
  EXPECT_FALSE(std::filesystem::exists(root_ / "hf.old"));
  // A folder that is no model's stays, whatever is asked.
  std::filesystem::create_directory(root_ / "photos");
  std::ofstream(root_ / "photos/cat.jpg") << "x";
  EXPECT_THROW(convert_to_hugging_face(reader, root_ / "photos", force), Error);
  EXPECT_TRUE(std::filesystem::exists(root_ / "photos/cat.jpg"));
  // What an interrupted conversion left is not mistaken for ours to remove.
  std::filesystem::create_directory(root_ / "x.tmp");
  EXPECT_THROW(convert_to_hugging_face(reader, root_ / "x", {}), Error);
  EXPECT_TRUE(std::filesystem::exists(root_ / "x.tmp"));
  ConversionOptions fails;
  fails.progress = [](int64_t, int64_t) { fail(ErrorKind::io, "disk full"); };
  EXPECT_THROW(convert_to_hugging_face(reader, root_ / "y", fails), Error);
  EXPECT_FALSE(std::filesystem::exists(root_ / "y.tmp"));
  EXPECT_FALSE(std::filesystem::exists(root_ / "y"));
}

TEST_F(Conversion, CheckFindsASingleFlippedBit) {
  export_model(small_switch());
  import_model();
  change([](test::LooseTensors& t) {
    t.at("encoder.block.1.layer.1.mlp.experts.expert_2.wi.weight").bytes[17] ^= 4;
  });
  const CheckpointReader b(root_ / "b.h5");
  EXPECT_THAT(compare_conversion(hf_, b, false, {}),
              ElementsAre("encoder.block.1.layer.1.mlp.experts.expert_2.wi.weight: other bits"));
  EXPECT_THAT(compare_conversion(hf_, b, true, {}),
              ElementsAre("/model/encoder/block_001/moe/wi: other bits"));
}

TEST(Layout, ReadsEveryHalf) {
  EXPECT_EQ(float_from_half(0x3C00), 1.0f);
  EXPECT_EQ(float_from_half(0xC000), -2.0f);
  EXPECT_EQ(float_from_half(0x7BFF), 65504.0f);
  EXPECT_EQ(float_from_half(0x0001), 0x1p-24f);
  EXPECT_EQ(float_from_half(0x83FF), -1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(float_from_half(0x8000)));
  EXPECT_TRUE(std::isinf(float_from_half(0x7C00)));
  EXPECT_TRUE(std::isnan(float_from_half(0x7E01)));
}

TEST(Layout, TransposesOddSizesInParts) {
  const int64_t rows = 67, columns = 45;
  std::vector<float> source(rows * columns), out(rows * columns);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<float>(i);
  const auto* bytes = reinterpret_cast<const char*>(source.data());
  for (const auto& [first, count] : {std::pair{0, 40}, std::pair{40, 5}}) {
    transpose_rows(bytes, rows, columns, 4, first, count,
                   reinterpret_cast<char*>(out.data() + first * rows));
  }
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      ASSERT_EQ(out[static_cast<size_t>(c * rows + r)],
                source[static_cast<size_t>(r * columns + c)]);
    }
  }
}

}  // namespace
}  // namespace sw
