#include "perplexity/models.hpp"

#include <cmath>
#include <fstream>
#include <stdexcept>

#include "ttt/io/checkpoint.hpp"
#include "ttt/io/config.hpp"
#include "ttt/layers/flops.hpp"

namespace ttt::examples {

const std::vector<LayerKind>& layer_kinds() {
  static const std::vector<LayerKind> kinds = {
      {"ttt-linear", "mamba", "TTT-Linear, Mamba backbone: shared QK with convolutions, gate", 0,
       true, 1.0, false, 4e-3},
      {"ttt-mlp", "mamba", "TTT-MLP, Mamba backbone", 1, true, 0.1, true, 4e-3},
      {"ttt-linear-t", "transformer", "TTT-Linear, Transformer backbone: separate q, k; no gate", 0,
       false, 1.0, false, 4e-3},
      {"ttt-mlp-t", "transformer", "TTT-MLP, Transformer backbone", 1, false, 0.1, true, 4e-3},
  };
  return kinds;
}

const LayerKind& layer_kind(const std::string& name) {
  std::string names;
  for (const LayerKind& kind : layer_kinds()) {
    if (kind.name == name) return kind;
    names += (names.empty() ? "" : ", ") + kind.name;
  }
  throw std::invalid_argument("there is no layer '" + name + "', expected one of " + names);
}

namespace {

Model::Config config_with(const LayerKind& kind, const Options& options, Index intermediate) {
  TTTConfig layer;
  layer.width = options.width;
  layer.heads = options.heads;
  layer.mini_batch = options.mini_batch;
  layer.share_qk = layer.gate = kind.mamba_backbone;
  layer.base_learning_rate = kind.base_learning_rate;
  layer.validate();
  Model::Config config;
  config.vocabulary = 256;
  config.trunk.depth = options.depth;
  config.trunk.block.width = options.width;
  config.trunk.block.intermediate = intermediate;
  config.trunk.block.pre_conv = kind.mamba_backbone;
  config.trunk.mixers = {layer, layer};
  config.trunk.layer_types.assign(static_cast<std::size_t>(options.depth), kind.mixer);
  return config;
}

Index parameter_count(const LayerKind& kind, const Options& options, Index intermediate) {
  return count_elements(Model(config_with(kind, options, intermediate)).parameters());
}

}  // namespace

Model::Config model_config(const LayerKind& kind, const Options& options) {
  // The reference: TTT-Linear with a feed-forward part of 8/3 of the width, as Llama has.
  const Index usual = std::max<Index>(8, options.width * 8 / 3 / 8 * 8);
  const Index target = parameter_count(layer_kind("ttt-linear"), options, usual);
  const Index smallest = parameter_count(kind, options, 8);
  const Index per_unit = 3 * options.width * options.depth;
  const Index intermediate = 8 + (target - smallest + per_unit / 2) / per_unit;
  if (intermediate < 8)
    throw std::invalid_argument(
        "layer " + kind.name + " alone has more parameters than a whole model of ttt-linear with " +
        "width " + std::to_string(options.width) + " and " + std::to_string(options.heads) +
        " heads, so they cannot be compared at equal size: use more heads or fewer layers");
  return config_with(kind, options, intermediate);
}

double forward_flops_per_token(const Model& model) {
  const auto& config = model.config();
  const auto width = static_cast<double>(model.width());
  double flops = 2 * width * static_cast<double>(config.vocabulary);
  for (const auto& block : model.trunk().parameters().layers) {
    flops += 6 * width * static_cast<double>(config.trunk.block.intermediate);
    flops +=
        std::visit([](const auto& layer) { return flops_per_token(layer).forward; }, block.mixer());
  }
  return flops;
}

std::int64_t state_bytes(const Model& model) {
  return count_elements(model.initial_state()) * static_cast<Index>(sizeof(float));
}

void save_checkpoint(const std::filesystem::path& folder, const Model& model,
                     const LayerKind& kind) {
  const auto& trunk = model.config().trunk;
  const TTTConfig& layer = kind.mixer == 0 ? std::get<0>(trunk.mixers) : std::get<1>(trunk.mixers);
  const auto json =
      language_model_config_to_json(model.config(), layer, kind.mixer == 0 ? "linear" : "mlp");
  save_parameters(folder / "model.safetensors", model.parameters());
  write_text_file(folder / "config.json", json.dump(2) + "\n");
}

namespace {

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file)
    throw std::runtime_error("cannot read " + path.string() +
                             ", expected a checkpoint's config.json beside its model.safetensors");
  auto json = nlohmann::json::parse(file, nullptr, false);
  if (json.is_discarded()) throw std::runtime_error(path.string() + " is not valid JSON");
  return json;
}

Model::Config config_from(const nlohmann::json& json) {
  const auto type = detail::json_value<std::string>(json, "model_type", "ttt");
  if (type != "ttt")
    throw std::runtime_error("the configuration's 'model_type' is '" + type + "', expected 'ttt'");
  auto config = language_model_config_from_json<TTTLinear<float>, TTTMLP<float>>(json);
  require(config.vocabulary == 256, "the configuration's 'vocab_size' is ", config.vocabulary,
          ", expected 256: these are models of bytes");
  const std::size_t mixer = ttt_layer_type(json) == "linear" ? 0 : 1;
  config.trunk.layer_types.assign(static_cast<std::size_t>(config.trunk.depth), mixer);
  return config;
}

/// The kind that comes nearest: the backbones differ in switches that a checkpoint may mix.
const LayerKind& kind_of(const Model::Config& config) {
  const bool mamba = std::get<0>(config.trunk.mixers).share_qk;
  for (const LayerKind& kind : layer_kinds())
    if (kind.mixer == config.trunk.layer_types.front() && kind.mamba_backbone == mamba) return kind;
  return layer_kinds().front();
}

}  // namespace

LoadedModel load_checkpoint(const std::filesystem::path& folder) {
  auto json = read_json(folder / "config.json");
  const Model::Config config = [&] {
    try {
      return config_from(json);
    } catch (const std::exception& error) {
      throw std::runtime_error((folder / "config.json").string() + ": " + error.what());
    }
  }();
  LoadedModel loaded{std::move(json), Model(config), kind_of(config)};
  LoadOptions options;
  if (config.tie_embeddings) options.optional = {"lm_head.weight"};
  load_parameters(folder / "model.safetensors", loaded.model.parameters(), options);
  return loaded;
}

}  // namespace ttt::examples
