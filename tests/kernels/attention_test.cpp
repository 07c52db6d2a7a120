#include "libswitch/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "libswitch/kernels/columns.h"
#include "tests/support/kernel_case.h"

namespace sw::kernels {
namespace {

using test::expect_close;
using test::expect_same_bits;
using test::nan_tensor;
using test::random_tensor;

const Stream kStream;

// A case with its inputs. q is small so that softmax is neither flat nor a single one.
struct Case {
  AttentionParams params;
  DType dtype = DType::f32;
  Tensor q, k, v, d_out, bias, query_segments, key_segments;

  std::string str() const {
    return fmt::format("B{} H{} D{} T{} S{}{}{}{} dropout {}{} {}", params.batch, params.heads,
                       params.head_dim, params.query_length, params.key_length,
                       params.causal ? " causal" : "", bias.defined() ? " bias" : "",
                       query_segments.defined() ? " segments" : "", params.dropout,
                       params.share_over_queries ? " shared" : "", dtype_name(dtype));
  }
  Shape queries() const {
    return {params.batch * params.query_length, params.heads * params.head_dim};
  }
  Shape keys() const { return {params.batch * params.key_length, params.heads * params.head_dim}; }
  Shape diagonals() const { return {params.heads, params.query_length + params.key_length - 1}; }
};

struct Options {
  int64_t batch = 2, heads = 3, dim = 16, queries = 17, keys = 33;
  bool causal = false, bias = true;
  double dropout = 0;
  bool shared = true;
  int segments = 0;  // number of segments; 0: none
  DType dtype = DType::f32;
};

Case make_case(const Options& o) {
  Case c;
  c.dtype = o.dtype;
  c.params = {.batch = o.batch,
              .heads = o.heads,
              .head_dim = o.dim,
              .query_length = o.queries,
              .key_length = o.keys,
              .causal = o.causal,
              .dropout = o.dropout,
              .dropout_key = rng_key(3, RngPurpose::dropout),
              .first_row = 5,
              .share_over_queries = o.shared};
  c.q = random_tensor(c.queries(), o.dtype, 1, 1 / std::sqrt(static_cast<double>(o.dim)));
  c.k = random_tensor(c.keys(), o.dtype, 2);
  c.v = random_tensor(c.keys(), o.dtype, 3);
  c.d_out = random_tensor(c.queries(), o.dtype, 4);
  if (o.bias) c.bias = random_tensor(c.diagonals(), master_dtype(o.dtype), 5);
  if (o.segments > 0) {
    c.query_segments = test::random_ints({o.batch, o.queries}, 6, 0, o.segments);
    c.key_segments = test::random_ints({o.batch, o.keys}, 7, 0, o.segments);
  }
  return c;
}

struct Results {
  Tensor out, log_sum_exp, d_q, d_k, d_v, d_bias;
};

Tensor destination(const Shape& shape, DType dtype, Accum accum) {
  return accum == Accum::write ? nan_tensor(shape, dtype) : random_tensor(shape, dtype, 8);
}

Results run(const Case& c, Accum accum = Accum::write) {
  Results r;
  r.out = nan_tensor(c.queries(), c.dtype);
  r.log_sum_exp =
      nan_tensor({c.params.batch, c.params.heads, c.params.query_length}, master_dtype(c.dtype));
  attention_forward(kStream, r.out, r.log_sum_exp, c.q, c.k, c.v, c.bias, c.query_segments,
                    c.key_segments, c.params);
  r.d_q = destination(c.queries(), c.dtype, accum);
  r.d_k = destination(c.keys(), c.dtype, accum);
  r.d_v = destination(c.keys(), c.dtype, accum);
  if (c.bias.defined()) r.d_bias = nan_tensor(c.diagonals(), master_dtype(c.dtype));
  attention_backward(kStream, r.d_q, accum, r.d_k, accum, r.d_v, accum, r.d_bias, c.q, c.k, c.v,
                     c.bias, c.query_segments, c.key_segments, r.out, r.log_sum_exp, c.d_out,
                     c.params);
  return r;
}

struct Reference {
  std::vector<double> out, log_sum_exp, d_q, d_k, d_v, d_bias;
};

// The definition, query by query, in double.
Reference reference(const Case& c) {
  const AttentionParams& p = c.params;
  const auto q = c.q.to_vector(), k = c.k.to_vector(), v = c.v.to_vector();
  const auto d_out = c.d_out.to_vector();
  const auto bias = c.bias.defined() ? c.bias.to_vector() : std::vector<double>();
  const int64_t width = p.heads * p.head_dim, diagonals = p.query_length + p.key_length - 1;
  Reference r;
  r.out.assign(q.size(), 0);
  r.d_q.assign(q.size(), 0);
  r.d_k.assign(k.size(), 0);
  r.d_v.assign(k.size(), 0);
  r.d_bias.assign(static_cast<size_t>(p.heads * diagonals), 0);
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; ++h) {
      for (int64_t i = 0; i < p.query_length; ++i) {
        const int64_t query = (b * p.query_length + i) * width + h * p.head_dim;
        const auto key = [&](int64_t j) { return (b * p.key_length + j) * width + h * p.head_dim; };
        const auto place = [&](int64_t j) { return h * diagonals + (j - i) + p.query_length - 1; };
        std::vector<double> w(at(p.key_length)), factor(at(p.key_length), 1.0);
        double top = -std::numeric_limits<double>::infinity();
        for (int64_t j = 0; j < p.key_length; ++j) {
          double score = 0;
          for (int64_t d = 0; d < p.head_dim; ++d) score += q[at(query + d)] * k[at(key(j) + d)];
          if (!bias.empty()) score += bias[at(place(j))];
          const bool visible =
              !(p.causal && j > i) && (!c.query_segments.defined() ||
                                       c.query_segments.data<int32_t>()[b * p.query_length + i] ==
                                           c.key_segments.data<int32_t>()[b * p.key_length + j]);
          w[at(j)] = visible ? score : -std::numeric_limits<double>::infinity();
          top = std::max(top, w[at(j)]);
          if (p.dropout > 0) {
            const int64_t row = (p.first_row + b) * p.heads + h;
            const int64_t draw = p.share_over_queries
                                     ? row * p.key_length + j
                                     : (row * p.query_length + i) * p.key_length + j;
            const bool kept = random_uniform(p.dropout_key, static_cast<uint64_t>(draw)) >=
                              static_cast<float>(p.dropout);
            factor[at(j)] = kept ? 1 / (1 - p.dropout) : 0;
          }
        }
        const bool nothing = std::isinf(top);
        double sum = 0;
        for (double& x : w) sum += x = nothing ? 1 : std::exp(x - top);
        for (double& x : w) x /= sum;
        r.log_sum_exp.push_back(nothing ? top : top + std::log(sum));
        double dot = 0;
        std::vector<double> d_w(at(p.key_length));
        for (int64_t j = 0; j < p.key_length; ++j) {
          for (int64_t d = 0; d < p.head_dim; ++d) {
            r.out[at(query + d)] += w[at(j)] * factor[at(j)] * v[at(key(j) + d)];
            r.d_v[at(key(j) + d)] += w[at(j)] * factor[at(j)] * d_out[at(query + d)];
            d_w[at(j)] += factor[at(j)] * d_out[at(query + d)] * v[at(key(j) + d)];
          }
          dot += w[at(j)] * d_w[at(j)];
        }
        if (nothing) continue;
        for (int64_t j = 0; j < p.key_length; ++j) {
          const double d_score = w[at(j)] * (d_w[at(j)] - dot);
          r.d_bias[at(place(j))] += d_score;
          for (int64_t d = 0; d < p.head_dim; ++d) {
            r.d_q[at(query + d)] += d_score * k[at(key(j) + d)];
            r.d_k[at(key(j) + d)] += d_score * q[at(query + d)];
          }
        }
      }
    }
  }
  return r;
}

