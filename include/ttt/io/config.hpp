/// @file
/// Configurations of language models as JSON, in the form of Hugging Face's `config.json`:
///   model_type "ttt"      TTT-Linear or TTT-MLP (key `ttt_layer_type`), the official keys; with
///                         the key `layer_types`, a name for each block, any kinds of layers
///   "llama", "mistral"    attention, with a sliding window in Mistral
///   "mamba"               Mamba; its blocks have no feed-forward part
/// Unknown keys are passed over, as transformers does. Errors are `std::runtime_error`, one
/// sentence that names the key.
#pragma once

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "ttt/io/layer_config.hpp"
#include "ttt/io/tensor_names.hpp"
#include "ttt/lm/language_model.hpp"

namespace ttt {

/// Names of the kinds of layers in configurations.
namespace layer_names {
inline constexpr std::string_view ttt_linear = "ttt-linear", ttt_mlp = "ttt-mlp",
                                  attention = "attention", window_attention = "window-attention",
                                  linear_attention = "linear-attention", mamba = "mamba",
                                  lstm = "lstm";
}  // namespace layer_names

/// "linear" or "mlp".
inline std::string ttt_layer_type(const nlohmann::json& json) {
  const auto type = detail::json_value<std::string>(json, "ttt_layer_type", "linear");
  if (type != "linear" && type != "mlp")
    raise<std::runtime_error>("the configuration's 'ttt_layer_type' is '" + type +
                              "', expected 'linear' or 'mlp'");
  return type;
}

/// The key `model_type`; absent, it is "ttt".
inline std::string model_type(const nlohmann::json& json) {
  auto type = detail::json_value<std::string>(json, "model_type", "ttt");
  if (type != "ttt" && type != "llama" && type != "mistral" && type != "mamba")
    raise<std::runtime_error>("the configuration's 'model_type' is '" + type +
                              "', expected 'ttt', 'llama', 'mistral' or 'mamba'");
  return type;
}

/// Whose names the tensors of such a model have in its checkpoint.
inline TensorNames tensor_names(const nlohmann::json& json) {
  const std::string type = model_type(json);
  if (type == "mamba") return TensorNames::mamba;
  return type == "ttt" ? TensorNames::ttt : TensorNames::llama;
}

/// The name of each block's kind of layer.
inline std::vector<std::string> layer_types_from_json(const nlohmann::json& json) {
  const std::string type = model_type(json);
  const auto depth = detail::json_value<Index>(json, "num_hidden_layers", type == "ttt" ? 24 : 32);
  require(depth > 0, "the configuration's 'num_hidden_layers' is ", depth,
          ", expected a positive number");
  const auto all = [&](std::string_view name) {
    return std::vector<std::string>(static_cast<std::size_t>(depth), std::string(name));
  };
  if (type == "mamba") return all(layer_names::mamba);
  const bool window = detail::attention_window(json) > 0;
  if (type != "ttt") return all(window ? layer_names::window_attention : layer_names::attention);
  const auto types = json.find("layer_types");
  if (types == json.end() || types->is_null())
    return all(ttt_layer_type(json) == "linear" ? layer_names::ttt_linear : layer_names::ttt_mlp);
  const bool right = types->is_array() && std::ssize(*types) == depth &&
                     std::all_of(types->begin(), types->end(),
                                 [](const nlohmann::json& name) { return name.is_string(); });
  if (!right)
    raise<std::runtime_error>(concat("the configuration's 'layer_types' is ", types->dump(),
                                     ", expected a list of ", depth, " texts, one a block"));
  return types->get<std::vector<std::string>>();
}

namespace detail {

/// What is not a matter of the mixers.
template <SequenceLayer... Mixers>
void read_model_sizes(const nlohmann::json& json, LanguageModelConfig<Mixers...>& config) {
  const std::string type = model_type(json);
  const bool mamba = type == "mamba";
  config.vocabulary = json_value<Index>(json, "vocab_size", mamba ? 50280 : 32000);
  config.tie_embeddings = json_value(json, "tie_word_embeddings", mamba || type == "ttt");
  BlockConfig& block = config.trunk.block;
  block.width = json_value<Index>(json, "hidden_size", mamba ? 768 : type == "ttt" ? 2048 : 4096);
  // In Mamba's configurations `intermediate_size` is the inner width of the mixer.
  block.intermediate = mamba ? 0
                             : json_value<Index>(json, "intermediate_size",
                                                 type == "ttt"       ? 5504
                                                 : type == "mistral" ? 14336
                                                                     : 11008);
  block.pre_conv = type == "ttt" && json_value(json, "pre_conv", false);
  block.conv_kernel = json_value<Index>(json, "conv_kernel", 4);
  block.rms_norm_epsilon =
      mamba ? json_value(json, "layer_norm_epsilon", 1e-5) : json_value(json, "rms_norm_eps", 1e-6);
  block.initializer_range = json_value(json, "initializer_range", mamba ? 0.1 : 0.02);
  if (type == "ttt") return;
  require_json_value<std::string>(json, "hidden_act", "silu");
  if (!mamba) require_json_value(json, "mlp_bias", false);
}

template <class Config>
void read_mixer(const nlohmann::json& json, std::string_view name, Config& config) {
  read_layer_config(json, config);
  if constexpr (requires { config.window; })
    if (name == layer_names::attention) config.window = 0;
}

}  // namespace detail

/// The language model that a configuration describes. `kinds` names the mixers of the model's type
/// in their order (layer_names); every mixer is given its sizes, used or not.
template <SequenceLayer... Mixers>
LanguageModelConfig<Mixers...> language_model_config_from_json(
    const nlohmann::json& json, const std::array<std::string_view, sizeof...(Mixers)>& kinds) {
  LanguageModelConfig<Mixers...> config;
  detail::read_model_sizes(json, config);
  for (const std::string& type : layer_types_from_json(json)) {
    const auto kind = std::find(kinds.begin(), kinds.end(), type);
    if (kind == kinds.end())
      raise<std::runtime_error>("the configuration has a layer of type '" + type +
                                "', which this model's type does not hold");
    config.trunk.layer_types.push_back(static_cast<std::size_t>(kind - kinds.begin()));
  }
  config.trunk.depth = std::ssize(config.trunk.layer_types);
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (detail::read_mixer(json, kinds[I], std::get<I>(config.trunk.mixers)), ...);
  }
  (std::index_sequence_for<Mixers...>{});
  config.trunk.validate();
  return config;
}

