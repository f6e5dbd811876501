/// @file
/// Configurations of single layers from and to JSON, with the keys that Hugging Face's
/// `config.json` has for them: official TTT, Llama and Mistral (attention), Mamba. LSTM has a width
/// alone, linear attention a key of its own. Errors are `std::runtime_error`, one sentence that
/// names the key.
#pragma once

#include <string>

#include "ttt/io/json_value.hpp"
#include "ttt/layers/attention_types.hpp"
#include "ttt/layers/linear_attention_types.hpp"
#include "ttt/layers/lstm_types.hpp"
#include "ttt/layers/mamba_types.hpp"
#include "ttt/layers/ttt_types.hpp"

namespace ttt {

inline void read_layer_config(const nlohmann::json& json, TTTConfig& config) {
  using detail::json_value;
  config.width = json_value<Index>(json, "hidden_size", 2048);
  config.heads = json_value<Index>(json, "num_attention_heads", 32);
  config.mini_batch = json_value<Index>(json, "mini_batch_size", 16);
  config.share_qk = json_value(json, "share_qk", false);
  config.gate = json_value(json, "use_gate", false);
  config.conv_kernel = json_value<Index>(json, "conv_kernel", 4);
  config.base_learning_rate = json_value(json, "ttt_base_lr", 1.0);
  config.rope_theta = json_value(json, "rope_theta", 10000.0);
  config.rotary = json_value(json, "rotary", true);
  config.learned_initial_weights = json_value(json, "learned_initial_weights", true);
  config.queries_as_keys = json_value(json, "queries_as_keys", false);
}

inline void write_layer_config(const TTTConfig& config, nlohmann::json& json) {
  json["num_attention_heads"] = config.heads;
  json["mini_batch_size"] = config.mini_batch;
  json["share_qk"] = config.share_qk;
  json["use_gate"] = config.gate;
  json["conv_kernel"] = config.conv_kernel;
  json["ttt_base_lr"] = config.base_learning_rate;
  json["rope_theta"] = config.rope_theta;
  json["rotary"] = config.rotary;
  json["learned_initial_weights"] = config.learned_initial_weights;
  json["queries_as_keys"] = config.queries_as_keys;
}

namespace detail {

/// Tokens that window attention sees; 0: all. Llama has no windows, Mistral one unless it says
/// null.
inline Index attention_window(const nlohmann::json& json) {
  const auto type = json_value<std::string>(json, "model_type", "ttt");
  if (type == "llama") return 0;
  if (type == "mistral" && !json.contains("sliding_window")) return 4096;
  return json_value<Index>(json, "sliding_window", 0);
}

/// Stretched positions are not supported. transformers 5 has them in `rope_parameters`, 4 in
/// `rope_scaling`, there with the older name `type` too.
inline void require_plain_positions(const nlohmann::json& json) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const auto rope = json.find(key);
    if (rope == json.end() || rope->is_null()) continue;
    require_json_value<std::string>(*rope, "rope_type", "default");
    require_json_value<std::string>(*rope, "type", "default");
  }
}

}  // namespace detail

/// The window is that of the key `sliding_window`: whether a layer has one is said by its kind.
inline void read_layer_config(const nlohmann::json& json, AttentionConfig& config) {
  using detail::json_value;
  detail::require_json_value(json, "attention_bias", false);
  config.width = json_value<Index>(json, "hidden_size", 4096);
  config.heads = json_value<Index>(json, "num_attention_heads", 32);
  const bool mistral = json_value<std::string>(json, "model_type", "ttt") == "mistral";
  config.key_value_heads = json_value<Index>(json, "num_key_value_heads", mistral ? 8 : 0);
  config.head_width = json_value<Index>(json, "head_dim", 0);
  config.window = detail::attention_window(json);
  config.rope_theta = json_value(json, "rope_theta", 10000.0);
  detail::require_plain_positions(json);
  const auto rope = json.find("rope_parameters");
  if (rope != json.end() && !rope->is_null())
    config.rope_theta = json_value(*rope, "rope_theta", config.rope_theta);
}

inline void write_layer_config(const AttentionConfig& config, nlohmann::json& json) {
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.groups();
  json["head_dim"] = config.channels();
  json["attention_bias"] = false;
  json["rope_theta"] = config.rope_theta;
  json["rope_parameters"] = {{"rope_theta", config.rope_theta}, {"rope_type", "default"}};
  if (config.window > 0) json["sliding_window"] = config.window;
}

inline void read_layer_config(const nlohmann::json& json, LinearAttentionConfig& config) {
  using detail::json_value;
  config.width = json_value<Index>(json, "hidden_size", 2048);
  config.heads = json_value<Index>(json, "num_attention_heads", 32);
  config.normalized = json_value(json, "linear_attention_normalized", true);
}

inline void write_layer_config(const LinearAttentionConfig& config, nlohmann::json& json) {
  json["num_attention_heads"] = config.heads;
  json["linear_attention_normalized"] = config.normalized;
}

inline void read_layer_config(const nlohmann::json& json, MambaConfig& config) {
  using detail::json_value;
  config.width = json_value<Index>(json, "hidden_size", 768);
  config.inner_width = config.width * json_value<Index>(json, "expand", 2);
  config.state_size = json_value<Index>(json, "state_size", 16);
  config.conv_kernel = json_value<Index>(json, "conv_kernel", 4);
  const auto rank = json.find("time_step_rank");
  if (rank == json.end() || !rank->is_string() || *rank != "auto")
    config.dt_rank = json_value<Index>(json, "time_step_rank", 0);
  config.bias = json_value(json, "use_bias", false);
  config.conv_bias = json_value(json, "use_conv_bias", true);
  config.dt_min = json_value(json, "time_step_min", 1e-3);
  config.dt_max = json_value(json, "time_step_max", 0.1);
  config.dt_init_floor = json_value(json, "time_step_floor", 1e-4);
}

/// Throws where the inner width is not a multiple of the width, which the keys cannot say.
inline void write_layer_config(const MambaConfig& config, nlohmann::json& json) {
  if (config.inner() % config.width != 0)
    raise<std::runtime_error>(concat("a configuration file cannot hold Mamba's inner_width ",
                                     config.inner(), ", expected a multiple of the width ",
                                     config.width));
  json["expand"] = config.inner() / config.width;
  json["state_size"] = config.state_size;
  json["conv_kernel"] = config.conv_kernel;
  json["time_step_rank"] = config.rank();
  json["use_bias"] = config.bias;
  json["use_conv_bias"] = config.conv_bias;
  json["time_step_min"] = config.dt_min;
  json["time_step_max"] = config.dt_max;
  json["time_step_floor"] = config.dt_init_floor;
}

inline void read_layer_config(const nlohmann::json& json, LSTMConfig& config) {
  config.width = detail::json_value<Index>(json, "hidden_size", 768);
}

inline void write_layer_config(const LSTMConfig&, nlohmann::json&) {}

/// The layer that a configuration describes.
/// Throws `std::invalid_argument` where its sizes do not fit each other.
template <class Config>
Config layer_config_from_json(const nlohmann::json& json) {
  Config config;
  read_layer_config(json, config);
  config.validate();
  return config;
}

}  // namespace ttt
