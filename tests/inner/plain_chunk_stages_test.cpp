// The dual form of stacks with every kind of stage against the plain definition of a chunk.
#include "inner/plain_chunk_laws.hpp"
#include "inner/stacks.hpp"

namespace ttt::test {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Published, PlainChunkLaws, PublishedStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Deep, PlainChunkLaws, DeepStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Normed, PlainChunkLaws, NormedStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Branched, PlainChunkLaws, BranchedStacks);

/// Stages in the other places, first and last; and a corner, where differences go wrong.
using Elsewhere =
    ::testing::Types<Stack<LayerNormStage, LinearMap<2>, ReLU, Affine<>, Identity, RMSNormStage>,
                     PlainStack<Residual<Gated<Tanh, Residual<Affine<>>>, RMSNormStage>,
                                Residual<Affine<3>, GeluTanh, LinearMap<>>, LayerNormStage>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Elsewhere, PlainChunkLaws, Elsewhere);

}  // namespace
}  // namespace ttt::test