// NaN if any is.
double largest(const std::vector<double>& x) {
  double top = 0;
  for (const double value : x) {
    if (!(std::abs(value) <= top)) top = std::abs(value);
    if (std::isnan(top)) break;
  }
  return top;
}

// Sums are in master precision, of terms of order 1, and a result is rounded once to its dtype. So
// may be the weights and the gradients of the scores, which products take: half a unit of terms
// that add up to no more than the largest result.
void compare(const Tensor& got, const std::vector<double>& want, const Case& c, int64_t terms,
             const std::string& what) {
  double top = 1;
  for (const double value : want) {
    if (std::isfinite(value)) top = std::max(top, std::abs(value));
  }
  const double sums = 64 * test::epsilon(master_dtype(c.dtype)) * std::sqrt(double(terms)) * top +
                      0.5 * test::epsilon(c.dtype) * top;
  expect_close(got, want, {test::epsilon(got.dtype()), sums}, what + " of " + c.str());
}

void check(const Options& options) {
  const Case c = make_case(options);
  const Results got = run(c);
  const Reference want = reference(c);
  const AttentionParams& p = c.params;
  compare(got.out, want.out, c, p.key_length, "out");
  compare(got.log_sum_exp, want.log_sum_exp, c, p.head_dim, "log_sum_exp");
  compare(got.d_q, want.d_q, c, p.key_length, "d_q");
  compare(got.d_k, want.d_k, c, p.query_length, "d_k");
  compare(got.d_v, want.d_v, c, p.query_length, "d_v");
  if (c.bias.defined()) {
    compare(got.d_bias, want.d_bias, c, p.query_length * p.batch, "d_bias");
  }
}

