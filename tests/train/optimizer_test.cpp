#include "libswitch/train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "libswitch/base/rng.h"
#include "tests/support/training_case.h"

namespace sw {
namespace {

using Rms = Conventions::ExpertRms;

ParameterSpec spec(Shape shape, std::vector<std::string> axes) {
  return {"x", shape, std::move(axes), {}, false};
}
class Adafactor : public testing::TrainingTest {};
class AdamW : public testing::TrainingTest {};
class OptimizerStates : public testing::TrainingTest {};

const std::vector<std::string> kExpertAxes = {"expert", "d_model", "d_ff"};

TEST(AdafactorView, FactorsAMatrixOnlyWhenBothSidesReachTheLimit) {
  EXPECT_TRUE(adafactor_view(spec({128, 512}, {"d_model", "d_ff"}), Rms::all, 128).factored);
  EXPECT_FALSE(adafactor_view(spec({127, 512}, {"d_model", "d_ff"}), Rms::all, 128).factored);
  EXPECT_FALSE(adafactor_view(spec({4096}, {"d_model"}), Rms::all, 128).factored);
}

TEST(AdafactorView, FactorsTheTwoLargestDimensionsOfAllExpertsTogether) {
  const AdafactorView few = adafactor_view(spec({8, 256, 1024}, kExpertAxes), Rms::all, 128);
  EXPECT_TRUE(few.factored && few.one_rms && !few.permuted());
  EXPECT_EQ(few.batch_dimension, 0);
  const AdafactorView many = adafactor_view(spec({512, 256, 1024}, kExpertAxes), Rms::all, 128);
  EXPECT_TRUE(many.factored && many.permuted());
  EXPECT_EQ(many.batch_dimension, 1);
  EXPECT_EQ(many.rows, 512);
  EXPECT_EQ(many.columns, 1024);
  const AdafactorView most = adafactor_view(spec({512, 300, 256}, kExpertAxes), Rms::all, 128);
  EXPECT_EQ(most.batch_dimension, 2);
}

TEST(AdafactorView, CountsTheEarlierOfEqualDimensionsAsLarger) {
  const AdafactorView view = adafactor_view(spec({128, 128, 512}, kExpertAxes), Rms::all, 128);
  EXPECT_EQ(view.batch_dimension, 1);
}

TEST(AdafactorView, TakesEachExpertByItselfUnderT5xRules) {
  const AdafactorView view = adafactor_view(spec({512, 256, 1024}, kExpertAxes), Rms::each, 128);
  EXPECT_TRUE(view.factored && !view.one_rms && !view.permuted());
  EXPECT_EQ(view.batch, 512);
  const AdafactorView small = adafactor_view(spec({512, 64, 1024}, kExpertAxes), Rms::each, 128);
  EXPECT_FALSE(small.factored);
  EXPECT_EQ(small.batch, 512);
  EXPECT_FALSE(small.one_rms);
  const ParameterSpec router = spec({256, 256}, {"d_model", "experts"});
  EXPECT_FALSE(adafactor_view(router, Rms::each, 128).factored);
  EXPECT_TRUE(adafactor_view(router, Rms::all, 128).factored);
}

// Adafactor as mesh_tensorflow/optimize.py has it, in double, for any two factored dimensions.
struct Reference {
  Shape shape;
  std::vector<double> weight, vr, vc, v;
  int d0 = -1, d1 = -1;  // factored dimensions, -1: not

  std::array<int64_t, 3> at(int64_t i) const {
    std::array<int64_t, 3> place{};
    for (int d = shape.rank() - 1; d >= 0; --d) {
      place[static_cast<size_t>(d)] = i % shape[d];
      i /= shape[d];
    }
    return place;
  }
  // Index in the shape without dimension `without`.
  size_t reduced(const std::array<int64_t, 3>& place, int without) const {
    int64_t index = 0;
    for (int d = 0; d < shape.rank(); ++d) {
      if (d != without) index = index * shape[d] + place[static_cast<size_t>(d)];
    }
    return static_cast<size_t>(index);
  }
  size_t reduced2(const std::array<int64_t, 3>& place) const {
    int64_t index = 0;
    for (int d = 0; d < shape.rank(); ++d) {
      if (d != d0 && d != d1) index = index * shape[d] + place[static_cast<size_t>(d)];
    }
    return static_cast<size_t>(index);
  }

