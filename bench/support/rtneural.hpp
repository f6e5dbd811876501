/// @file
/// The recurrent layers of RTNeural (a library for audio) with the call of ours: compiled where
/// TTT_RTNEURAL_INCLUDE_DIR names its source tree. Sizes are part of its types.
#pragma once

#if defined(TTT_WITH_RTNEURAL)

#include <RTNeural/RTNeural.h>

#include <vector>

#include "ttt/core/random.hpp"
#include "ttt/core/types.hpp"

namespace ttt::bench {

/// `gates` matrices side by side, as RTNeural takes weights: a row for each input.
inline std::vector<std::vector<float>> random_rows(Random& random, int rows, int cols) {
  std::vector<std::vector<float>> result(static_cast<std::size_t>(rows));
  for (auto& row : result)
    for (int i = 0; i < cols; ++i) row.push_back(static_cast<float>(0.1 * random.normal()));
  return result;
}

/// `Layer` of that width, whose weights stand for so many gates.
template <int width, class Layer, int gates>
class RTNeuralLayer {
 public:
  RTNeuralLayer() {
    Random random(1);
    auto& layer = model_.template get<0>();
    layer.setWVals(random_rows(random, width, gates * width));
    layer.setUVals(random_rows(random, width, gates * width));
    const auto bias = random_rows(random, 2, gates * width);
    if constexpr (requires { layer.setBVals(bias); }) {
      layer.setBVals(bias);  // GRU: one for the input and one for the state
    } else {
      layer.setBVals(bias[0]);
    }
    model_.reset();
  }
  const float* step(const float* x) {
    model_.forward(x);
    return model_.getOutputs();
  }

 private:
  RTNeural::ModelT<float, width, width, Layer> model_;
};

template <int width>
using RTNeuralLSTM = RTNeuralLayer<width, RTNeural::LSTMLayerT<float, width, width>, 4>;
template <int width>
using RTNeuralGRU = RTNeuralLayer<width, RTNeural::GRULayerT<float, width, width>, 3>;

}  // namespace ttt::bench

#endif
