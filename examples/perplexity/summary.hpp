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
  double mean() const;            // NaN where nothing was added
  double standard_error() const;  // NaN where one of them is not known

 private:
  double sum_ = 0, squared_errors_ = 0;
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

/// The best model, the next best architecture, and both against counting.
std::string results_sentences(const std::vector<ResultRow>& rows);

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
