// The laws for TTT-Linear.
#include "ttt/layers/ttt_linear.hpp"

#include <gtest/gtest.h>

#include "layers/ttt_cases.hpp"

namespace ttt::test {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(TTTLinear, LayerLaws, TTTCases<LinearModel>);

}  // namespace
}  // namespace ttt::test
