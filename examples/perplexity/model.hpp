/// @file
/// The language model of the programs: one type for all kinds of layers, compiled once.
#pragma once

#include <array>
#include <string_view>

#include "ttt/io/config.hpp"
#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/lm/language_model.hpp"

namespace ttt::examples {

/// Which mixer a model holds is chosen when it is made. The names are those of `mixer_names`.
using AnyLanguageModel =
    LanguageModel<TTTLinear<float>, TTTMLP<float>, Attention<float>, Attention<float>, Mamba<float>,
                  LSTM<float>, LinearAttention<float>>;

inline constexpr std::array<std::string_view, 7> mixer_names = {
    layer_names::ttt_linear,       layer_names::ttt_mlp, layer_names::attention,
    layer_names::window_attention, layer_names::mamba,   layer_names::lstm,
    layer_names::linear_attention};

/// The same model with functions that are compiled in one place: to compile the forward and
/// backward of all layers takes a minute, which each file that calls them would pay.
class Model : public AnyLanguageModel {
 public:
  explicit Model(const Config& config, Random&& random = Random(0));

  State initial_state(Index capacity = 0) const;
  Workspace workspace(Index max_tokens) const;
  void prefill(Tokens ids, State& state, VectorOut<float> last_logits, Workspace& workspace,
               const RunOptions& options = {}) const;
  void step(std::int32_t id, State& state, VectorOut<float> logits, Workspace& workspace,
            const RunOptions& options = {}) const;
  void prefill_batch(Tokens ids, Lengths lengths, States<State> states,
                     MatrixOut<float> last_logits, Workspace& workspace,
                     const RunOptions& options = {}) const;
  void step_batch(Tokens ids, States<State> states, MatrixOut<float> logits, Workspace& workspace,
                  const RunOptions& options = {}) const;
  double loss_batch(Tokens ids, Tokens targets, Lengths lengths, States<State> states,
                    Workspace& workspace, Cache* cache, const RunOptions& options = {},
                    std::span<float> nats = {}) const;
  void backward_batch(const Cache& cache, double scale, States<State> d_states, Parameters& grad,
                      Workspace& workspace) const;
};

}  // namespace ttt::examples
