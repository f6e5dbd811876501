// The laws for Mamba.
#include "ttt/layers/mamba.hpp"

#include <gtest/gtest.h>

#include "support/laws.hpp"

namespace ttt::test {
namespace {

struct MambaCases {
  template <class S>
  using Layer = Mamba<S>;

  static std::vector<LayerCase<MambaConfig>> small() {
    MambaConfig published;
    published.width = 6;
    MambaConfig biased{5, 7, 5, 1, 1, true, false};
    MambaConfig one_state{4, 3, 1, 4, 2, true, true};
    MambaConfig blocks{3, 70, 2, 3};  // two blocks of channels, the second almost empty
    return {{"published choices", published, 4},
            {"kernel 1, 5 states, rank 1, biases but the convolution's", biased, 4},
            {"one state", one_state, 4},
            {"two blocks of channels, across a border", blocks, ScanBlock<float>::chunk}};
  }

  static MambaConfig large() { return {64, 150, 8}; }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Mamba, LayerLaws, MambaCases);

}  // namespace
}  // namespace ttt::test