void check_all_types(Options options) {
  for (const DType dtype : test::kFloatTypes) {
    options.dtype = dtype;
    check(options);
  }
}

TEST(Attention, EqualsItsDefinitionForOddSizes) {
  int turn = 0;
  for (const int64_t queries : test::kOddSizes) {
    for (const int64_t keys : test::kOddSizes) {
      const int64_t dims[] = {1, 3, 17, 64};
      check({.batch = 1 + turn % 2,
             .heads = 1 + turn % 2,
             .dim = dims[turn % 4],
             .queries = queries,
             .keys = keys,
             .bias = turn % 5 != 0,
             .dtype = test::kFloatTypes[turn % 3]});
      ++turn;
    }
  }
}

TEST(Attention, TakesManyKeysInBlocks) {
  for (const int64_t queries : {1, 13, 150}) {
    check_all_types({.batch = 1, .heads = 2, .dim = 8, .queries = queries, .keys = 700});
  }
}

TEST(Attention, CausalQueriesSeeNoLaterKey) {
  for (const int64_t length : {1, 3, 17, 65, 127, 300}) {
    check_all_types(
        {.batch = 1, .heads = 2, .dim = 8, .queries = length, .keys = length, .causal = true});
  }
  check_all_types({.queries = 40, .keys = 17, .causal = true});
  check_all_types({.queries = 17, .keys = 90, .causal = true});
}

TEST(Attention, SegmentsKeepToThemselves) {
  for (const bool causal : {false, true}) {
    for (const int segments : {1, 2, 5}) {
      check_all_types({.queries = 65, .keys = 65, .causal = causal, .segments = segments});
    }
  }
  check_all_types({.batch = 1, .queries = 20, .keys = 600, .segments = 3});
}