  void step(const std::vector<double>& g, int64_t number, double rate) {
    const int64_t n = shape.elements();
    const auto size = static_cast<size_t>(n);
    const double beta = 1 - std::pow(static_cast<double>(number) + 1, -0.8);
    std::vector<double> u(size);
    if (d0 >= 0) {
      std::vector<double> r(size / static_cast<size_t>(shape[d0])),
          c(size / static_cast<size_t>(shape[d1]));
      for (int64_t i = 0; i < n; ++i) {
        const double square = g[static_cast<size_t>(i)] * g[static_cast<size_t>(i)] + 1e-30;
        r[reduced(at(i), d0)] += square / static_cast<double>(shape[d0]);
        c[reduced(at(i), d1)] += square / static_cast<double>(shape[d1]);
      }
      vr.resize(r.size()), vc.resize(c.size());
      for (size_t i = 0; i < r.size(); ++i) vr[i] = beta * vr[i] + (1 - beta) * r[i];
      for (size_t i = 0; i < c.size(); ++i) vc[i] = beta * vc[i] + (1 - beta) * c[i];
      std::vector<double> mean(size / static_cast<size_t>(shape[d0] * shape[d1]));
      for (int64_t i = 0; i < n; ++i) {
        const auto place = at(i);
        // Each entry of vr is met shape[d0] times.
        mean[reduced2(place)] +=
            vr[reduced(place, d0)] / static_cast<double>(shape[d0] * shape[d1]);
      }
      for (int64_t i = 0; i < n; ++i) {
        const auto place = at(i);
        u[static_cast<size_t>(i)] = g[static_cast<size_t>(i)] /
                                    std::sqrt(vr[reduced(place, d0)] / mean[reduced2(place)]) /
                                    std::sqrt(vc[reduced(place, d1)]);
      }
    } else {
      v.resize(size);
      for (size_t i = 0; i < size; ++i) {
        v[i] = beta * v[i] + (1 - beta) * (g[i] * g[i] + 1e-30);
        u[i] = g[i] / std::sqrt(v[i]);
      }
    }
    const auto rms = [&](const std::vector<double>& x) {
      return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0) /
                       static_cast<double>(n));
    };
    const double clip = std::max(1.0, rms(u)), scale = std::max(rms(weight), 1e-3) * rate;
    for (size_t i = 0; i < size; ++i) weight[i] -= scale * u[i] / clip;
  }
};

void fill_gradients(Model& model, int64_t step) {
  model.clear_gradients();
  for (auto& parameter : model.parameters()) {
    Tensor g = parameter->gradient().target().tensor;
    const RngKey key =
        rng_key(static_cast<uint64_t>(step) + 50, RngPurpose::test, parameter->name());
    for (int64_t i = 0; i < g.elements(); ++i) {
      g.data<float>()[i] = static_cast<float>(1e-3 * random_normal(key, static_cast<uint64_t>(i)));
    }
  }
}

// One dense and one sparse block pair whose expert tensors are factored over the dimensions that
// `experts`, `d_model` = 24 and `d_ff` = 20 rank largest.
void compare_with_reference(int64_t experts) {
  ModelConfig config = testing::small_model();
  config.d_model = 24;
  config.d_ff = 20;
  config.experts = experts;
  config.encoder_layers = config.decoder_layers = 2;
  Model model(config, DType::f32);
  model.initialize(1);
  OptimizerConfig options;
  options.min_factored_size = 16;
  const auto optimizer = make_optimizer(options, model);

  std::vector<Reference> references;
  std::vector<std::vector<double>> initial;
  for (auto& parameter : model.parameters()) {
    Reference r;
    r.shape = parameter->spec().shape;
    r.weight = parameter->master().to_vector();
    initial.push_back(r.weight);
    std::vector<int> order(static_cast<size_t>(r.shape.rank()));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return r.shape[a] > r.shape[b]; });
    if (order.size() >= 2 && r.shape[order[1]] >= 16) r.d0 = order[0], r.d1 = order[1];
    references.push_back(std::move(r));
  }
  for (int64_t step = 0; step < 3; ++step) {
    fill_gradients(model, step);
    for (size_t p = 0; p < references.size(); ++p) {
      references[p].step(model.parameters()[p]->gradient().gradient().to_vector(), step, 0.01);
    }
    optimizer->apply(0.01, step);
    if (step != 1) continue;
    // What it knows of the weights does not outlast their change by others.
    for (size_t p = 0; p < references.size(); ++p) {
      Tensor& weight = model.parameters()[p]->master();
      for (int64_t i = 0; i < weight.elements(); ++i) weight.data<float>()[i] *= 3;
      for (double& w : references[p].weight) w *= 3;
      for (double& w : initial[p]) w *= 3;
      model.parameters()[p]->refresh(Stream{});
    }
  }
  for (size_t p = 0; p < references.size(); ++p) {
    const auto got = model.parameters()[p]->master().to_vector();
    double error = 0, change = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error = std::max(error, std::abs(got[i] - references[p].weight[i]));
      change = std::max(change, std::abs(initial[p][i] - references[p].weight[i]));
    }
    // f32 rounding of weights near 1 (embedding) against steps of 1e-2.
    EXPECT_LT(error, 1e-5 * change + 5e-7) << model.parameters()[p]->name();
  }
}

