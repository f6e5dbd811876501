// The laws for a TTT layer with an inner model of one's own, and what TTT layers alone promise:
// the scale of the inner learning rate.
#include "ttt/layers/ttt_layer.hpp"

#include <gtest/gtest.h>

#include "layers/ttt_cases.hpp"
#include "ttt/inner/inner_loop.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/inner/stages/residual.hpp"

namespace ttt::test {
namespace {

using ThreeLayerModel = Stack<Affine<2>, SiLU, Residual<LinearMap<2>, Tanh>, Affine<>>;
using Cases = TTTCases<ThreeLayerModel>;
INSTANTIATE_TYPED_TEST_SUITE_P(TTTThreeLayers, LayerLaws, Cases);

using Layer = TTTLayer<double, ThreeLayerModel>;

TEST(TTTLayerTest, ScaleZeroLeavesTheWeightsWhereTheyWere) {
  each_layer<Cases, double>([](const Layer& layer, Index period) {
    const Index T = 2 * period + 3, f = layer.config().head_width();
    for (const Index lead : {Index{0}, Index{2}}) {
      const Stream<Layer> stream = stream_of(layer, {lead, T, 0.0}, 1);
      auto state = stream.start_of(layer);
      set_zero(state.carried.sums);
      const auto before = state, start = state;
      Layer::Cache cache;
      auto workspace = layer.workspace(T);
      Matrix<double> y(layer.width(), T), z(f, 1);
      layer.forward(stream.x, state, y, workspace, cache, stream.options);
      expect_same_bits(state.weights, before.weights);
      expect_same_bits(state.carried.sums, before.carried.sums);
      for (Index h = 0; h < layer.config().heads; ++h) {
        for (Index t = 0; t < T; ++t) {
          InnerLoop<double, ThreeLayerModel>::output(
              before.weights.head(h), layer.parameters().norm(h),
              cache.activations.q.col(t).segment(h * f, f), z.col(0));
          EXPECT_LE(relative_error(cache.activations.z.col(t).segment(h * f, f), z.col(0)),
                    tolerance::rounding<double>);
        }
      }
      auto stepped = start;
      Vector<double> y_t(layer.width());
      for (Index t = 0; t < T; ++t) {
        layer.step(stream.x.col(t), stepped, y_t, workspace, stream.options);
        EXPECT_LE(relative_error(y_t, y.col(t)), tolerance::stream<double>);
      }
      expect_same_bits(stepped.weights, before.weights);
    }
  });
}

/// The scale multiplies the base learning rate, in what forward does and in what backward reads
/// from the cache.
TEST(TTTLayerTest, ScaleMultipliesTheBaseLearningRate) {
  each_layer<Cases, double>([](const Layer& layer, Index period) {
    auto config = layer.config();
    config.base_learning_rate *= 0.25;
    Layer slow(config);
    slow.parameters() = layer.parameters();
    const Stream<Layer> scaled = stream_of(layer, {0, 2 * period + 3, 0.25}, 2);
    Stream<Layer> plain = scaled;
    plain.options = {};
    expect_same_bits(run(layer, scaled), run(slow, plain));
  });
}

/// Heads so wide that products of many tokens go another way (core/small_product.hpp).
template <class L>
void expect_no_allocation(const L& layer) {
  auto workspace = layer.workspace(1);
  auto state = layer.initial_state();
  const Vector<float> x_t = Vector<float>::Constant(layer.width(), 0.1f);
  Vector<float> y_t(layer.width());
  const AllocationCounter counter;
  for (int t = 0; t < 3; ++t) layer.step(x_t, state, y_t, workspace);
  EXPECT_EQ(counter.count(), 0u) << "head width " << layer.config().head_width();
}

TEST(TTTLayerTest, AStepOfAWideHeadAllocatesNothing) {
  if constexpr (!counts_allocations) {
    GTEST_SKIP() << "allocations are counted with glibc and without sanitizers only";
  } else {
    const TTTConfig config{.width = 320, .mini_batch = 2};
    expect_no_allocation(TTTLayer<float, LinearModel>(config));
    expect_no_allocation(TTTLayer<float, MLPModel>(config));
  }
}

}  // namespace
}  // namespace ttt::test
