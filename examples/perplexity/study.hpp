/// @file
/// Which learning rate suits each layer: the same number of trials for all, judged on the
/// validation text.
#pragma once

#include <ostream>
#include <vector>

#include "perplexity/plan.hpp"

namespace ttt::examples {

/// One trial.
struct RateTrial {
  double rate = 0, nats = 0, standard_error = 0;
};

/// The rate to try next: twice or half of the best one where that is the largest or the smallest
/// tried, else the geometric middle between the best and its better neighbour.
double next_rate(const std::vector<RateTrial>& trials);

/// True where the best rate is neither the largest nor the smallest tried.
bool best_is_inside(const std::vector<RateTrial>& trials);

/// Tries 2e-3, 4e-3 and 8e-3 for every layer of `options`, and further rates (`next_rate`) for all
/// as long as the best rate of one is at an edge. Prints each trial and the chosen rates, and
/// writes DIR/study.csv: layer,train_context,learning_rate,nats_per_byte,stderr,chosen.
/// `--resume` goes on where a study stopped.
void study_learning_rates(const Options& options, const TextParts& text, std::ostream& out);

}  // namespace ttt::examples
