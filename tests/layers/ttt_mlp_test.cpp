// The laws for TTT-MLP.
#include "ttt/layers/ttt_mlp.hpp"

#include <gtest/gtest.h>

#include "layers/ttt_cases.hpp"

namespace ttt::test {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(TTTMLP, LayerLaws, TTTCases<MLPModel>);

}  // namespace
}  // namespace ttt::test