TEST(Attention, PackedSegmentsSkipTheirNeighboursKeys) {
  // Three examples in a row, then padding of a segment that only keys have.
  for (const bool causal : {false, true}) {
    Case c = make_case({.batch = 1, .dim = 8, .queries = 150, .keys = 520, .causal = causal});
    std::vector<int32_t> queries(150), keys(520);
    for (size_t i = 0; i < queries.size(); ++i) queries[i] = i < 40 ? 1 : i < 100 ? 2 : 3;
    for (size_t j = 0; j < keys.size(); ++j) keys[j] = j < 30 ? 1 : j < 300 ? 2 : j < 400 ? 3 : 0;
    c.query_segments = test::int_tensor(queries).view({1, 150});
    c.key_segments = test::int_tensor(keys).view({1, 520});
    const Results got = run(c);
    const Reference want = reference(c);
    compare(got.out, want.out, c, 520, "out");
    compare(got.d_q, want.d_q, c, 520, "d_q");
    compare(got.d_k, want.d_k, c, 150, "d_k");
    compare(got.d_v, want.d_v, c, 150, "d_v");
    compare(got.d_bias, want.d_bias, c, 150, "d_bias");
  }
}

TEST(Attention, AQueryThatSeesNothingTakesTheMeanOfAllValues) {
  for (const double dropout : {0.0, 0.3}) {
    for (const bool shared : {true, false}) {
      for (const DType dtype : test::kFloatTypes) {
        Case c = make_case({.batch = 2,
                            .heads = 2,
                            .dim = 8,
                            .queries = 30,
                            .keys = 300,
                            .dropout = dropout,
                            .shared = shared,
                            .dtype = dtype});
        std::vector<int32_t> queries(60, 1), keys(600, 1);
        for (size_t i = 0; i < queries.size(); i += 3) queries[i] = 9;  // nobody has segment 9
        std::fill(keys.begin() + 300, keys.end(), 2);                   // row 1 sees nothing at all
        c.query_segments = test::int_tensor(queries).view({2, 30});
        c.key_segments = test::int_tensor(keys).view({2, 300});
        const Results got = run(c);
        const Reference want = reference(c);
        compare(got.out, want.out, c, 300, "out");
        compare(got.d_q, want.d_q, c, 300, "d_q");
        compare(got.d_k, want.d_k, c, 30, "d_k");
        compare(got.d_v, want.d_v, c, 30, "d_v");
        compare(got.d_bias, want.d_bias, c, 60, "d_bias");
        const auto d_q = got.d_q.to_vector();
        EXPECT_TRUE(std::all_of(d_q.begin() + 30 * 16, d_q.end(), [](double x) { return x == 0; }));
      }
    }
  }
}

TEST(Attention, DropsWeightsByTheStreamOfDraws) {
  for (const bool shared : {true, false}) {
    for (const bool causal : {false, true}) {
      check_all_types(
          {.queries = 65, .keys = 65, .causal = causal, .dropout = 0.25, .shared = shared});
    }
    check_all_types({.batch = 1, .queries = 3, .keys = 300, .dropout = 0.5, .shared = shared});
  }
}

TEST(Attention, DropoutOfARowIsThatOfItsGlobalIndex) {
  for (const bool shared : {true, false}) {
    const Case whole =
        make_case({.batch = 3, .queries = 20, .keys = 20, .dropout = 0.3, .shared = shared});
    const Results all = run(whole);
    Case last = whole;
    last.params.batch = 1;
    last.params.first_row += 2;
    last.q = whole.q.slice(40, 60);
    last.k = whole.k.slice(40, 60);
    last.v = whole.v.slice(40, 60);
    last.d_out = whole.d_out.slice(40, 60);
    const Results one = run(last);
    expect_same_bits(one.out, all.out.slice(40, 60), "out");
    expect_same_bits(one.d_q, all.d_q.slice(40, 60), "d_q");
    expect_same_bits(one.d_v, all.d_v.slice(40, 60), "d_v");
  }
}

Tensor block_of(const Tensor& x, int64_t first, int64_t columns) {
  Tensor y = Tensor::empty({x.size(0), columns}, x.dtype());
  copy_columns(kStream, y, 0, x, first, columns);
  return y;
}

