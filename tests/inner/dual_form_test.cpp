// The dual form of stacks of depth one to three, with every kind of stage, alone and nested.
#include "inner/chunk_laws.hpp"
#include "inner/stacks.hpp"

namespace ttt::test {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Published, ChunkLaws, PublishedStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Deep, ChunkLaws, DeepStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Normed, ChunkLaws, NormedStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Branched, ChunkLaws, BranchedStacks);
INSTANTIATE_TYPED_TEST_SUITE_P(Rules, ChunkLaws, StacksWithRules);

}  // namespace
}  // namespace ttt::test
