// Token factors with an update that comes after all answers.
#include "ttt/inner/linear_model.hpp"
#include "ttt/layers/ttt_layer.hpp"

struct Rule : ttt::PublishedRule {
  static constexpr ttt::AnswerThenLearn schedule{};
};

ttt::TTTLayer<float, ttt::LinearModel, Rule> layer({.width = 8, .heads = 2});
