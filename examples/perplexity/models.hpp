/// @file
/// The layers that `perplexity` compares, by name, and language models made of them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "perplexity/options.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/lm/language_model.hpp"

namespace ttt::examples {

/// One type for all layers: which mixer a model holds is chosen when it is made.
using Model = LanguageModel<TTTLinear<float>, TTTMLP<float>>;

struct LayerKind {
  std::string name, backbone, description;
  std::size_t mixer;          // index among the mixers of `Model`
  bool mamba_backbone;        // shared QK with convolutions, gate, convolution before the block
  double base_learning_rate;  // of the inner loop
  bool inner_warmup;          // the official recipe of TTT-MLP
  double learning_rate;       // of the outer loop, found by trying
};

const std::vector<LayerKind>& layer_kinds();

/// Throws `std::invalid_argument` where there is no layer of that name.
const LayerKind& layer_kind(const std::string& name);

/// A configuration of the sizes in `options`. The hidden width of the feed-forward parts is such
/// that all layers have equally many parameters, to about the width of one unit.
Model::Config model_config(const LayerKind& kind, const Options& options);

/// Multiplies and adds of a forward, for one token, twice that of its products.
double forward_flops_per_token(const Model& model);

/// Bytes that a stream carries from token to token.
std::int64_t state_bytes(const Model& model);

/// DIR/config.json and DIR/model.safetensors, in the layout of Hugging Face.
void save_checkpoint(const std::filesystem::path& folder, const Model& model,
                     const LayerKind& kind);

/// A model from such a folder, its configuration, and the kind of its layers.
struct LoadedModel {
  nlohmann::json json;
  Model model;
  LayerKind kind;
};

/// Throws `std::exception` with one sentence where the folder does not hold a model of bytes that
/// this program knows.
LoadedModel load_checkpoint(const std::filesystem::path& folder);

}  // namespace ttt::examples
