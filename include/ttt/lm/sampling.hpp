/// @file
/// Drawing the next token from logits l [V]:
///   p_v = exp(l_v / temperature) / sum of the same over the candidates
/// The candidates are the `top_k` largest logits (Fan et al. 2018), and of these the fewest whose
/// probabilities reach `top_p` together (Holtzman et al. 2020, nucleus sampling). Temperature 0
/// takes the largest logit. Equal logits rank by their index, so results are the same everywhere.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/random.hpp"
#include "ttt/core/scalar.hpp"
#include "ttt/core/views.hpp"

namespace ttt {

struct SamplingConfig {
  double temperature = 1;
  Index top_k = 0;   ///< 0: all
  double top_p = 1;  ///< in (0, 1]; 1: all

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(std::isfinite(temperature) && temperature >= 0, "SamplingConfig: temperature is ",
            temperature, ", expected a finite number, 0 or more");
    require(top_k >= 0, "SamplingConfig: top_k is ", top_k, ", expected 0 or more");
    require(top_p > 0 && top_p <= 1, "SamplingConfig: top_p is ", top_p,
            ", expected a number above 0, at most 1");
  }
};

namespace detail {

/// Probabilities of the candidates, which stand in descending order of their logits, up to a common
/// factor: the largest is 1.
template <Scalar S>
std::vector<double> unnormalized(VectorIn<S> logits, const std::vector<std::int32_t>& candidates,
                                 double temperature) {
  const double largest = static_cast<double>(logits(candidates.front()));
  std::vector<double> weights;
  weights.reserve(candidates.size());
  for (const std::int32_t id : candidates)
    weights.push_back(std::exp((static_cast<double>(logits(id)) - largest) / temperature));
  return weights;
}

/// How many of the first weights reach the share `top_p` of all.
inline std::size_t nucleus(const std::vector<double>& weights, double top_p) {
  const double enough = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t count = 0;
  for (double sum = 0; count < weights.size() && sum < enough;) sum += weights[count++];
  return count;
}

}  // namespace detail

/// The id of the next token. Draws one number from `random`, none at temperature 0.
/// Throws `std::invalid_argument` where there are no logits, one is NaN, all are -infinity or one
/// is +infinity, or `config` is invalid.
template <Scalar S>
std::int32_t sample(VectorIn<S> logits, const SamplingConfig& config, Random& random) {
  config.validate();
  require(logits.size() > 0, "sample: there are no logits");
  require(!logits.hasNaN(), "sample: a logit is not a number");
  Index largest = 0;
  const S top = logits.maxCoeff(&largest);
  require(top - top == S(0), "sample: the largest logit is ", top, ", expected a finite number");
  if (config.temperature == 0) return static_cast<std::int32_t>(largest);

  std::vector<std::int32_t> candidates(static_cast<std::size_t>(logits.size()));
  std::iota(candidates.begin(), candidates.end(), 0);
  std::sort(candidates.begin(), candidates.end(), [&](std::int32_t a, std::int32_t b) {
    return logits(a) != logits(b) ? logits(a) > logits(b) : a < b;
  });
  if (config.top_k > 0 && config.top_k < logits.size())
    candidates.resize(static_cast<std::size_t>(config.top_k));

  auto weights = detail::unnormalized<S>(logits, candidates, config.temperature);
  weights.resize(detail::nucleus(weights, config.top_p));
  double rest = random.uniform() * std::accumulate(weights.begin(), weights.end(), 0.0);
  std::size_t chosen = 0;
  while (chosen + 1 < weights.size() && rest >= weights[chosen]) rest -= weights[chosen++];
  return candidates[chosen];
}

}  // namespace ttt
