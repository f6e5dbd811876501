/// @file
/// What the numbers of an experiment say, in words.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "perplexity/results.hpp"

namespace ttt::examples {

/// Mean of means with standard errors, each of the same weight (several seeds).
class MeanWithError {
 public:
  void add(double mean, double standard_error);
  double mean() const;  // NaN where nothing was added

  /// The larger of the mean of the errors added (seeds are tested on the same bytes, so it does not
  /// shrink with their number) and of what follows from the spread of the means added; NaN where
  /// neither is known.
  double standard_error() const;

 private:
  double sum_ = 0, squares_ = 0, errors_ = 0;
  int count_ = 0;
};

/// Losses in nats per byte by position [begin, end) of a window, averaged over seeds.
using LossByPosition = std::map<std::pair<std::int64_t, std::int64_t>, MeanWithError>;

/// The loss of `layer` at `train_context` with the inner learning rate scaled by `scale`.
LossByPosition frozen_losses(const std::vector<FrozenRow>& rows, const std::string& layer,
                             std::int64_t train_context, double scale);

/// What inner learning is worth, for each layer at its longest training context: bits per byte
/// with inner learning on (scale 1) and off (scale 0), and the positions where it pays, that is
/// where it is better by more than two standard errors of the difference (taken as if the two were
/// independent, which is cautious: they read the same bytes). Empty where there is no such pair.
std::string frozen_sentence(const std::vector<FrozenRow>& rows);

/// The best model, the next best architecture, which others tie with the best, and the best
/// against counting. Seeds are averaged.
std::string results_sentences(const std::vector<ResultRow>& rows);

/// From which context on writing a byte is cheaper with each TTT layer than with attention, by
/// batch: where the logarithms of the two times, drawn straight over the logarithm of the context,
/// cross for the last time. Empty where the two were not measured at the same contexts.
std::string latency_sentence(const std::vector<LatencyRow>& rows);

/// By how much each layer's loss changes from the last positions of its training context to the
/// last ones beyond it, at its longest training context. Empty where nothing lies beyond.
std::string extrapolation_sentence(const std::vector<PositionRow>& rows);

/// "a, b and c".
std::string listed(const std::vector<std::string>& words);

/// Distinct values in the order of their first appearance.
template <class Row, class Value>
std::vector<Value> distinct(const std::vector<Row>& rows, Value Row::*member) {
  std::vector<Value> values;
  for (const Row& row : rows) {
    bool known = false;
    for (const Value& value : values) known = known || value == row.*member;
    if (!known) values.push_back(row.*member);
  }
  return values;
}

}  // namespace ttt::examples
