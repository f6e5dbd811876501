// The dual form of stacks of depth one to three, with every kind of stage, alone and nested.
#include "ttt/inner/dual_form.hpp"

#include "inner/chunk_laws.hpp"
#include "ttt/inner/linear_model.hpp"
#include "ttt/inner/mlp_model.hpp"
#include "ttt/inner/stages/gated.hpp"
#include "ttt/inner/stages/norms.hpp"
#include "ttt/inner/stages/residual.hpp"
#include "ttt/nn/own_activation.hpp"

namespace ttt::test {
namespace {

using Published = ::testing::Types<LinearModel, MLPModel, MLPModelRoundedGelu>;
INSTANTIATE_TYPED_TEST_SUITE_P(Published, ChunkLaws, Published);

struct Snake {
  static auto value(auto z) { return z + sin(z) * sin(z); }
};

using Deep = ::testing::Types<PlainStack<LinearMap<3>, Tanh, LinearMap<>>,
                              Stack<SiLU, Affine<2>, OwnActivation<Snake>, Affine<>, Tanh>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Deep, ChunkLaws, Deep);

using Normed =
    ::testing::Types<PlainStack<Affine<2>, LayerNormStage, SiLU, Affine<>>,
                     PlainStack<RMSNormStage, LinearMap<2>, RMSNormStage, Tanh, Affine<>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Normed, ChunkLaws, Normed);

using Branched =
    ::testing::Types<PlainStack<Residual<LinearMap<>, Tanh>, SwiGLUStage<2>, LinearMap<>>,
                     Stack<Gated<Chain<LayerNormStage, Affine<2>, Tanh>, Affine<2>>,
                           Residual<SwiGLUStage<2>>, Affine<>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Branched, ChunkLaws, Branched);

// A delta of two: some errors lie beyond it, and few near it, where differences see a corner.
using Rules =
    ::testing::Types<StackOf<OutputRule<LayerNormTop, DotProduct, false>, LinearMap<>>,
                     StackOf<OutputRule<RMSNormTop, SquaredError, true>, Affine<>>,
                     StackOf<OutputRule<LayerNormTop, HuberError<std::ratio<2>>, true>, Affine<>>,
                     StackOf<OutputRule<NoNorm, DotProduct, true>, LinearMap<>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Rules, ChunkLaws, Rules);

}  // namespace
}  // namespace ttt::test
