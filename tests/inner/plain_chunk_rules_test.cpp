// The dual form under every pair of a norm and a loss against the plain definition of a chunk.
#include "inner/plain_chunk_laws.hpp"
#include "inner/stacks.hpp"

namespace ttt::test {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Rules, PlainChunkLaws, StacksWithRules);

using Huber = HuberError<std::ratio<1, 2>>;  // most errors lie beyond
using OtherRules =
    ::testing::Types<StackOf<OutputRule<LayerNormTop, SquaredError, false>, Affine<>>,
                     StackOf<OutputRule<RMSNormTop, DotProduct, true>, Affine<>>,
                     StackOf<OutputRule<RMSNormTop, Huber, false>, Affine<>>,
                     StackOf<OutputRule<NoNorm, SquaredError, true>, Affine<>>,
                     StackOf<OutputRule<NoNorm, Huber, false>, LinearMap<>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(OtherRules, PlainChunkLaws, OtherRules);

}  // namespace
}  // namespace ttt::test
