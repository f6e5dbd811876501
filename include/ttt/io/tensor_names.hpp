/// @file
/// Names of a model's tensors in checkpoints. This library's own are those of the official TTT
/// checkpoints; Hugging Face's Llama (Mistral too) and Mamba have others for the same tensors:
///
///   ours                                Llama                              Mamba
///   model.embed_tokens.weight           the same backbone.embeddings.weight
///   model.layers.0.seq_norm.weight      ...input_layernorm.weight backbone.layers.0.norm...
///   model.layers.0.seq_modeling_block   ...self_attn                       backbone.layers.0.mixer
///   model.layers.0.ffn_norm.weight      ...post_attention_layernorm...     none
///   model.norm.weight                   the same                           backbone.norm_f.weight
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

namespace ttt {

enum class TensorNames { ttt, llama, mamba };

namespace detail {

inline void replace_first(std::string& text, std::string_view from, std::string_view to) {
  if (const auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

}  // namespace detail

/// The name in a checkpoint of the tensor that this library calls `name`.
inline std::string checkpoint_name(TensorNames names, std::string name) {
  using Pair = std::pair<std::string_view, std::string_view>;
  static constexpr std::array<Pair, 3> llama = {{{".seq_norm.", ".input_layernorm."},
                                                 {".seq_modeling_block.", ".self_attn."},
                                                 {".ffn_norm.", ".post_attention_layernorm."}}};
  static constexpr std::array<Pair, 5> mamba = {{{".seq_norm.", ".norm."},
                                                 {".seq_modeling_block.", ".mixer."},
                                                 {"model.embed_tokens.", "backbone.embeddings."},
                                                 {"model.norm.", "backbone.norm_f."},
                                                 {"model.layers.", "backbone.layers."}}};
  if (names == TensorNames::llama)
    for (const auto& [from, to] : llama) detail::replace_first(name, from, to);
  if (names == TensorNames::mamba)
    for (const auto& [from, to] : mamba) detail::replace_first(name, from, to);
  return name;
}

}  // namespace ttt
