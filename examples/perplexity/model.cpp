#include "perplexity/model.hpp"

namespace ttt::examples {

Model::Model(const Config& config, Random&& random) : AnyLanguageModel(config, random) {}

Model::State Model::initial_state(Index capacity) const {
  return AnyLanguageModel::initial_state(capacity);
}

Model::Workspace Model::workspace(Index max_tokens) const {
  return AnyLanguageModel::workspace(max_tokens);
}

void Model::prefill(Tokens ids, State& state, VectorOut<float> last_logits, Workspace& workspace,
                    const RunOptions& options) const {
  AnyLanguageModel::prefill(ids, state, last_logits, workspace, options);
}

void Model::step(std::int32_t id, State& state, VectorOut<float> logits, Workspace& workspace,
                 const RunOptions& options) const {
  AnyLanguageModel::step(id, state, logits, workspace, options);
}

void Model::prefill_batch(Tokens ids, Lengths lengths, States<State> states,
                          MatrixOut<float> last_logits, Workspace& workspace,
                          const RunOptions& options) const {
  AnyLanguageModel::prefill_batch(ids, lengths, states, last_logits, workspace, options);
}

void Model::step_batch(Tokens ids, States<State> states, MatrixOut<float> logits,
                       Workspace& workspace, const RunOptions& options) const {
  AnyLanguageModel::step_batch(ids, states, logits, workspace, options);
}

double Model::loss_batch(Tokens ids, Tokens targets, Lengths lengths, States<State> states,
                         Workspace& workspace, Cache* cache, const RunOptions& options,
                         std::span<float> nats) const {
  return AnyLanguageModel::loss_batch(ids, targets, lengths, states, workspace, cache, options,
                                      nats);
}

void Model::backward_batch(const Cache& cache, double scale, States<State> d_states,
                           Parameters& grad, Workspace& workspace) const {
  AnyLanguageModel::backward_batch(cache, scale, d_states, grad, workspace);
}

}  // namespace ttt::examples