/// The same for a model whose blocks are all of one type, whatever the configuration calls it.
template <SequenceLayer Mixer>
LanguageModelConfig<Mixer> language_model_config_from_json(const nlohmann::json& json) {
  LanguageModelConfig<Mixer> config;
  detail::read_model_sizes(json, config);
  const std::vector<std::string> types = layer_types_from_json(json);
  config.trunk.depth = std::ssize(types);
  detail::read_mixer(json, types.front(), std::get<0>(config.trunk.mixers));
  config.trunk.validate();
  return config;
}

namespace detail {

/// The `model_type` that says most of a model with these kinds of layers to other programs.
inline std::string model_type_of(const std::set<std::string_view>& kinds,
                                 const BlockConfig& block) {
  if (kinds.size() > 1) return "ttt";
  const bool plain = !block.pre_conv && block.intermediate > 0;
  if (*kinds.begin() == layer_names::attention && plain) return "llama";
  if (*kinds.begin() == layer_names::window_attention && plain) return "mistral";
  if (*kinds.begin() == layer_names::mamba && !block.pre_conv && block.intermediate == 0)
    return "mamba";
  return "ttt";
}

/// Adds the keys of one kind of layer. Several kinds share keys: they must agree.
template <class Config>
void add_layer_config(std::string_view kind, const Config& config, nlohmann::json& json) {
  if constexpr (requires { config.window; })
    if ((config.window > 0) != (kind == layer_names::window_attention))
      raise<std::runtime_error>(
          concat("a configuration file cannot hold ", kind, " with a window of ", config.window));
  nlohmann::json own;
  write_layer_config(config, own);
  for (const auto& [key, value] : own.items()) {
    if (json.contains(key) && json.at(key) != value)
      raise<std::runtime_error>(concat("a configuration file cannot hold layers whose '", key,
                                       "' differ: ", json.at(key).dump(), " and ", value.dump()));
    json[key] = value;
  }
}

/// Keys that official files lack are left out where they say what is so without them.
inline void erase_silent_keys(nlohmann::json& json) {
  const nlohmann::json silent = {
      {"rotary", true}, {"learned_initial_weights", true}, {"queries_as_keys", false}};
  for (const auto& [key, value] : silent.items())
    if (json.contains(key) && json.at(key) == value) json.erase(key);
}

inline const char* architecture(const std::string& model_type) {
  if (model_type == "llama") return "LlamaForCausalLM";
  if (model_type == "mistral") return "MistralForCausalLM";
  return model_type == "mamba" ? "MambaForCausalLM" : "TTTForCausalLM";
}

}  // namespace detail

/// The configuration of a model; `kinds` as in `language_model_config_from_json`.
/// Throws `std::runtime_error` where the keys cannot say what the model is.
template <SequenceLayer... Mixers>
nlohmann::json language_model_config_to_json(
    const LanguageModelConfig<Mixers...>& config,
    const std::array<std::string_view, sizeof...(Mixers)>& kinds) {
  const auto& trunk = config.trunk;
  std::vector<std::string_view> types;
  for (Index i = 0; i < trunk.depth; ++i) types.push_back(kinds[trunk.layer_type(i)]);
  const std::set<std::string_view> used(types.begin(), types.end());
  const std::string type = detail::model_type_of(used, trunk.block);
  const bool mamba = type == "mamba";
  nlohmann::json json = {{"model_type", type},
                         {"architectures", {detail::architecture(type)}},
                         {"vocab_size", config.vocabulary},
                         {"hidden_size", trunk.block.width},
                         {"num_hidden_layers", trunk.depth},
                         {"hidden_act", "silu"},
                         {"initializer_range", trunk.block.initializer_range},
                         {"tie_word_embeddings", config.tie_embeddings}};
  json[mamba ? "layer_norm_epsilon" : "rms_norm_eps"] = trunk.block.rms_norm_epsilon;
  if (!mamba) json["intermediate_size"] = trunk.block.intermediate;
  if (type == "ttt") {
    json["pre_conv"] = trunk.block.pre_conv;
    json["conv_kernel"] = trunk.block.conv_kernel;
    if (used == std::set{layer_names::ttt_linear})
      json["ttt_layer_type"] = "linear";
    else if (used == std::set{layer_names::ttt_mlp})
      json["ttt_layer_type"] = "mlp";
    else
      json["layer_types"] = types;
  }
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    ((used.contains(kinds[I]) ? detail::add_layer_config(kinds[I], std::get<I>(trunk.mixers), json)
                              : void()),
     ...);
  }
  (std::index_sequence_for<Mixers...>{});
  detail::erase_silent_keys(json);
  return json;
}

}  // namespace ttt
