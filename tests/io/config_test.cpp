// Configurations in the forms of Hugging Face, there and back, and what is wrong with bad ones.
#include "ttt/io/config.hpp"

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"
#include "ttt/io/checkpoint.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt {
namespace {

using nlohmann::json;
using testing::message_of;

constexpr std::array<std::string_view, 7> kinds = {
    layer_names::ttt_linear,       layer_names::ttt_mlp, layer_names::attention,
    layer_names::window_attention, layer_names::mamba,   layer_names::lstm,
    layer_names::linear_attention};
using Config =
    LanguageModelConfig<TTTLinear<double>, TTTMLP<double>, Attention<double>, Attention<double>,
                        Mamba<double>, LSTM<double>, LinearAttention<double>>;

Config read(const json& text) {
  return language_model_config_from_json<TTTLinear<double>, TTTMLP<double>, Attention<double>,
                                         Attention<double>, Mamba<double>, LSTM<double>,
                                         LinearAttention<double>>(text, kinds);
}

Config model(std::vector<std::size_t> types) {
  Config config;
  config.vocabulary = 256;
  config.trunk.depth = std::ssize(types);
  config.trunk.layer_types = std::move(types);
  config.trunk.block = {.width = 16, .intermediate = 24};
  AttentionConfig attention{.width = 16, .heads = 4, .key_value_heads = 2, .rope_theta = 5000};
  AttentionConfig window = attention;
  window.window = 7;
  TTTConfig ttt{.width = 16, .heads = 4, .mini_batch = 8, .rope_theta = 5000};
  ttt.base_learning_rate = 0.5;
  config.trunk.mixers = {ttt,
                         ttt,
                         attention,
                         window,
                         {.width = 16, .inner_width = 48, .state_size = 5, .dt_rank = 3},
                         {.width = 16},
                         {.width = 16, .heads = 4, .normalized = false}};
  return config;
}

/// Written, read and written again.
void expect_round_trip(const Config& config, const std::string& type) {
  const json text = language_model_config_to_json(config, kinds);
  EXPECT_EQ(text.at("model_type"), type);
  const Config again = read(text);
  EXPECT_EQ(language_model_config_to_json(again, kinds), text);
  EXPECT_EQ(again.trunk.layer_types, config.trunk.layer_types);
  EXPECT_EQ(again.trunk.block.intermediate, config.trunk.block.intermediate);
  EXPECT_EQ(again.trunk.block.pre_conv, config.trunk.block.pre_conv);
  EXPECT_EQ(again.trunk.block.rms_norm_epsilon, config.trunk.block.rms_norm_epsilon);
  EXPECT_EQ(again.tie_embeddings, config.tie_embeddings);
}

TEST(ConfigTest, EveryKindOfModelComesBackFromItsFile) {
  expect_round_trip(model({0, 0}), "ttt");
  expect_round_trip(model({1}), "ttt");
  expect_round_trip(model({2, 2}), "llama");
  expect_round_trip(model({3, 3}), "mistral");
  expect_round_trip(model({5, 5}), "ttt");
  expect_round_trip(model({6, 6}), "ttt");
  expect_round_trip(model({3, 0, 5, 2, 6}), "ttt");
  Config mamba = model({4, 4, 4});
  mamba.trunk.block.intermediate = 0;
  mamba.trunk.block.rms_norm_epsilon = 1e-5;
  expect_round_trip(mamba, "mamba");
  mamba.trunk.block.intermediate = 24;  // which Mamba's own configuration cannot say
  expect_round_trip(mamba, "ttt");
  Config untied = model({0});
  untied.tie_embeddings = false;
  untied.trunk.block.pre_conv = true;
  expect_round_trip(untied, "ttt");
  Config convolved = model({2});
  convolved.trunk.block.pre_conv = true;
  expect_round_trip(convolved, "ttt");
}

TEST(ConfigTest, SwitchesOfTTTAreSilentWhereTheySayNothing) {
  Config config = model({0, 1});
  for (const char* key : {"rotary", "learned_initial_weights", "queries_as_keys"})
    EXPECT_FALSE(language_model_config_to_json(config, kinds).contains(key)) << key;
  auto& [linear, mlp, attention, window, mamba, lstm, linear_attention] = config.trunk.mixers;
  linear.rotary = linear.learned_initial_weights = false;
  linear.queries_as_keys = true;
  linear.base_learning_rate = -0.5;
  mlp = linear;
  expect_round_trip(config, "ttt");
  const Config again = read(language_model_config_to_json(config, kinds));
  const TTTConfig& first = std::get<0>(again.trunk.mixers);
  EXPECT_FALSE(first.rotary);
  EXPECT_FALSE(first.learned_initial_weights);
  EXPECT_TRUE(first.queries_as_keys);
  EXPECT_EQ(first.base_learning_rate, -0.5);
  mlp.rotary = true;
  EXPECT_THROW(language_model_config_to_json(config, kinds), std::runtime_error);
}

TEST(ConfigTest, SizesOfTheMixersComeBack) {
  const Config hybrid = read(language_model_config_to_json(model({2, 3, 4, 0, 6}), kinds));
  const auto& [linear, mlp, attention, window, mamba, lstm, linear_attention] = hybrid.trunk.mixers;
  EXPECT_EQ(linear.heads, 4);
  EXPECT_EQ(linear.mini_batch, 8);
  EXPECT_EQ(linear.base_learning_rate, 0.5);
  EXPECT_EQ(attention.window, 0);
  EXPECT_EQ(window.window, 7);
  EXPECT_EQ(window.groups(), 2);
  EXPECT_EQ(window.channels(), 4);
  EXPECT_EQ(window.rope_theta, 5000);
  EXPECT_EQ(mamba.inner(), 48);
  EXPECT_EQ(mamba.state_size, 5);
  EXPECT_EQ(mamba.rank(), 3);
  EXPECT_EQ(lstm.width, 16);
  EXPECT_EQ(linear_attention.width, 16);
  EXPECT_EQ(linear_attention.heads, 4);
  EXPECT_FALSE(linear_attention.normalized);
}

TEST(ConfigTest, ReadsWhatTransformersWrites) {
  const Config llama = read(json::parse(
      R"({"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 61,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": null, "rms_norm_eps": 1e-6, "tie_word_embeddings": false,
          "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}})"));
  EXPECT_EQ(llama.trunk.layer_types, (std::vector<std::size_t>{2, 2}));
  EXPECT_EQ(std::get<2>(llama.trunk.mixers).rope_theta, 500000);
  EXPECT_EQ(std::get<2>(llama.trunk.mixers).groups(), 2);
  EXPECT_FALSE(llama.tie_embeddings);

  const auto mistral = [](const std::string& window) {
    return read(json::parse(R"({"model_type": "mistral", "hidden_size": 16, "num_hidden_layers": 1,
                                "num_attention_heads": 8)" +
                            window + "}"));
  };
  EXPECT_EQ(mistral("").trunk.layer_types, (std::vector<std::size_t>{3}));
  EXPECT_EQ(std::get<3>(mistral("").trunk.mixers).window, 4096);
  EXPECT_EQ(std::get<3>(mistral("").trunk.mixers).groups(), 8);
  EXPECT_EQ(mistral(R"(, "sliding_window": null)").trunk.layer_types,
            (std::vector<std::size_t>{2}));

