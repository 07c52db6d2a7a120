// A router report from running the model; declared in router_report.h.
#include <algorithm>
#include <set>

#include "libswitch/base/error.h"
#include "libswitch/data/tokenizer.h"
#include "libswitch/report/router_report.h"
#include "libswitch/train/checkpoint_state.h"
#include "libswitch/train/evaluation.h"

namespace sw {
namespace {

// Names and kinds of all ids of the embedding table; numbers where the checkpoint has no tokenizer.
void name_tokens(const CheckpointReader& reader, int64_t ids, TextRouting& text) {
  std::optional<Tokenizer> tokenizer;
  if (!reader.meta().tokenizer.empty()) {
    tokenizer = Tokenizer::from_bytes(reader.meta().tokenizer, reader.path().string());
  }
  for (int64_t id = 0; id < ids; ++id) {
    std::string piece =
        tokenizer ? tokenizer->piece(static_cast<int32_t>(id)) : "<" + std::to_string(id) + ">";
    for (char& c : piece) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    text.classes.push_back(token_class(piece, id));
    text.pieces.push_back(std::move(piece));
  }
}

void check_names(const std::vector<DataDomain>& data) {
  std::set<std::string> names;
  for (const DataDomain& domain : data) {
    SW_CHECK(names.insert(domain.name).second, usage,
             "--data: two files are called '{}'; give them names: --data a={}", domain.name,
             domain.file);
  }
}

}  // namespace

RouterReport evaluate_routers(const CheckpointReader& reader, const std::string& name,
                              const RouterEvaluation& how) {
  RouterReport report = describe_checkpoint(reader, name);
  report.data = how.data;
  check_names(how.data);
  const DatasetOptions options =
      trained_dataset_options(how.as_trained != nullptr ? *how.as_trained : reader);
  std::vector<std::unique_ptr<EvalSet>> sets;
  for (const DataDomain& domain : how.data) {
    sets.push_back(open_eval_set(reader, domain.file, options, how.max_tokens));
  }
  if (sparse_layers(reader) == 0) return report;
  const std::unique_ptr<Model> model = load_model(reader);
  const int64_t ids = model->config().vocab_size;
  TextRoutingRecorder recorder(ids, static_cast<int64_t>(sets.size()), how.keep_paths);
  for (size_t i = 0; i < sets.size(); ++i) {
    const Evaluation evaluation =
        evaluate_set(*model, *sets[i], how.data[i].file, {},
                     [&](Context& context, const Model& running, const ModelInput& input,
                         const ForwardOptions& forward_options) {
                       ForwardResult result = running.forward(context, input, forward_options);
                       recorder.observe(static_cast<int64_t>(i), input, result);
                       return result;
                     });
    report.layers.resize(evaluation.layers.size());
    for (size_t l = 0; l < report.layers.size(); ++l) {
      report.layers[l].statistics.merge(evaluation.layers[l]);
    }
  }
  name_tokens(reader, ids, recorder.text());
  report.text = std::make_shared<const TextRouting>(std::move(recorder.text()));
  for (size_t l = 0; l < report.layers.size(); ++l) {
    report.layers[l].capacity_use = report.layers[l].statistics.capacity_use();
    report.layers[l].tokens = std::make_shared<const LayerTokens>(std::move(recorder.layers()[l]));
  }
  return report;
}

}  // namespace sw
