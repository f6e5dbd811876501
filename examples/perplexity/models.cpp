#include "perplexity/models.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

#include "ttt/io/checkpoint.hpp"
#include "ttt/io/config.hpp"
#include "ttt/layers/flops.hpp"

namespace ttt::examples {

/// Learning rates of the layers of the default comparison, four trials each, on the text that
/// examples/run.sh uses:
///   examples/run.sh --study learning-rate --tokens 1200000 --test-bytes 100000
/// (bits per byte of validation text at the chosen rate: ttt-linear 2.335, ttt-mlp 2.352, mamba
/// 2.230, attention 2.538, lstm 2.313.) The other layers have those of their nearest relatives.
const std::vector<LayerKind>& layer_kinds() {
  using namespace layer_names;
  static const std::vector<LayerKind> kinds = {
      {.name = "ttt-linear",
       .backbone = "mamba",
       .description = "TTT-Linear, Mamba backbone: shared QK with convolutions, gate",
       .mixers = {ttt_linear},
       .learning_rate = 4e-3,
       .mamba_backbone = true},
      {.name = "ttt-mlp",
       .backbone = "mamba",
       .description = "TTT-MLP, Mamba backbone",
       .mixers = {ttt_mlp},
       .learning_rate = 8e-3,
       .mamba_backbone = true,
       .base_learning_rate = 0.1,
       .inner_warmup = true},
      {.name = "ttt-linear-t",
       .backbone = "transformer",
       .description = "TTT-Linear, Transformer backbone: separate q, k; no gate",
       .mixers = {ttt_linear},
       .learning_rate = 4e-3},
      {.name = "ttt-mlp-t",
       .backbone = "transformer",
       .description = "TTT-MLP, Transformer backbone",
       .mixers = {ttt_mlp},
       .learning_rate = 8e-3,
       .base_learning_rate = 0.1,
       .inner_warmup = true},
      {.name = "mamba",
       .backbone = "mamba",
       .description = "Mamba: selective state space; twice the blocks, no feed-forward part",
       .mixers = {mamba},
       .learning_rate = 2.8e-3},
      {.name = "attention",
       .backbone = "transformer",
       .description = "Attention over all earlier tokens, rotary positions (Llama)",
       .mixers = {attention},
       .learning_rate = 2e-3},
      {.name = "window-attention",
       .backbone = "transformer",
       .description = "Attention over the last --window tokens (Mistral)",
       .mixers = {window_attention},
       .learning_rate = 2e-3},
      {.name = "lstm",
       .backbone = "transformer",
       .description = "LSTM between the norms and feed-forward parts of a Transformer",
       .mixers = {lstm},
       .learning_rate = 8e-3},
      {.name = "linear-attention",
       .backbone = "transformer",
       .description = "Linear attention, features elu + 1, normalized (Katharopoulos et al. 2020)",
       .mixers = {linear_attention},
       .learning_rate = 4e-3},
      {.name = "hybrid",
       .backbone = "transformer",
       .description = "Window attention and TTT-Linear in turn",
       .mixers = {window_attention, ttt_linear},
       .learning_rate = 4e-3},
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

bool has_feed_forward(const LayerKind& kind) {
  return kind.mixers != std::vector{layer_names::mamba};
}

std::size_t mixer_index(std::string_view name) {
  return static_cast<std::size_t>(std::find(mixer_names.begin(), mixer_names.end(), name) -
                                  mixer_names.begin());
}

Model::Config config_with(const LayerKind& kind, const Options& options, Index intermediate) {
  const Index width = options.width;
  TTTConfig ttt{.width = width, .heads = options.heads, .mini_batch = options.mini_batch};
  ttt.share_qk = ttt.gate = kind.mamba_backbone;
  ttt.base_learning_rate = kind.base_learning_rate;
  const AttentionConfig attention{.width = width, .heads = options.heads};
  AttentionConfig window = attention;
  window.window = options.window;
  Model::Config config;
  config.vocabulary = 256;
  config.trunk.depth = options.depth * (has_feed_forward(kind) ? 1 : 2);
  config.trunk.block.width = width;
  config.trunk.block.intermediate = intermediate;
  config.trunk.block.pre_conv = kind.mamba_backbone;
  config.trunk.block.rms_norm_epsilon = has_feed_forward(kind) ? 1e-6 : 1e-5;
  config.trunk.mixers = {ttt,
                         ttt,
                         attention,
                         window,
                         MambaConfig{.width = width},
                         LSTMConfig{.width = width},
                         LinearAttentionConfig{.width = width, .heads = options.heads}};
  for (Index i = 0; i < config.trunk.depth; ++i)
    config.trunk.layer_types.push_back(
        mixer_index(kind.mixers[static_cast<std::size_t>(i) % kind.mixers.size()]));
  return config;
}

Index parameter_count(const LayerKind& kind, const Options& options, Index intermediate) {
  return count_elements(Model(config_with(kind, options, intermediate)).parameters());
}

}  // namespace

Model::Config model_config(const LayerKind& kind, const Options& options) {
  if (!has_feed_forward(kind)) return config_with(kind, options, 0);
  const Index target = parameter_count(layer_kind("mamba"), options, 0);
  constexpr Index fewest = 8;
  const Index smallest = parameter_count(kind, options, fewest);
  const Index per_unit = 3 * options.width * options.depth;
  const Index intermediate = fewest + (target - smallest + per_unit / 2) / per_unit;
  if (intermediate < fewest)
    throw std::invalid_argument(
        "layer " + kind.name +
        " alone has more parameters than a whole model of mamba with width " +
        std::to_string(options.width) + " and " + std::to_string(options.heads) +
        " heads, so they cannot be compared at equal size: use more heads or fewer layers");
  return config_with(kind, options, intermediate);
}

double training_flops_per_token(const Model& model, Index context) {
  const auto& config = model.config();
  const auto width = static_cast<double>(model.width());
  // A product costs 2 in a forward and 4 in a backward.
  double flops = 6 * width * static_cast<double>(config.vocabulary);
  for (const auto& block : model.trunk().parameters().layers) {
    flops += 18 * width * static_cast<double>(config.trunk.block.intermediate);
    const auto mixer = std::visit(
        [&](const auto& layer) { return flops_per_token(layer, context); }, block.mixer());
    flops += mixer.forward + mixer.backward;
  }
  return flops;
}

std::int64_t state_bytes(const Model& model, Index context) {
  return count_elements(model.initial_state(context)) * static_cast<Index>(sizeof(float));
}

void save_checkpoint(const std::filesystem::path& folder, const Model& model) {
  const auto json = language_model_config_to_json(model.config(), mixer_names);
  save_parameters(folder / "model.safetensors", model.parameters(), {{"format", "pt"}},
                  tensor_names(json));
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
  const Model::Config config =
      language_model_config_from_json<TTTLinear<float>, TTTMLP<float>, Attention<float>,
                                      Attention<float>, Mamba<float>, LSTM<float>,
                                      LinearAttention<float>>(json, mixer_names);
  require(config.vocabulary == 256, "the configuration's 'vocab_size' is ", config.vocabulary,
          ", expected 256: these are models of bytes");
  return config;
}

/// The kind that comes nearest: the backbones differ in switches that a checkpoint may mix.
LayerKind kind_of(const Model::Config& config) {
  const auto& types = config.trunk.layer_types;
  const bool mamba_backbone = std::get<0>(config.trunk.mixers).share_qk;
  for (const LayerKind& kind : layer_kinds()) {
    const auto fits = [&](std::size_t i) {
      return types[i] == mixer_index(kind.mixers[i % kind.mixers.size()]);
    };
    bool all = kind.mamba_backbone == mamba_backbone;
    for (std::size_t i = 0; i < types.size(); ++i) all = all && fits(i);
    if (all) return kind;
  }
  LayerKind other = layer_kind("hybrid");
  other.name = "other";
  other.backbone = "other";
  return other;
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
  options.names = tensor_names(loaded.json);
  if (config.tie_embeddings) options.optional = {"lm_head.weight"};
  load_parameters(folder / "model.safetensors", loaded.model.parameters(), options);
  return loaded;
}

}  // namespace ttt::examples