  const Config mamba = read(json::parse(
      R"({"model_type": "mamba", "hidden_size": 16, "intermediate_size": 32, "expand": 2,
          "num_hidden_layers": 1, "time_step_rank": "auto", "vocab_size": 61})"));
  EXPECT_EQ(mamba.trunk.block.intermediate, 0);
  EXPECT_EQ(mamba.trunk.block.rms_norm_epsilon, 1e-5);
  EXPECT_EQ(std::get<4>(mamba.trunk.mixers).rank(), 1);
  EXPECT_TRUE(mamba.tie_embeddings);
}

TEST(ConfigTest, BadConfigurationsAreRefusedInWords) {
  const auto refuses = [](const std::string& text, const std::string& message) {
    EXPECT_EQ(message_of([&] { read(json::parse(text)); }), message);
  };
  refuses(R"([1])", "the configuration is not a JSON object, expected keys and values");
  refuses(R"({"model_type": "gpt2"})",
          "the configuration's 'model_type' is 'gpt2', expected 'ttt', 'llama', 'mistral' or "
          "'mamba'");
  refuses(R"({"model_type": "llama", "num_hidden_layers": "two"})",
          "the configuration's 'num_hidden_layers' is \"two\", expected a whole number");
  refuses(R"({"num_hidden_layers": 0})",
          "the configuration's 'num_hidden_layers' is 0, expected a positive number");
  refuses(R"({"model_type": "llama", "attention_bias": true})",
          "the configuration's 'attention_bias' is true, expected false, the only value that is "
          "supported");
  refuses(R"({"model_type": "llama", "rope_parameters": {"rope_type": "yarn"}})",
          "the configuration's 'rope_type' is \"yarn\", expected \"default\", the only value that "
          "is supported");
  refuses(R"({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}})",
          "the configuration's 'type' is \"linear\", expected \"default\", the only value that is "
          "supported");
  refuses(R"({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}})",
          "the configuration's 'rope_type' is \"llama3\", expected \"default\", the only value "
          "that is supported");
  refuses(R"({"model_type": "mamba", "hidden_act": "gelu"})",
          "the configuration's 'hidden_act' is \"gelu\", expected \"silu\", the only value that is "
          "supported");
  refuses(R"({"num_hidden_layers": 2, "layer_types": ["lstm"]})",
          "the configuration's 'layer_types' is [\"lstm\"], expected a list of 2 texts, one a "
          "block");
  refuses(R"({"num_hidden_layers": 1, "layer_types": ["rwkv"]})",
          "the configuration has a layer of type 'rwkv', which this model's type does not hold");
}

