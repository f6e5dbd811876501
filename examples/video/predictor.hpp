/// @file
/// Training and use of any model of the library that reads frames and answers the next one, a bare
/// layer or a SequenceModel: both have the same calls. With y [pixels, T] the answers to a clip,
///   L = mean over pixels and frames of 1/2 (y_t - frame_{t+1})^2
#pragma once

#include <utility>
#include <vector>

#include "ttt/layers/sequence_layer.hpp"
#include "ttt/nn/regression_loss.hpp"
#include "ttt/train/adamw.hpp"
#include "ttt/train/gradient_clip.hpp"
#include "ttt/train/schedule.hpp"
#include "video/clips.hpp"

namespace ttt::examples {

template <class Model>
class Predictor {
 public:
  using State = typename Model::State;
  using Parameters = std::remove_cvref_t<decltype(std::declval<Model&>().parameters())>;

  /// Without weight decay, which would pull maps that begin as the identity to zero.
  Predictor(Model model, const ScheduleConfig& schedule)
      : model_(std::move(model)),
        schedule_(schedule),
        optimizer_(model_.parameters(), {.weight_decay = 0}),
        grad_(zeros_like(model_.parameters())),
        workspace_(model_.workspace(1)) {}

  const Model& model() const { return model_; }

  /// One update. Returns the mean squared error of a pixel before it.
  double train(const Clips& clips) {
    auto states = fresh_states(clips.count());
    Matrix<float> y(pixels, clips.frames.cols()), dy(pixels, y.cols()), dx(pixels, y.cols());
    model_.forward_batch(clips.frames, clips.lengths, pointers(states), y, workspace_, &cache_);
    loss_.backward(y, clips.targets, 1 / static_cast<double>(y.size()), dy);
    set_zero(grad_);
    for (State& state : states) set_zero(state);  // nothing reads the states afterwards
    model_.backward_batch(dy, cache_, pointers(states), dx, grad_, workspace_);
    for (const State& d_state : states) model_.backward_initial_state(d_state, grad_);
    clip_gradient(grad_, 1.0);
    optimizer_.step(model_.parameters(), grad_, learning_rate(++steps_, schedule_));
    return 2 * loss_.mean(y, clips.targets) / pixels;
  }

  /// Reads clips as they would arrive, frame by frame. Returns the answers [pixels, clips *
  /// length], and calls `after_frame(t, states)` when frame t of every clip has been read.
  template <class AfterFrame>
  Matrix<float> watch(const Clips& clips, const RunOptions& options, AfterFrame&& after_frame) {
    auto states = fresh_states(clips.count());
    const std::vector<Index> one_each(states.size(), 1);
    Matrix<float> predictions(pixels, clips.frames.cols());
    Matrix<float> x(pixels, clips.count()), y(pixels, clips.count());
    for (Index t = 0; t < clips.length(); ++t) {
      for (Index i = 0; i < clips.count(); ++i) x.col(i) = clips.frames.col(clips.column(i, t));
      model_.forward_batch(x, one_each, pointers(states), y, workspace_, nullptr, options);
      for (Index i = 0; i < clips.count(); ++i) predictions.col(clips.column(i, t)) = y.col(i);
      after_frame(t, std::as_const(states));
    }
    return predictions;
  }

 private:
  std::vector<State> fresh_states(Index count) const {
    return std::vector<State>(static_cast<std::size_t>(count), model_.initial_state());
  }

  static std::vector<State*> pointers(std::vector<State>& states) {
    std::vector<State*> result;
    for (State& state : states) result.push_back(&state);
    return result;
  }

  Model model_;
  ScheduleConfig schedule_;
  AdamW<Parameters> optimizer_;
  Parameters grad_;
  typename Model::Workspace workspace_;
  typename Model::Cache cache_;
  SquaredLoss<float> loss_;
  Index steps_ = 0;
};

}  // namespace ttt::examples
