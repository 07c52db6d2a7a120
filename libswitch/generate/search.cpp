#include "libswitch/generate/search.h"

#include <algorithm>
#include <cmath>

#include "libswitch/base/error.h"
#include "libswitch/base/rng.h"

namespace sw {
namespace {

constexpr int32_t kEnd = 1;

// The most probable token; the first of equals.
int32_t most_probable(const float* logits, int64_t n) {
  return static_cast<int32_t>(std::max_element(logits, logits + n) - logits);
}

// A sum of exponentials is finite only where every logit is, or is minus infinity.
void check_finite(float log_z, uint64_t ordinal) {
  SW_CHECK(std::isfinite(log_z), diverged,
           "generate: the logits of prompt {} are not finite: the training of this checkpoint had "
           "diverged; take an earlier one",
           ordinal + 1);
}

struct Candidate {
  double weight = 0;
  int32_t token = 0;
};

// One row: the most probable token, or a draw.
class SingleSearch final : public Search {
 public:
  SingleSearch(const GenerateOptions& options, uint64_t ordinal)
      : options_(options), ordinal_(ordinal) {}

  void advance(const float* logits, const float* log_z, int64_t vocabulary) override {
    check_finite(*log_z, ordinal_);
    const int32_t token =
        options_.temperature > 0 ? draw(logits, vocabulary) : most_probable(logits, vocabulary);
    log_likelihood_ += double{logits[token]} - double{*log_z};
    answer_.tokens.push_back(token);
    next_.clear();
    const auto length = static_cast<int64_t>(answer_.tokens.size());
    if (token != kEnd && length < options_.max_length) next_.push_back({0, token});
    answer_.score = log_likelihood_ / length_divisor(options_, length);
  }

  Answer answer() const override { return answer_; }

 private:
  // Temperature, then the k most probable, then the smallest set that holds top_p of what is left.
  int32_t draw(const float* logits, int64_t vocabulary) {
    const double largest = *std::max_element(logits, logits + vocabulary);
    std::vector<Candidate>& all = candidates_;
    all.clear();
    for (int64_t v = 0; v < vocabulary; ++v) {
      all.push_back(
          {std::exp((logits[v] - largest) / options_.temperature), static_cast<int32_t>(v)});
    }
    if (options_.top_k > 0 || options_.top_p < 1) {
      const auto first = [](const Candidate& x, const Candidate& y) {
        return x.weight != y.weight ? x.weight > y.weight : x.token < y.token;
      };
      const auto kept = static_cast<size_t>(
          options_.top_k > 0 ? std::min(options_.top_k, vocabulary) : vocabulary);
      std::partial_sort(all.begin(), all.begin() + static_cast<int64_t>(kept), all.end(), first);
      all.resize(kept);
      if (options_.top_p < 1) {
        double total = 0, sum = 0;
        for (const Candidate& c : all) total += c.weight;
        size_t count = 0;
        while (count < all.size() && sum < options_.top_p * total) sum += all[count++].weight;
        all.resize(std::max<size_t>(count, 1));
      }
    }
    double total = 0;
    for (const Candidate& c : all) total += c.weight;
    RngStream stream(rng_key(options_.seed, RngPurpose::sampling, ordinal_, answer_.tokens.size()));
    double left = stream.uniform() * total;
    for (const Candidate& c : all) {
      left -= c.weight;
      if (left < 0) return c.token;
    }
    // Rounding: the last one that can be drawn at all (the largest always can).
    for (auto c = all.rbegin(); c != all.rend(); ++c) {
      if (c->weight > 0) return c->token;
    }
    return all.front().token;
  }

  GenerateOptions options_;
  uint64_t ordinal_;
  Answer answer_;
  double log_likelihood_ = 0;
  std::vector<Candidate> candidates_;
};

// Beam search: the 2·beam best continuations of all rows; those that end leave, the best of the
// others go on.
//
// hf: as Hugging Face generate (4.50 - 5) with early_stopping=False: an ending counts when it is
// among the best `beam` continuations; when `beam` endings are there and the best row alive, at its
// present length, is not better than the worst of them, all is decided; what is alive at the
// maximum length counts as ended.
// t5: as Mesh TensorFlow (transformer/beam_search.py): every ending counts; all is decided when the
// best row alive could not become better than the worst ending even at the maximum length; what is
// alive at the maximum length counts only where nothing ended.
class BeamSearch final : public Search {
 public:
  BeamSearch(const GenerateOptions& options, uint64_t ordinal)
      : options_(options),
        ordinal_(ordinal),
        alive_{{{}, 0.0}},
        hf_(options.length_norm == LengthNorm::hf) {}

