/// @file
/// Model configurations as JSON, with the keys of the official checkpoints (Hugging Face's
/// `config.json` of model_type "ttt"). Unknown keys are passed over, as transformers does.
/// Errors are `std::runtime_error`, one sentence that names the key.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "ttt/layers/ttt_types.hpp"
#include "ttt/lm/language_model.hpp"

namespace ttt {

namespace detail {

/// The value of `key`, or `fallback` where the key is absent or null.
template <class T>
T json_value(const nlohmann::json& json, const char* key, T fallback) {
  if (!json.is_object())
    raise<std::runtime_error>("the configuration is not a JSON object, expected keys and values");
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  const bool fits = std::same_as<T, bool>          ? found->is_boolean()
                    : std::same_as<T, std::string> ? found->is_string()
                    : std::integral<T>             ? found->is_number_integer()
                                                   : found->is_number();
  if (!fits)
    raise<std::runtime_error>(concat("the configuration's '", key, "' is ", found->dump(),
                                     ", expected ",
                                     std::same_as<T, bool>          ? "true or false"
                                     : std::same_as<T, std::string> ? "a text"
                                     : std::integral<T>             ? "a whole number"
                                                                    : "a number"));
  return found->template get<T>();
}

}  // namespace detail

/// The TTT layer that an official configuration describes.
inline TTTConfig ttt_config_from_json(const nlohmann::json& json) {
  using detail::json_value;
  TTTConfig config;
  config.width = json_value<Index>(json, "hidden_size", 2048);
  config.heads = json_value<Index>(json, "num_attention_heads", 32);
  config.mini_batch = json_value<Index>(json, "mini_batch_size", 16);
  config.share_qk = json_value(json, "share_qk", false);
  config.gate = json_value(json, "use_gate", false);
  config.conv_kernel = json_value<Index>(json, "conv_kernel", 4);
  config.base_learning_rate = json_value(json, "ttt_base_lr", 1.0);
  config.rope_theta = json_value(json, "rope_theta", 10000.0);
  config.validate();
  return config;
}

/// "linear" or "mlp".
inline std::string ttt_layer_type(const nlohmann::json& json) {
  const auto type = detail::json_value<std::string>(json, "ttt_layer_type", "linear");
  if (type != "linear" && type != "mlp")
    raise<std::runtime_error>("the configuration's 'ttt_layer_type' is '" + type +
                              "', expected 'linear' or 'mlp'");
  return type;
}

/// The language model that an official configuration describes; every kind of mixer gets the same
/// TTT configuration, and all blocks use the first.
template <SequenceLayer... Mixers>
LanguageModelConfig<Mixers...> language_model_config_from_json(const nlohmann::json& json) {
  using detail::json_value;
  LanguageModelConfig<Mixers...> config;
  const TTTConfig layer = ttt_config_from_json(json);
  config.vocabulary = json_value<Index>(json, "vocab_size", 32000);
  config.tie_embeddings = json_value(json, "tie_word_embeddings", true);
  config.trunk.depth = json_value<Index>(json, "num_hidden_layers", 24);
  config.trunk.block.width = layer.width;
  config.trunk.block.intermediate = json_value<Index>(json, "intermediate_size", 5504);
  config.trunk.block.pre_conv = json_value(json, "pre_conv", false);
  config.trunk.block.conv_kernel = layer.conv_kernel;
  config.trunk.block.rms_norm_epsilon = json_value(json, "rms_norm_eps", 1e-6);
  config.trunk.block.initializer_range = json_value(json, "initializer_range", 0.02);
  config.trunk.mixers = {(static_cast<void>(sizeof(Mixers)), layer)...};
  config.trunk.validate();
  return config;
}

/// The official configuration of a model all of whose blocks hold `layer`; `type` is "linear" or
/// "mlp".
template <SequenceLayer... Mixers>
nlohmann::json language_model_config_to_json(const LanguageModelConfig<Mixers...>& config,
                                             const TTTConfig& layer, const std::string& type) {
  return {{"model_type", "ttt"},
          {"architectures", {"TTTForCausalLM"}},
          {"vocab_size", config.vocabulary},
          {"hidden_size", layer.width},
          {"intermediate_size", config.trunk.block.intermediate},
          {"num_hidden_layers", config.trunk.depth},
          {"num_attention_heads", layer.heads},
          {"hidden_act", "silu"},
          {"initializer_range", config.trunk.block.initializer_range},
          {"rms_norm_eps", config.trunk.block.rms_norm_epsilon},
          {"tie_word_embeddings", config.tie_embeddings},
          {"rope_theta", layer.rope_theta},
          {"use_gate", layer.gate},
          {"share_qk", layer.share_qk},
          {"ttt_layer_type", type},
          {"ttt_base_lr", layer.base_learning_rate},
          {"mini_batch_size", layer.mini_batch},
          {"pre_conv", config.trunk.block.pre_conv},
          {"conv_kernel", layer.conv_kernel}};
}

}  // namespace ttt