TEST(Attention, APartOfTheHeadsIsThatOfAllOfThem) {
  for (const DType dtype : test::kFloatTypes) {
    for (const bool shared : {true, false}) {
      const Case whole = make_case({.batch = 2,
                                    .heads = 4,
                                    .queries = 20,
                                    .keys = 20,
                                    .causal = shared,
                                    .dropout = 0.3,
                                    .shared = shared,
                                    .dtype = dtype});
      const Results all = run(whole);
      Case part = whole;
      part.params.heads = 2, part.params.total_heads = 4;
      for (const int64_t first : {0, 2}) {
        part.params.first_head = first;
        const auto cut = [&](const Tensor& x) { return block_of(x, first * 16, 2 * 16); };
        part.q = cut(whole.q), part.k = cut(whole.k), part.v = cut(whole.v);
        part.d_out = cut(whole.d_out);
        part.bias = whole.bias.slice(first, first + 2).clone();
        const Results got = run(part);
        expect_same_bits(got.out, cut(all.out), "out");
        expect_same_bits(got.d_q, cut(all.d_q), "d_q");
        expect_same_bits(got.d_k, cut(all.d_k), "d_k");
        expect_same_bits(got.d_v, cut(all.d_v), "d_v");
        expect_same_bits(got.d_bias, all.d_bias.slice(first, first + 2).clone(), "d_bias");
      }
      part.params.first_head = 3;
      EXPECT_THROW(run(part), Error);
    }
  }
}

TEST(Attention, HugeScoresNeitherOverflowNorVanish) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Case c =
        make_case({.batch = 1, .heads = 1, .dim = 4, .queries = 9, .keys = 600, .dtype = dtype});
    c.bias = random_tensor(c.diagonals(), dtype, 11, 1e3);
    const Results got = run(c);
    for (const Tensor& x : {got.out, got.log_sum_exp, got.d_q, got.d_k, got.d_v, got.d_bias}) {
      EXPECT_TRUE(std::isfinite(largest(x.to_vector()))) << c.str();
    }
    if (dtype == DType::f32) continue;  // scores of 1e3 leave its weights few digits
    const Reference want = reference(c);
    compare(got.out, want.out, c, 100 * 600, "out");
    compare(got.log_sum_exp, want.log_sum_exp, c, 100 * 600, "log_sum_exp");
    compare(got.d_v, want.d_v, c, 100 * 600, "d_v");
  }
}

// A search for the largest score passes over NaN: a row of nothing else is no row without keys.
TEST(Attention, AQueryThatIsNoNumberHasNoResult) {
  for (const bool causal : {false, true}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      Case c = make_case({.batch = 1,
                          .heads = 2,
                          .dim = 8,
                          .queries = 40,
                          .keys = causal ? 40 : 300,
                          .causal = causal,
                          .dtype = dtype});
      constexpr int64_t kQuery = 5, kWidth = 16;  // of head 0; head 1 and other queries keep theirs
      const Results whole = run(c);
      if (dtype == DType::f32) {
        c.q.data<float>()[kQuery * kWidth] = std::numeric_limits<float>::quiet_NaN();
      } else {
        c.q.data<double>()[kQuery * kWidth] = std::numeric_limits<double>::quiet_NaN();
      }
      const Results got = run(c);
      const auto out = got.out.to_vector(), before = whole.out.to_vector();
      for (int64_t i = 0; i < std::ssize(out); ++i) {
        const bool lost = i / kWidth == kQuery && i % kWidth < 8;
        EXPECT_TRUE(lost ? std::isnan(out[i]) : out[i] == before[i]) << c.str() << " at " << i;
      }
      EXPECT_TRUE(std::isnan(largest(got.d_k.to_vector()))) << c.str();
      EXPECT_TRUE(std::isnan(largest(got.d_v.to_vector()))) << c.str();
    }
  }
}