  void advance(const float* logits, const float* log_z, int64_t vocabulary) override {
    find_continuations(logits, log_z, vocabulary);
    const int64_t length = static_cast<int64_t>(alive_.front().tokens.size()) + 1;
    const bool last = length == options_.max_length;
    const auto beam = static_cast<size_t>(options_.beam);
    std::vector<Row> alive;
    next_.clear();
    for (size_t i = 0; i < best_.size(); ++i) {
      const Continuation& c = best_[i];
      const bool ends = c.token == kEnd;
      if (ends || (hf_ && last)) {
        if (i < beam || !hf_) finish(c, length);
      } else if (alive.size() < beam) {
        alive.push_back({alive_[static_cast<size_t>(c.row)].tokens, c.log_likelihood});
        alive.back().tokens.push_back(c.token);
        next_.push_back({c.row, c.token});
      }
    }
    alive_ = std::move(alive);
    if (last && finished_.empty()) {
      for (const Row& row : alive_) {
        finished_.push_back({row.tokens, row.log_likelihood / length_divisor(options_, length)});
      }
    }
    if (last || alive_.empty() || decided(length)) next_.clear();
  }

  Answer answer() const override {
    SW_CHECK(!finished_.empty(), internal, "beam search: asked for its answer too early");
    return finished_.front();
  }

 private:
  struct Row {
    std::vector<int32_t> tokens;
    double log_likelihood = 0;
  };
  struct Continuation {
    double log_likelihood = 0;
    int32_t row = 0, token = 0;
  };

  // Better first; of equals the one of the earlier row and token.
  static bool better(const Continuation& x, const Continuation& y) {
    if (x.log_likelihood != y.log_likelihood) return x.log_likelihood > y.log_likelihood;
    return x.row != y.row ? x.row < y.row : x.token < y.token;
  }

  // best_ = the 2·beam best continuations, best first.
  void find_continuations(const float* logits, const float* log_z, int64_t vocabulary) {
    const auto wanted = static_cast<size_t>(2 * options_.beam);
    best_.clear();
    for (size_t r = 0; r < alive_.size(); ++r) {
      check_finite(log_z[r], ordinal_);
      const float* row = logits + static_cast<int64_t>(r) * vocabulary;
      const double base = alive_[r].log_likelihood - double{log_z[r]};
      // A heap with the worst of the best on top.
      float threshold = -std::numeric_limits<float>::infinity();
      const auto raise = [&] {
        if (best_.size() < wanted) return;
        // Nothing that the f32 comparison lets through by rounding is lost: it is compared again.
        threshold = static_cast<float>(best_.front().log_likelihood - base);
        threshold = std::nextafter(threshold, -std::numeric_limits<float>::infinity());
      };
      raise();
      for (int64_t v = 0; v < vocabulary; ++v) {
        if (!(row[v] >= threshold)) continue;
        const Continuation c{base + static_cast<double>(row[v]), static_cast<int32_t>(r),
                             static_cast<int32_t>(v)};
        if (best_.size() == wanted) {
          if (!better(c, best_.front())) continue;
          std::pop_heap(best_.begin(), best_.end(), better);
          best_.pop_back();
        }
        best_.push_back(c);
        std::push_heap(best_.begin(), best_.end(), better);
        raise();
      }
    }
    std::sort_heap(best_.begin(), best_.end(), better);
  }

  void finish(const Continuation& c, int64_t length) {
    Answer ended{alive_[static_cast<size_t>(c.row)].tokens,
                 c.log_likelihood / length_divisor(options_, length)};
    ended.tokens.push_back(c.token);
    const auto at = std::find_if(finished_.begin(), finished_.end(),
                                 [&](const Answer& other) { return other.score < ended.score; });
    finished_.insert(at, std::move(ended));
    if (finished_.size() > static_cast<size_t>(options_.beam)) finished_.pop_back();
  }

  bool decided(int64_t length) const {
    if (hf_ && finished_.size() < static_cast<size_t>(options_.beam)) return false;
    if (finished_.empty()) return false;
    const int64_t reach = hf_ ? length : options_.max_length;
    return alive_.front().log_likelihood / length_divisor(options_, reach) <=
           finished_.back().score;
  }

  GenerateOptions options_;
  uint64_t ordinal_;
  std::vector<Row> alive_;        // best first
  std::vector<Answer> finished_;  // best first, at most `beam`
  std::vector<Continuation> best_;
  bool hf_ = false;
};

}  // namespace

double length_divisor(const GenerateOptions& options, int64_t length) {
  const auto n = static_cast<double>(length);
  if (options.length_norm == LengthNorm::hf)
    return std::pow(n, options.length_penalty.value_or(1.0));
  return std::pow((5 + n) / 6, options.length_penalty.value_or(0.6));
}

std::unique_ptr<Search> make_search(const GenerateOptions& options, uint64_t ordinal) {
  if (options.beam > 1) return std::make_unique<BeamSearch>(options, ordinal);
  return std::make_unique<SingleSearch>(options, ordinal);
}

}  // namespace sw
