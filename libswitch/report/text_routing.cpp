#include "libswitch/report/text_routing.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>

#include "libswitch/base/error.h"
#include "libswitch/moe/token_sums.h"

namespace sw {
namespace {

constexpr int64_t kConfidenceBins = 1000;
constexpr int64_t kSeenOften = 10;
constexpr int64_t kSeenAtAll = 3;

double ratio(int64_t a, int64_t b) {
  return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : 0;
}

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace

DataDomain parse_data_domain(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || std::filesystem::exists(text)) {
    return {std::filesystem::path(text).stem().string(), text};
  }
  const DataDomain domain{text.substr(0, equals), text.substr(equals + 1)};
  SW_CHECK(!domain.name.empty() && !domain.file.empty(), usage,
           "--data {}: expected FILE or NAME=FILE", text);
  return domain;
}

int64_t LayerTokens::tokens() const { return sum(load); }

double LayerTokens::same_share() const { return ratio(same_as_previous, neighbours); }

double LayerTokens::same_by_chance() const {
  double chance = 0;
  for (const int64_t count : load) chance += std::pow(ratio(count, tokens()), 2);
  return chance;
}

std::vector<double> LayerTokens::confidence_deciles() const {
  std::vector<double> deciles;
  const int64_t total = sum(confidence);
  int64_t below = 0;
  for (size_t bin = 0; bin < confidence.size() && total > 0; ++bin) {
    below += confidence[bin];
    while (deciles.size() < 9 && below * 10 >= total * static_cast<int64_t>(deciles.size() + 1)) {
      deciles.push_back((static_cast<double>(bin) + 0.5) / kConfidenceBins);
    }
  }
  return deciles;
}

void TextRoutingRecorder::observe(int64_t domain, const ModelInput& input,
                                  const ForwardResult& result) {
  const auto real = [&](bool decoder, int64_t n) {
    if (decoder) return input.targets.data<int32_t>()[n] >= 0;
    return !input.input_nonpadding.defined() || input.input_nonpadding.data<uint8_t>()[n] != 0;
  };
  for (const bool decoder : {false, true}) {
    const Tensor& ids = decoder ? input.decoder_inputs : input.inputs;
    std::vector<int64_t>& seen = decoder ? text_.decoder_tokens : text_.encoder_tokens;
    for (int64_t n = 0; n < ids.shape().elements(); ++n) {
      if (real(decoder, n)) ++seen.at(static_cast<size_t>(ids.data<int32_t>()[n]));
    }
  }
  layers_.resize(result.layers.size());
  for (size_t i = 0; i < layers_.size(); ++i) {
    LayerTokens& layer = layers_[i];
    const RoutingPlan& plan = result.layers[i].routing->plan;
    const Tensor& probabilities = result.layers[i].routing->input.probabilities;
    if (layer.experts == 0) {
      layer.experts = plan.experts;
      layer.decoder = result.layers[i].name.starts_with("decoder");
      layer.load.resize(static_cast<size_t>(plan.experts));
      layer.domain_load.assign(static_cast<size_t>(domains_), layer.load);
      layer.confidence.resize(kConfidenceBins);
    }
    const int64_t length = layer.decoder ? input.target_length : input.input_length;
    SW_CHECK(plan.tokens == input.rows * length, internal,
             "text routing of {}: {} tokens, expected {} rows of {}", result.layers[i].name,
             plan.tokens, input.rows, length);
    const int32_t* ids = (layer.decoder ? input.decoder_inputs : input.inputs).data<int32_t>();
    const int32_t* expert = plan.expert.data<int32_t>();
    std::vector<int64_t>& of_domain = layer.domain_load.at(static_cast<size_t>(domain));
    with_master_type(probabilities.dtype(), "text routing", [&](auto zero) {
      const auto* p = probabilities.data<decltype(zero)>();
      int32_t previous = -1;
      for (int64_t n = 0; n < plan.tokens; ++n) {
        const int32_t e = real(layer.decoder, n) ? expert[n * plan.choices] : -1;
        if (n % length == 0) previous = -1;
        if (e >= 0) {
          ++layer.load[static_cast<size_t>(e)];
          ++of_domain[static_cast<size_t>(e)];
          ++layer.counts[static_cast<uint64_t>(ids[n]) * static_cast<uint64_t>(plan.experts) +
                         static_cast<uint64_t>(e)];
          const double confidence = static_cast<double>(p[n * plan.experts + e]);
          ++layer.confidence[static_cast<size_t>(std::clamp<int64_t>(
              static_cast<int64_t>(confidence * kConfidenceBins), 0, kConfidenceBins - 1))];
          layer.neighbours += previous >= 0;
          layer.same_as_previous += previous == e;
          if (keep_paths_) layer.path.push_back(e);
        }
        previous = e;
      }
    });
  }
}

std::vector<std::vector<TokenShare>> top_tokens(const LayerTokens& layer,
                                                const std::vector<int64_t>& text, size_t most) {
  std::vector<std::vector<TokenShare>> tops(static_cast<size_t>(layer.experts));
  const auto all = static_cast<double>(std::max<int64_t>(1, sum(text)));
  const auto experts = static_cast<uint64_t>(layer.experts);
  for (const auto& [key, count] : layer.counts) {
    if (count < kSeenAtAll) continue;
    const uint64_t id = key / experts, e = key % experts;
    const double share = ratio(count, layer.load[e]);
    const double lift = share * all / static_cast<double>(std::max<int64_t>(1, text[id]));
    if (lift > 1) tops[e].push_back({static_cast<int64_t>(id), count, lift});
  }
  for (auto& top : tops) {
    const auto weight = [](const TokenShare& t) {
      return static_cast<double>(t.count) * std::log(t.lift);
    };
    std::sort(top.begin(), top.end(), [&](const TokenShare& a, const TokenShare& b) {
      const double of_a = weight(a), of_b = weight(b);
      return of_a != of_b ? of_a > of_b : a.id < b.id;
    });
    if (top.size() > most) top.resize(most);
  }
  return tops;
}

double decided_by_token(const LayerTokens& layer, const std::vector<int64_t>& text) {
  std::unordered_map<uint64_t, int64_t> favourite;
  const auto experts = static_cast<uint64_t>(layer.experts);
  for (const auto& [key, count] : layer.counts) {
    int64_t& best = favourite[key / experts];
    best = std::max(best, count);
  }
  int64_t decided = 0, tokens = 0;
  for (const auto& [id, count] : favourite) {
    if (text[id] < kSeenOften) continue;
    decided += count;
    tokens += text[id];
  }
  return tokens > 0 ? ratio(decided, tokens) : std::numeric_limits<double>::quiet_NaN();
}

std::vector<std::vector<int64_t>> class_counts(const LayerTokens& layer,
                                               const std::vector<TokenClass>& classes) {
  std::vector<std::vector<int64_t>> table(kTokenClasses,
                                          std::vector<int64_t>(static_cast<size_t>(layer.experts)));
  const auto experts = static_cast<uint64_t>(layer.experts);
  for (const auto& [key, count] : layer.counts) {
    table[static_cast<size_t>(classes.at(key / experts))][key % experts] += count;
  }
  return table;
}

}  // namespace sw
