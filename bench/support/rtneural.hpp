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

template <int width>
class RTNeuralLSTM {
 public:
  RTNeuralLSTM() {
    Random random(1);
    auto& layer = model_.template get<0>();
    layer.setWVals(random_rows(random, width, 4 * width));
    layer.setUVals(random_rows(random, width, 4 * width));
    layer.setBVals(random_rows(random, 1, 4 * width)[0]);
    model_.reset();
  }
  const float* step(const float* x) {
    model_.forward(x);
    return model_.getOutputs();
  }

 private:
  RTNeural::ModelT<float, width, width, RTNeural::LSTMLayerT<float, width, width>> model_;
};

template <int width>
class RTNeuralGRU {
 public:
  RTNeuralGRU() {
    Random random(1);
    auto& layer = model_.template get<0>();
    layer.setWVals(random_rows(random, width, 3 * width));
    layer.setUVals(random_rows(random, width, 3 * width));
    layer.setBVals(random_rows(random, 2, 3 * width));
    model_.reset();
  }
  const float* step(const float* x) {
    model_.forward(x);
    return model_.getOutputs();
  }

 private:
  RTNeural::ModelT<float, width, width, RTNeural::GRULayerT<float, width, width>> model_;
};

}  // namespace ttt::bench

#endif