TEST_F(Adafactor, EqualsTheReferenceWhenMatricesOfExpertsAreFactored) { compare_with_reference(4); }
TEST_F(Adafactor, EqualsTheReferenceWhenExpertsAreRowsOrColumns) { compare_with_reference(22); }
TEST_F(Adafactor, EqualsTheReferenceWhenExpertsAreTheLargestDimension) {
  compare_with_reference(40);
}

TEST_F(Adafactor, GivesEveryExpertItsOwnRmsUnderT5xRules) {
  ModelConfig config = testing::small_model();
  config.conventions = conventions_preset("t5x");
  const auto step_of_first_expert = [&](float other_scale) {
    Model model(config, DType::f32);
    model.initialize(1);
    const auto optimizer = make_optimizer({}, model);
    Parameter* wi = model.find("encoder/block_001/moe/wi");
    fill_gradients(model, 0);
    Tensor weight = wi->master();
    for (int64_t i = weight[0].elements(); i < weight.elements(); ++i) {
      weight.data<float>()[i] *= other_scale;
    }
    optimizer->apply(0.1, 0);
    return weight[0].to_vector();
  };
  EXPECT_EQ(step_of_first_expert(1), step_of_first_expert(100));
  config.conventions = conventions_preset("paper");
  EXPECT_NE(step_of_first_expert(1), step_of_first_expert(100));
}

TEST_F(Adafactor, LeavesNothingOfAParameterWithoutGradientUntouchedButItsValue) {
  Model model(testing::small_model(), DType::f32);
  model.initialize(1);
  const auto optimizer = make_optimizer({}, model);
  model.clear_gradients();
  const std::string before = testing::weights_checksum(model);
  optimizer->apply(0.1, 0);
  EXPECT_EQ(testing::weights_checksum(model), before);
}

TEST_F(AdamW, TakesItsFirstStepByTheSignOfTheGradientAndDecaysMatricesOnly) {
  Model model(testing::small_model(), DType::f32);
  model.initialize(1);
  OptimizerConfig config;
  config.kind = OptimizerConfig::Kind::adamw;
  config.weight_decay = 0.5;
  const auto optimizer = make_optimizer(config, model);
  fill_gradients(model, 0);
  for (const bool decays : {true, false}) {
    Parameter* parameter = model.find(decays ? "encoder/block_000/attn/q" : "encoder/final_norm");
    const auto before = parameter->master().to_vector();
    const auto g = parameter->gradient().gradient().to_vector();
    if (decays) optimizer->apply(0.01, 0);
    const auto after = parameter->master().to_vector();
    if (!decays) continue;
    for (size_t i = 0; i < before.size(); ++i) {
      const double sign = g[i] > 0 ? 1 : -1;
      ASSERT_NEAR(after[i], before[i] * (1 - 0.005) - 0.01 * sign, 1e-5);
    }
  }
  // A norm scale starts at 1 and has moved by the step alone.
  for (const double w : model.find("encoder/final_norm")->master().to_vector()) {
    ASSERT_NEAR(std::abs(w - 1), 0.01, 1e-5);
  }
}

TEST_F(OptimizerStates, AreThoseThatTheSpecificationLists) {
  for (const auto kind : {OptimizerConfig::Kind::adafactor, OptimizerConfig::Kind::adamw}) {
    OptimizerConfig config;
    config.kind = kind;
    config.min_factored_size = 16;
    Model model(testing::small_model(), DType::f32);
    const auto optimizer = make_optimizer(config, model);
    const auto specs = optimizer_state_specs(config, model.config());
    ASSERT_EQ(specs.size(), optimizer->states().size());
    for (size_t i = 0; i < specs.size(); ++i) {
      EXPECT_EQ(specs[i].path, optimizer->states()[i].path);
      EXPECT_EQ(specs[i].shape, optimizer->states()[i].tensor.shape());
      EXPECT_EQ(specs[i].axes.size(), static_cast<size_t>(specs[i].shape.rank()));
    }
  }
}

}  // namespace
}  // namespace sw
