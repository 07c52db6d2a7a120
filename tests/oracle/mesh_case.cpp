#include <bit>
#include <memory>
#include <vector>

#include "libswitch/base/error.h"
#include "libswitch/train/distillation.h"
#include "libswitch/train/optimizer.h"
#include "libswitch/train/step.h"
#include "tests/oracle/oracle.h"

namespace sw::oracle {
namespace {

constexpr HfFamily kFamily = HfFamily::switch_transformers;  // the cases say mlp. for every layer

ModelConfig read_model(const Json& m) {
  ModelConfig config;
  config.conventions = conventions_preset("paper");
  config.vocab_size = m.at("vocab");
  config.d_model = m.at("d_model");
  config.d_kv = m.at("d_kv");
  config.heads = m.at("heads");
  config.d_ff = m.at("d_ff");
  config.encoder_layers = m.at("layers");
  config.decoder_layers = m.at("dlayers");
  config.experts = m.at("experts");
  config.encoder_sparse_step = config.decoder_sparse_step = m.at("step");
  config.encoder_sparse_offset = config.decoder_sparse_offset = config.encoder_sparse_step - 1;
  config.max_group_size = m.at("group");
  config.capacity_factor = m.at("cf_train");
  config.eval_capacity_factor = m.at("cf_eval");
  config.min_capacity = m.at("min_cap");
  config.relative_buckets = m.value("buckets", int64_t{32});
  const Json act = m.value("act", Json("relu"));
  if (act == Json("relu")) {
    config.activation = Activation::relu;
  } else if (act == Json::array({"gelu", "linear"})) {
    config.activation = Activation::geglu;
  } else {
    fail(ErrorKind::usage, "case.json: act {} is not relu or [gelu, linear]", act.dump());
  }
  config.tied_embeddings = m.value("tied", true);
  config.aux_loss = m.value("aux", 0.01);
  // There the z-loss is added to the balance loss before the common coefficient.
  config.router_z_loss = m.value("router_z", 0.0) * config.aux_loss;
  config.output_z_loss = m.value("out_z", 1e-4);
  const std::string gating = m.value("gating", std::string("switch"));
  config.router = gating == "top_2" ? "top2" : gating;
  config.second_policy = m.value("second", std::string("all"));
  config.ntlb_k = m.value("ntlb_k", int64_t{4});
  config.jitter = config.dropout = config.expert_dropout = 0;
  return config;
}

// One step's rows, which own their ids.
struct Batch {
  std::vector<int32_t> inputs, targets, input_segments, target_segments;
  TokenRows rows;
};

std::vector<int32_t> flatten(const Json& rows, size_t length) {
  std::vector<int32_t> out;
  for (const Json& row : rows) {
    SW_CHECK(row.size() == length, corrupt, "batches.json: a row has {} ids, expected {}",
             row.size(), length);
    for (const Json& id : row) out.push_back(id.get<int32_t>());
  }
  return out;
}

std::vector<std::unique_ptr<Batch>> read_batches(const Json& json, const Json& sizes) {
  std::vector<std::unique_ptr<Batch>> batches;
  for (const Json& step : json) {
    auto batch = std::make_unique<Batch>();
    TokenRows& rows = batch->rows;
    rows.rows = sizes.at("batch");
    rows.input_length = sizes.at("input_length");
    rows.target_length = sizes.at("target_length");
    const auto s = static_cast<size_t>(rows.input_length);
    const auto t = static_cast<size_t>(rows.target_length);
    batch->inputs = flatten(step.at("inputs"), s);
    batch->targets = flatten(step.at("targets"), t);
    if (step.contains("input_segments")) {
      batch->input_segments = flatten(step["input_segments"], s);
      batch->target_segments = flatten(step["target_segments"], t);
    }
    rows.inputs = batch->inputs, rows.targets = batch->targets;
    rows.input_segments = batch->input_segments, rows.target_segments = batch->target_segments;
    batches.push_back(std::move(batch));
  }
  return batches;
}

// What the shards of one pass yield together.
struct Pass {
  double loss = 0, log_likelihood = 0;
  int64_t targets = 0;
  Json logits = Json::array(), routing = Json::object();
  std::vector<double> aux;
};

void append_routing(Json& routing, const ForwardResult::Layer& layer) {
  const RoutingPlan& plan = layer.routing->plan;
  const bool decoder = layer.name.rfind("decoder", 0) == 0;
  Json& entry = routing[fmt::format("{}.block.{}", decoder ? "decoder" : "encoder",
                                    std::stoi(layer.name.substr(layer.name.size() - 3)))];
  if (entry.is_null()) {
    entry = {{"groups", 0},
             {"group_size", plan.group_size},
             {"capacity", plan.capacity},
             {"tokens", Json::array()}};
  }
  entry["groups"] = entry["groups"].get<int64_t>() + plan.groups;
  const int32_t* expert = plan.expert.data<int32_t>();
  const int32_t* slot = plan.slot.data<int32_t>();
  const std::vector<double> gate = plan.gate.to_vector();
  for (int64_t n = 0; n < plan.tokens; ++n) {
    Json token = Json::array();
    for (int64_t i = n * plan.choices; i < (n + 1) * plan.choices; ++i) {
      if (slot[i] >= 0) token.push_back({expert[i], slot[i], gate[static_cast<size_t>(i)]});
    }
    entry["tokens"].push_back(std::move(token));
  }
}

Pass run_pass(const Model& model, const Batch& batch, int64_t shards, Context context,
              const ForwardOptions& options, const ShardForward& forward = {}) {
  const RealTokens whole = count_real_tokens(batch.rows);
  const ModelConfig& config = model.config();
  const int64_t rows = batch.rows.rows / shards;
  Pass pass;
  for (int64_t shard = 0; shard < shards; ++shard) {
    const ModelInput input =
        make_model_input(slice_rows(batch.rows, shard * rows, (shard + 1) * rows),
                         config.conventions, shards, shard, &whole);
    const ForwardResult result =
        forward ? forward(context, model, input, options) : model.forward(context, input, options);
    if (context.tape != nullptr) context.tape->backward();
    pass.loss += result.loss;
    pass.log_likelihood += result.sums.log_likelihood;
    pass.targets += result.sums.targets;
    pass.aux.resize(result.layers.size());
    for (size_t i = 0; i < result.layers.size(); ++i) {
      append_routing(pass.routing, result.layers[i]);
      pass.aux[i] += config.aux_loss * result.layers[i].aux;
      if (context.training) pass.aux[i] += config.router_z_loss * result.layers[i].z;
    }
    if (result.logits.defined()) {
      const std::vector<double> logits = result.logits.to_vector();
      for (auto at = logits.begin(); at != logits.end(); at += config.vocab_size) {
        pass.logits.push_back(std::vector<double>(at, at + config.vocab_size));
      }
    }
  }
  return pass;
}

}  // namespace

Json run_mesh_case(const std::filesystem::path& folder, const RunOptions& options) {
  const Json json = read_json(folder / "case.json");
  const Json& m = json.at("model");
  const auto batches = read_batches(read_json(folder / "batches.json"), json);
  SW_CHECK(!batches.empty(), corrupt, "{}: no batches", folder.string());
  const int64_t shards = m.value("data_ranks", int64_t{1});
  SW_CHECK(batches[0]->rows.rows % shards == 0, usage, "{}: {} rows do not divide by {} data ranks",
           folder.string(), batches[0]->rows.rows, shards);

  const double scale = m.value("weight_scale", 1.0);
  const bool distils = m.contains("student");
  Model model(read_model(distils ? m["student"] : m), options.dtype);
  fill_weights(model, kFamily, scale, "");
  ShardForward forward;
  std::unique_ptr<Model> teacher;
  if (distils) {
    teacher = std::make_unique<Model>(frozen(read_model(m)), options.dtype);
    fill_weights(*teacher, kFamily, scale, "teacher.");
    const DistillationConfig config{m.at("fraction_soft"), m.at("temperature")};
    forward = [&teacher, config](Context& context, const Model& student, const ModelInput& input,
                                 const ForwardOptions& how) {
      return distillation_forward(context, student, input, how,
                                  ask_teacher(context, *teacher, input), config);
    };
  }
  Json out;
  if (!distils) {
    const Pass pass = run_pass(model, *batches[0], shards, Context{}, {Recompute::none, true});
    out["eval"] = {{"loss", pass.loss},
                   {"neg_log_perplexity", pass.log_likelihood / static_cast<double>(pass.targets)},
                   {"logits", pass.logits},
                   {"routing", pass.routing},
                   {"aux_loss", pass.aux}};
  }
  Json train;
  {
    Tape tape;
    Context context;
    context.tape = &tape;
    context.training = true;
    const Pass pass =
        run_pass(model, *batches[0], shards, context, {options.recompute, false}, forward);
    train["gradients"] = describe_parameters(model, kFamily, false);
    train["gradient_l2"] = gradient_norm(model);
    train["routing"] = distils ? Json() : pass.routing;
    train["aux_loss"] = pass.aux;
    if (distils) {
      // After the student's the teacher's own, which no loss holds.
      Context untaped;
      untaped.training = true;
      for (const double aux : run_pass(*teacher, *batches[0], shards, untaped, {}).aux) {
        train["aux_loss"].push_back(aux);
      }
    }
    model.clear_gradients();
  }
  const std::unique_ptr<Optimizer> optimizer = make_optimizer({}, model);
  StepConfig step_config;
  step_config.canonical_ranks = shards;
  step_config.recompute = options.recompute;
  Json losses = Json::array();
  for (int64_t step = 0; step < json.at("steps").get<int64_t>(); ++step) {
    const Batch& batch = *batches.at(static_cast<size_t>(step));
    const double rate = m.value("lr", 0.01);
    if (std::has_single_bit(static_cast<uint64_t>(shards))) {
      losses.push_back(
          training_step(model, *optimizer, batch.rows, step, rate, step_config, forward).loss);
      continue;
    }
    // The trainer sums over shards in a binary tree; the paper's code has any number of them.
    Tape tape;
    Context context;
    context.tape = &tape;
    context.training = true;
    model.clear_gradients();
    losses.push_back(
        run_pass(model, batch, shards, context, {options.recompute, false}, forward).loss);
    optimizer->apply(rate, step, 1.0);
  }
  train["losses"] = losses;
  train["weights_after"] = describe_parameters(model, kFamily, true);
  out["train"] = std::move(train);
  return out;
}

}  // namespace sw::oracle
