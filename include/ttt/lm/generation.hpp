/// @file
/// A text that a language model writes, token by token: all that is needed to go on with it stands
/// in one struct with fields(), so that it can be copied (to fork the text) and saved, and what
/// continues from the copy is, bit by bit, what would have come without a pause.
#pragma once

#include "ttt/lm/language_model.hpp"
#include "ttt/lm/sampling.hpp"

namespace ttt {

template <class Model>
struct Generation {
  typename Model::State state;    // after every token but the last
  std::int32_t last = -1;         // the last token, which the model has not read; -1: none yet
  std::uint64_t random_seed = 0;  // where the random numbers go on: Random::state

  static auto fields(auto& self) {
    return std::tuple(field("state", self.state), field("last", self.last),
                      field("random_seed", self.random_seed));
  }
};

/// Appends a given text, a prompt for instance. Tokens but the last are read at once.
/// Throws `std::invalid_argument` where an id is out of range.
template <class Model>
void append(const Model& model, typename Model::Tokens ids, Generation<Model>& text,
            typename Model::Workspace& workspace, const RunOptions& options = {}) {
  if (ids.empty()) return;
  std::vector<std::int32_t> unread;
  if (text.last >= 0) unread.push_back(text.last);
  unread.insert(unread.end(), ids.begin(), ids.end() - 1);
  Vector<typename Model::Scalar> logits(model.vocabulary());
  if (!unread.empty()) model.prefill(unread, text.state, logits, workspace, options);
  text.last = ids.back();
}

/// Writes one more token and returns it.
/// Throws `std::invalid_argument` where the text is still empty: there is nothing to go on from.
template <class Model>
std::int32_t write_token(const Model& model, const SamplingConfig& sampling,
                         Generation<Model>& text, typename Model::Workspace& workspace,
                         const RunOptions& options = {}) {
  require(text.last >= 0, "write_token: the text is empty, expected a prompt");
  Vector<typename Model::Scalar> logits(model.vocabulary());
  model.step(text.last, text.state, logits, workspace, options);
  Random random(text.random_seed);
  text.last = sample<typename Model::Scalar>(logits, sampling, random);
  text.random_seed = random.state();
  return text.last;
}

}  // namespace ttt
