/// @file
/// The three models of the comparison. All read frames of `pixels` numbers and answer the next.
///   TTT-Conv   one TTT layer and nothing else; its inner model is a kernel of 5 x 5 pixels
///   TTT-MLP    linear in, one block with a TTT-MLP layer, norm, linear out
///   Mamba      the same with a Mamba layer
#pragma once

#include "ttt/inner/conv_model.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/lm/sequence_model.hpp"
#include "video/clips.hpp"

namespace ttt::examples {

/// f(x; W) = W * x + b, without a norm or a residual, on images of one channel.
using Kernel = ConvModel<Conv2D<1, diameter, side, side>, 0, GeluTanh, PlainOutput>;
using ConvLayer = TTTLayer<float, Kernel>;

/// With mini-batches of one token the rotation by the place in the mini-batch is none, and queries
/// and keys stay pictures. A dense map that begins at random would mix all pixels, and there would
/// be no motion to see: the three maps begin as the identity. The two convolutions over time begin
/// as the mean of the last two frames: that the earlier frame is the key and the later one the
/// query is left to learn. All else begins as in every TTT layer.
inline ConvLayer make_conv_layer(Random& random) {
  ConvLayer layer(
      {.width = pixels, .heads = 1, .mini_batch = 1, .share_qk = true, .conv_kernel = 2}, random);
  auto& p = layer.parameters();
  for (auto* map : {&p.q_proj, &p.v_proj, &p.o_proj}) map->setIdentity();
  for (auto* taps : {&p.conv_q_weight, &p.conv_k_weight}) taps->setConstant(0.5f);
  for (auto* bias : {&p.conv_q_bias, &p.conv_k_bias}) bias->setZero();
  return layer;
}

template <class Mixer>
SequenceModel<Mixer> make_model(const typename Mixer::Config& mixer, Random& random) {
  typename SequenceModel<Mixer>::Config config;
  config.input_width = config.output_width = pixels;
  config.trunk.block.width = mixer.width;
  config.trunk.mixers = {mixer};
  return {config, random};
}

inline auto make_mlp_model(Random& random) {
  return make_model<TTTMLP<float>>({.width = 192,
                                    .heads = 6,
                                    .mini_batch = 1,
                                    .share_qk = true,
                                    .gate = true,
                                    .base_learning_rate = 0.1},
                                   random);
}

inline auto make_mamba_model(Random& random) {
  return make_model<Mamba<float>>({.width = 192}, random);
}

}  // namespace ttt::examples