TEST(ConfigTest, WhatTheKeysCannotSayIsNotWritten) {
  Config rates = model({0, 1});
  EXPECT_EQ(message_of([&] { language_model_config_to_json(rates, kinds); }), "");
  std::get<1>(rates.trunk.mixers).base_learning_rate = 0.1;
  EXPECT_EQ(message_of([&] { language_model_config_to_json(rates, kinds); }),
            "a configuration file cannot hold layers whose 'ttt_base_lr' differ: 0.5 and 0.1");
  Config window = model({3});
  std::get<3>(window.trunk.mixers).window = 0;
  EXPECT_EQ(message_of([&] { language_model_config_to_json(window, kinds); }),
            "a configuration file cannot hold window-attention with a window of 0");
  Config odd = model({4});
  std::get<4>(odd.trunk.mixers).inner_width = 40;
  EXPECT_EQ(message_of([&] { language_model_config_to_json(odd, kinds); }),
            "a configuration file cannot hold Mamba's inner_width 40, expected a multiple of the "
            "width 16");
}

TEST(TensorNamesTest, AreThoseOfHuggingFace) {
  const auto llama = [](const char* name) { return checkpoint_name(TensorNames::llama, name); };
  EXPECT_EQ(llama("model.layers.3.seq_norm.weight"), "model.layers.3.input_layernorm.weight");
  EXPECT_EQ(llama("model.layers.3.seq_modeling_block.q_proj.weight"),
            "model.layers.3.self_attn.q_proj.weight");
  EXPECT_EQ(llama("model.layers.3.ffn_norm.weight"),
            "model.layers.3.post_attention_layernorm.weight");
  EXPECT_EQ(llama("model.norm.weight"), "model.norm.weight");
  const auto mamba = [](const char* name) { return checkpoint_name(TensorNames::mamba, name); };
  EXPECT_EQ(mamba("model.layers.0.seq_norm.weight"), "backbone.layers.0.norm.weight");
  EXPECT_EQ(mamba("model.layers.0.seq_modeling_block.A_log"), "backbone.layers.0.mixer.A_log");
  EXPECT_EQ(mamba("model.embed_tokens.weight"), "backbone.embeddings.weight");
  EXPECT_EQ(mamba("model.norm.weight"), "backbone.norm_f.weight");
  EXPECT_EQ(checkpoint_name(TensorNames::ttt, "model.layers.0.seq_norm.weight"),
            "model.layers.0.seq_norm.weight");
}

TEST(TensorNamesTest, ACheckpointKeepsThem) {
  const testing::TemporaryFolder folder;
  LanguageModelConfig<Attention<double>> config;
  config.vocabulary = 11;
  config.trunk = {.depth = 1,
                  .block = {.width = 4, .intermediate = 3},
                  .mixers = {AttentionConfig{.width = 4, .heads = 2}},
                  .layer_types = {}};
  const LanguageModel<Attention<double>> saved(config);
  save_parameters(folder / "model", saved.parameters(), {{"format", "pt"}}, TensorNames::llama);
  EXPECT_TRUE(SafetensorsFile(folder / "model").contains("model.layers.0.self_attn.q_proj.weight"));
  LanguageModel<Attention<double>> loaded(config, Random(9));
  EXPECT_NE(message_of([&] { load_parameters(folder / "model", loaded.parameters()); }), "");
  load_parameters(folder / "model", loaded.parameters(), {.names = TensorNames::llama});
  for_each_tensor(
      [](const TensorInfo& info, const auto& a, const auto& b) { EXPECT_EQ(a, b) << info.name; },
      loaded.parameters(), saved.parameters());
}

}  // namespace
}  // namespace ttt
