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

/// One row a layer and context, the mean of its seeds.
std::vector<ResultRow> over_seeds(const std::vector<ResultRow>& rows) {
  std::map<std::pair<std::string, std::int64_t>, MeanWithError> means;
  for (const ResultRow& row : rows)
    if (!std::isnan(row.nats_per_byte))
      means[{row.layer, row.train_context}].add(row.nats_per_byte, row.stderr_nats);
  std::vector<ResultRow> averaged;
  for (ResultRow row : rows) {
    const auto found = means.find({row.layer, row.train_context});
    if (found == means.end()) continue;
    row.nats_per_byte = found->second.mean();
    row.stderr_nats = found->second.standard_error();
    averaged.push_back(row);
    means.erase(found);
  }
  return averaged;
}

bool ties(const ResultRow& best, const ResultRow& other) {
  return other.nats_per_byte - best.nats_per_byte <
         2 * std::hypot(best.stderr_nats, other.stderr_nats);
}

/// Of all architectures but those of the best and the next row, the ones that tie with the best.
std::string further_ties(const std::vector<ResultRow>& rows, const ResultRow& best,
                         const ResultRow& next) {
  std::vector<std::string> tied;
  for (const std::string& layer : distinct(rows, &ResultRow::layer)) {
    if (is_count_layer(layer) || layer == best.layer || layer == next.layer) continue;
    const auto tie = [&](const ResultRow& row) { return row.layer == layer && ties(best, row); };
    if (std::any_of(rows.begin(), rows.end(), tie)) tied.push_back(layer);
  }
  return tied.empty()
             ? ""
             : " So " + std::string(tied.size() == 1 ? "is " : "are ") + listed(tied) + ".";
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
  squares_ += mean * mean;
  errors_ += standard_error;
  ++count_;
}

double MeanWithError::mean() const { return count_ > 0 ? sum_ / count_ : not_known; }

double MeanWithError::standard_error() const {
  if (count_ == 0) return not_known;
  const double within = errors_ / count_;
  if (count_ == 1) return within;
  const double variance = std::max(0.0, squares_ - sum_ * sum_ / count_) / (count_ - 1);
  return std::fmax(within, std::sqrt(variance / count_));
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

std::string results_sentences(const std::vector<ResultRow>& all_rows) {
  const std::vector<ResultRow> rows = over_seeds(all_rows);
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
    text += " The next architecture is " + next->layer + " (context " +
            std::to_string(next->train_context) + ") with " + fixed(next->bits_per_byte(), 3);
    text += ties(*best, *next) ? ", which is within two standard errors of the best." : ".";
    text += further_ties(rows, *best, *next);
  }
  if (count != nullptr) text += against_counting(*best, *count);
  return text;
}