TEST(Attention, GradientsAccumulateOrWrite) {
  for (const DType dtype : test::kFloatTypes) {
    const Case c = make_case({.queries = 19, .keys = 23, .dtype = dtype});
    const Results written = run(c, Accum::write), added = run(c, Accum::add);
    const auto sum = [&](const Tensor& got, const Tensor& part, const std::string& what) {
      std::vector<double> want = random_tensor(part.shape(), dtype, 8).to_vector();
      const auto values = part.to_vector();
      for (size_t i = 0; i < want.size(); ++i) want[i] += values[i];
      expect_close(got, want, {test::epsilon(dtype), 2 * test::epsilon(dtype) * largest(want)},
                   what);
    };
    sum(added.d_q, written.d_q, "d_q");
    sum(added.d_k, written.d_k, "d_k");
    sum(added.d_v, written.d_v, "d_v");
    expect_same_bits(added.d_bias, written.d_bias, "d_bias");
  }
}

TEST(Attention, BitsDoNotDependOnThreads) {
  for (const bool causal : {false, true}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Case c = make_case({.batch = 2,
                                .heads = 2,
                                .dim = 32,
                                .queries = 300,
                                .keys = 300,
                                .causal = causal,
                                .dropout = 0.1,
                                .segments = 2,
                                .dtype = dtype});
      test::expect_thread_invariant(
          [&] {
            const Results r = run(c);
            return std::vector<Tensor>{r.out, r.log_sum_exp, r.d_q, r.d_k, r.d_v, r.d_bias};
          },
          c.str());
    }
  }
}

TEST(Attention, GradientsAgreeWithFiniteDifferences) {
  const test::ThreadsScope one_thread(1);
  for (const bool shared : {true, false}) {
    Case c = make_case({.batch = 2,
                        .heads = 2,
                        .dim = 5,
                        .queries = 7,
                        .keys = 9,
                        .dropout = 0.2,
                        .shared = shared,
                        .segments = 2,
                        .dtype = DType::f64});
    const Results got = run(c);
    const std::vector<double> weight = c.d_out.to_vector();
    const auto loss = [&] {
      Tensor out = Tensor::empty(c.queries(), DType::f64);
      Tensor lse = Tensor::empty(got.log_sum_exp.shape(), DType::f64);
      attention_forward(kStream, out, lse, c.q, c.k, c.v, c.bias, c.query_segments, c.key_segments,
                        c.params);
      double sum = 0;
      const auto values = out.to_vector();
      for (size_t i = 0; i < values.size(); ++i) sum += weight[i] * values[i];
      return sum;
    };
    test::expect_gradient(got.d_q, c.q, loss, "q");
    test::expect_gradient(got.d_k, c.k, loss, "k");
    test::expect_gradient(got.d_v, c.v, loss, "v");
    test::expect_gradient(got.d_bias, c.bias, loss, "bias");
  }
}

TEST(Attention, OfNoRowsIsNothing) {
  const Case none = make_case({.batch = 0, .queries = 3, .keys = 4});
  const Results r = run(none);
  expect_same_bits(r.d_bias, Tensor::zeros(none.diagonals(), DType::f32), "d_bias");
}

TEST(Attention, RefusesTensorsThatDoNotFit) {
  Case c = make_case({});
  Tensor out = Tensor::empty(c.queries(), DType::f32);
  Tensor lse = Tensor::empty({2, 3, 17}, DType::f32);
  const auto forward = [&](const Case& x) {
    attention_forward(kStream, out, lse, x.q, x.k, x.v, x.bias, x.query_segments, x.key_segments,
                      x.params);
  };
  EXPECT_NO_THROW(forward(c));
  Case bad = c;
  bad.k = c.k.to(DType::bf16);
  EXPECT_THROW(forward(bad), Error);
  bad = c;
  bad.v = random_tensor({3, 48}, DType::f32, 1);
  EXPECT_THROW(forward(bad), Error);
  bad = c;
  bad.bias = random_tensor({3, 50}, DType::f32, 1);
  EXPECT_THROW(forward(bad), Error);
  bad = c;
  bad.query_segments = test::random_ints({2, 17}, 1, 0, 2);
  EXPECT_THROW(forward(bad), Error);
  bad = c;
  bad.params.dropout = 1;
  EXPECT_THROW(forward(bad), Error);
}

}  // namespace
}  // namespace sw::kernels
