#include "perplexity/summary.hpp"

#include <algorithm>
#include <cmath>

#include "support/format.hpp"

namespace ttt::examples {

namespace {

using Positions = std::pair<std::int64_t, std::int64_t>;  // [begin, end)

/// What scales 1 and 0 say where both were measured.
struct FrozenComparison {
  double bits_on = 0, bits_off = 0;
  std::vector<Positions> pays;  // merged where they touch
  std::int64_t begin = 0, end = 0;
};

FrozenComparison compare(const LossByPosition& on, const LossByPosition& off) {
  FrozenComparison result;
  double width_sum = 0, on_sum = 0, off_sum = 0;
  for (const auto& [positions, with] : on) {
    const auto found = off.find(positions);
    if (found == off.end()) continue;
    const MeanWithError& without = found->second;
    const auto width = static_cast<double>(positions.second - positions.first);
    if (width_sum == 0) result.begin = positions.first;
    result.end = std::max(result.end, positions.second);
    width_sum += width;
    on_sum += width * with.mean();
    off_sum += width * without.mean();
    const double error = std::hypot(with.standard_error(), without.standard_error());
    if (!(without.mean() - with.mean() > (std::isnan(error) ? 0 : 2 * error))) continue;
    if (!result.pays.empty() && result.pays.back().second == positions.first) {
      result.pays.back().second = positions.second;
    } else {
      result.pays.push_back(positions);
    }
  }
  result.bits_on = bits_from_nats(on_sum / width_sum);
  result.bits_off = bits_from_nats(off_sum / width_sum);
  return result;
}

std::string where_it_pays(const FrozenComparison& comparison) {
  const auto& pays = comparison.pays;
  if (pays.empty()) return "it pays at no position";
  if (pays.front() == Positions(comparison.begin, comparison.end))
    return "it pays at every position";
  std::string text = "it pays ";
  for (std::size_t i = 0; i < pays.size(); ++i) {
    if (i > 0) text += i + 1 == pays.size() ? " and " : ", ";
    const std::string begin = std::to_string(pays[i].first);
    if (pays[i].second == comparison.end) {
      text += "from position " + begin + " on";
    } else {
      text += "at positions " + begin + " to " + std::to_string(pays[i].second - 1);
    }
  }
  return text;
}

const ResultRow* best_of(const std::vector<ResultRow>& rows, bool counting,
                         const std::string& other_than = "") {
  const ResultRow* best = nullptr;
  for (const ResultRow& row : rows) {
    if (is_count_layer(row.layer) != counting || std::isnan(row.nats_per_byte)) continue;
    if (row.layer == other_than) continue;
    if (best == nullptr || row.nats_per_byte < best->nats_per_byte) best = &row;
  }
  return best;
}

std::string plural(std::int64_t count, const std::string& word) {
  return std::to_string(count) + " " + word + (count == 1 ? "" : "s");
}

std::string against_counting(const ResultRow& best, const ResultRow& count) {
  const double gain = count.bits_per_byte() - best.bits_per_byte();
  const std::string text = " Counting (" + count.layer + ") reaches " +
                           fixed(count.bits_per_byte(), 3) + " bits per byte, ";
  if (gain > 0) return text + "which the best model beats by " + fixed(gain, 3) + ".";
  return text + "which no trained model beats (the best one is " + fixed(-gain, 3) +
         " behind): it has seen too little text, or is too small, to say much about architectures.";
}

}  // namespace

void MeanWithError::add(double mean, double standard_error) {
  sum_ += mean;
  squared_errors_ += standard_error * standard_error;
  ++count_;
}

double MeanWithError::mean() const { return count_ > 0 ? sum_ / count_ : not_known; }

double MeanWithError::standard_error() const {
  return count_ > 0 ? std::sqrt(squared_errors_) / count_ : not_known;
}

LossByPosition frozen_losses(const std::vector<FrozenRow>& rows, const std::string& layer,
                             std::int64_t train_context, double scale) {
  LossByPosition losses;
  for (const FrozenRow& row : rows) {
    if (row.layer != layer || row.train_context != train_context) continue;
    if (row.inner_rate_scale != scale || std::isnan(row.nats_per_byte)) continue;
    losses[{row.position_begin, row.position_end}].add(row.nats_per_byte, row.stderr_nats);
  }
  return losses;
}

std::string frozen_sentence(const std::vector<FrozenRow>& rows) {
  std::string text;
  for (const std::string& layer : distinct(rows, &FrozenRow::layer)) {
    std::int64_t context = 0;
    for (const FrozenRow& row : rows)
      if (row.layer == layer) context = std::max(context, row.train_context);
    const FrozenComparison comparison =
        compare(frozen_losses(rows, layer, context, 1), frozen_losses(rows, layer, context, 0));
    if (std::isnan(comparison.bits_on)) continue;
    const double gain = comparison.bits_off - comparison.bits_on;
    text += text.empty() ? "Learning while reading: " : "; ";
    text += layer + " (trained at " + plural(context, "byte") + " of context) needs " +
            fixed(comparison.bits_on, 3) + " bits per byte with inner learning on and " +
            fixed(comparison.bits_off, 3) + " with it off, a " + (gain >= 0 ? "gain" : "loss") +
            " of " + fixed(std::abs(gain), 3) + ", and " + where_it_pays(comparison);
  }
  return text.empty() ? text : text + ".";
}

std::string results_sentences(const std::vector<ResultRow>& rows) {
  const ResultRow* count = best_of(rows, true);
  const ResultRow* best = best_of(rows, false);
  if (best == nullptr && count == nullptr) return "There is no result yet.";
  if (best == nullptr)
    return "No model is trained yet; counting (" + count->layer + ") reaches " +
           fixed(count->bits_per_byte(), 3) + " bits per byte.";

  std::string text = "The best model is " + best->layer + ", trained at a context of " +
                     plural(best->train_context, "byte") + ": it needs " +
                     fixed(best->bits_per_byte(), 3);
  if (!std::isnan(best->stderr_nats)) text += " ± " + fixed(bits_from_nats(best->stderr_nats), 3);
  text += " bits per byte (a perplexity of " + fixed(best->perplexity_per_byte(), 2) +
          " per byte) on text that it was not trained on.";
  if (const ResultRow* next = best_of(rows, false, best->layer)) {
    const double error = std::hypot(best->stderr_nats, next->stderr_nats);
    const bool tie = next->nats_per_byte - best->nats_per_byte < 2 * error;
    text += " The next architecture is " + next->layer + " (context " +
            std::to_string(next->train_context) + ") with " + fixed(next->bits_per_byte(), 3);
    text += tie ? ", which is within two standard errors of the best." : ".";
  }
  if (count != nullptr) text += against_counting(*best, *count);
  return text;
}

}  // namespace ttt::examples