namespace {

/// Decode times of two layers at the contexts and the batch where both were measured.
struct Race {
  std::vector<double> contexts, ratio;  // ascending; time of the first over that of the second
};

Race race(const std::vector<LatencyRow>& rows, const std::string& first, const std::string& second,
          std::int64_t batch) {
  std::map<std::int64_t, std::pair<double, double>> times;
  for (const LatencyRow& row : rows) {
    if (row.batch != batch || !(row.decode_seconds_per_token > 0)) continue;
    if (row.layer == first) times[row.context].first = row.decode_seconds_per_token;
    if (row.layer == second) times[row.context].second = row.decode_seconds_per_token;
  }
  Race result;
  for (const auto& [context, pair] : times) {
    if (!(pair.first > 0 && pair.second > 0)) continue;
    result.contexts.push_back(static_cast<double>(context));
    result.ratio.push_back(pair.first / pair.second);
  }
  return result;
}

/// `value` in two significant digits, without an exponent.
std::string about(double value) {
  const double unit = std::pow(10, std::max(0.0, std::floor(std::log10(value)) - 1));
  return "about " + fixed(std::round(value / unit) * unit, 0);
}

/// Where the first layer is cheaper for good.
std::string where_cheaper(const Race& race) {
  const std::size_t count = race.contexts.size();
  const std::string measured =
      fixed(race.contexts.front(), 0) + " to " + fixed(race.contexts.back(), 0);
  std::size_t from = count;
  while (from > 0 && race.ratio[from - 1] < 1) --from;
  if (from == 0) return "at every measured context (" + measured + " bytes)";
  if (from == count) return "at none of the measured contexts (" + measured + " bytes)";
  const double above = std::log(race.ratio[from - 1]), below = std::log(race.ratio[from]);
  const double share = above / (above - below);
  const double crossing = std::exp((1 - share) * std::log(race.contexts[from - 1]) +
                                   share * std::log(race.contexts[from]));
  return "from a context of " + about(crossing) + " bytes on";
}

/// The pieces of a layer at one training context, seeds averaged.
LossByPosition losses_of(const std::vector<PositionRow>& rows, const std::string& layer,
                         std::int64_t train_context) {
  LossByPosition losses;
  for (const PositionRow& row : rows)
    if (row.layer == layer && row.train_context == train_context && !std::isnan(row.nats_per_byte))
      losses[{row.position_begin, row.position_end}].add(row.nats_per_byte, row.stderr_nats);
  return losses;
}

std::string range(const Positions& positions) {
  return std::to_string(positions.first) + "–" + std::to_string(positions.second - 1);
}

/// "+0.123", and whether that is more than chance.
std::string change(const MeanWithError& from, const MeanWithError& to) {
  const double nats = to.mean() - from.mean();
  const bool small = std::abs(nats) < 2 * std::hypot(from.standard_error(), to.standard_error());
  return (nats < 0 ? "−" : "+") + fixed(std::abs(bits_from_nats(nats)), 3) +
         (small ? " (within two standard errors of none)" : "");
}

}  // namespace

std::string latency_sentence(const std::vector<LatencyRow>& rows) {
  std::string text;
  for (const std::string& layer : distinct(rows, &LatencyRow::layer)) {
    if (layer.rfind("ttt-", 0) != 0) continue;
    std::vector<std::string> places;
    for (const std::int64_t batch : distinct(rows, &LatencyRow::batch))
      if (const Race times = race(rows, layer, "attention", batch); !times.contexts.empty())
        places.push_back((batch == 1 ? "for one stream "
                                     : "for " + std::to_string(batch) + " streams at once ") +
                         where_cheaper(times));
    if (places.empty()) continue;
    text += text.empty() ? "Writing a byte costs less than with attention: " : "; ";
    text += "with " + layer + ", " + listed(places);
  }
  return text.empty() ? text : text + ".";
}

std::string extrapolation_sentence(const std::vector<PositionRow>& rows) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;  // positions; changes there
  for (const std::string& layer : distinct(rows, &PositionRow::layer)) {
    std::int64_t context = 0;
    for (const PositionRow& row : rows)
      if (row.layer == layer) context = std::max(context, row.train_context);
    const LossByPosition losses = losses_of(rows, layer, context);
    const auto within = std::find_if(losses.begin(), losses.end(), [&](const auto& piece) {
      return piece.first.second == context;
    });
    if (within == losses.end() || losses.rbegin()->first.first < context) continue;
    const auto& [last, loss] = *losses.rbegin();
    const std::string where = "From the end of the training context (positions " +
                              range(within->first) + ") to positions never met in training (" +
                              range(last) + ")";
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const auto& entry) { return entry.first == where; });
    if (group == groups.end()) group = groups.insert(groups.end(), {where, {}});
    group->second.push_back(layer + " " + change(within->second, loss));
  }
  std::string text;
  for (const auto& [where, layers] : groups)
    text +=
        (text.empty() ? "" : " ") + where + " the bits per byte change: " + listed(layers) + ".";
  return text;
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 < words.size() ? ", " : " and ") + words[i];
  return text;
}

}  // namespace ttt::examples
