/// @file
/// The layers that `perplexity` compares, by name, and language models made of them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "perplexity/model.hpp"
#include "perplexity/options.hpp"

namespace ttt::examples {

struct LayerKind {
  std::string name, backbone, description;
  std::vector<std::string_view> mixers;  // of the blocks in turn, names from `mixer_names`
  double learning_rate;                  // of the outer loop, found by `--study learning-rate`
  bool mamba_backbone = false;           // shared QK, gate, convolution before the block
  double base_learning_rate = 1;         // of the inner loop
  bool inner_warmup = false;             // the official recipe of TTT-MLP
};

const std::vector<LayerKind>& layer_kinds();

/// Throws `std::invalid_argument` where there is no layer of that name.
const LayerKind& layer_kind(const std::string& name);

/// A configuration of the sizes in `options`. All have equally many parameters: Mamba, whose blocks
/// have no feed-forward part, has twice as many blocks, and the others as wide a feed-forward part
/// as makes them equal, to about one unit.
Model::Config model_config(const LayerKind& kind, const Options& options);

/// Floating-point operations of a forward and a backward, for one token of a stream of `context`.
double training_flops_per_token(const Model& model, Index context);

/// Bytes that a stream carries after `context` tokens.
std::int64_t state_bytes(const Model& model, Index context);

/// DIR/config.json and DIR/model.safetensors, in the layout of Hugging Face.
void save_checkpoint(const std::filesystem::path& folder, const Model& model);

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
