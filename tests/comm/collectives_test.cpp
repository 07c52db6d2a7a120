// The collectives on worlds of threads.
#include <gtest/gtest.h>

#include "libswitch/base/error.h"
#include "libswitch/comm/local/single.h"
#include "libswitch/comm/local/threads.h"
#include "tests/support/collective_checks.h"

namespace sw {
namespace {

class Collectives : public testing::TestWithParam<std::tuple<CollectiveCheck, int64_t>> {};

TEST_P(Collectives, AgreeWithPlainComputation) {
  const auto& [check, ranks] = GetParam();
  run_ranks(ranks, check.run);
}

INSTANTIATE_TEST_SUITE_P(OnThreads, Collectives,
                         testing::Combine(testing::ValuesIn(collective_checks().begin(),
                                                            collective_checks().end()),
                                          testing::Values(1, 2, 3, 4, 5, 8)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "On" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(Collectives, AgreeWithPlainComputationInTheWorldOfOneRank) {
  for (const CollectiveCheck& check : collective_checks()) {
    SCOPED_TRACE(check.name);
    check.run(single_world());
  }
}

TEST(Collectives, RefuseSizesThatDoNotFit) {
  EXPECT_THROW(run_ranks(2,
                         [](World& world) {
                           const Tensor in = Tensor::zeros({3}, DType::f32);
                           Tensor out = Tensor::zeros({3}, DType::f32);
                           world.group().all_to_all(out, in);
                         }),
               Error);
  EXPECT_THROW(run_ranks(2,
                         [](World& world) {
                           const Tensor in = Tensor::zeros({4, 3}, DType::f32);
                           Tensor out = Tensor::zeros({2, 2}, DType::f32);
                           world.group().reduce_scatter(out, in);
                         }),
               Error);
}

TEST(Collectives, RanksThatDisagreeOnSizesEndWithAnError) {
  try {
    run_ranks(2, [](World& world) {
      Tensor x = Tensor::zeros({8 + world.rank() * 8}, DType::f32);
      world.group().all_reduce(x);
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("ranks disagree on sizes"), std::string::npos)
        << error.what();
  }
}

TEST(Collectives, SixtyFourRanksShareTwoCores) {
  run_ranks(64, [](World& world) {
    std::vector<int64_t> ones(1000, 1);
    Tensor x = Tensor::from({1000}, std::vector<float>(1000, 1.0f));
    for (int i = 0; i < 3; ++i) world.group().barrier();
    world.group().all_reduce(x);
    EXPECT_EQ(x.data<float>()[999], 64);
    const Tensor in = Tensor::zeros({640, 2}, DType::f32);
    Tensor out = Tensor::zeros({640, 2}, DType::f32);
    world.group().all_to_all(out, in);
  });
}

}  // namespace
}  // namespace sw
