#include "perplexity/comparison.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "perplexity/summary.hpp"
#include "support/format.hpp"

namespace ttt::examples {
namespace {

using Quantity = std::function<double(const TrainingPoint&)>;

struct Equality {
  std::string name;
  Quantity used;
};

const std::vector<Equality>& equalities() {
  static const std::vector<Equality> all = {
      {"bytes", [](const TrainingPoint& point) { return static_cast<double>(point.tokens); }},
      {"flops", [](const TrainingPoint& point) { return point.flops; }},
      {"seconds", [](const TrainingPoint& point) { return point.seconds; }}};
  return all;
}

/// What a run had used at its points, in order, and its losses there.
struct Curve {
  std::vector<double> used, nats;
  double total() const { return used.empty() ? 0 : used.back(); }
};

/// Curves of one training context: by layer, one a seed.
using Curves = std::vector<std::pair<std::string, std::map<std::uint64_t, Curve>>>;

Curves curves_of(const std::vector<TrainingPoint>& points, std::int64_t train_context,
                 const Quantity& used) {
  Curves curves;
  for (const TrainingPoint& point : points) {
    if (point.train_context != train_context || !std::isfinite(point.nats_per_byte)) continue;
    auto place = std::find_if(curves.begin(), curves.end(),
                              [&](const auto& entry) { return entry.first == point.layer; });
    if (place == curves.end()) place = curves.insert(curves.end(), {point.layer, {}});
    Curve& curve = place->second[point.seed];
    curve.used.push_back(used(point));
    curve.nats.push_back(point.nats_per_byte);
  }
  return curves;
}

/// The largest budget that every run reached.
double common_budget(const Curves& curves) {
  double budget = std::numeric_limits<double>::infinity();
  for (const auto& [layer, seeds] : curves)
    for (const auto& [seed, curve] : seeds) budget = std::min(budget, curve.total());
  return budget;
}

/// Mean and standard error of the mean of `values` [count].
std::pair<double, double> mean_and_error(const double* values, std::size_t count) {
  const auto n = static_cast<double>(count);
  double mean = 0, squares = 0;
  for (std::size_t i = 0; i < count; ++i) mean += values[i] / n;
  for (std::size_t i = 0; i < count; ++i) squares += (values[i] - mean) * (values[i] - mean);
  return {mean, count > 1 ? std::sqrt(squares / (n - 1) / n) : not_known};
}

/// The smoothed loss of a run at `budget`; NaN where it has no point up to there (a run whose
/// beginning was not recorded).
std::pair<double, double> loss_at(const Curve& curve, double budget) {
  constexpr std::size_t fewest = 4;
  const auto end = static_cast<std::size_t>(
      std::upper_bound(curve.used.begin(), curve.used.end(), budget * (1 + 1e-9)) -
      curve.used.begin());
  auto begin = static_cast<std::size_t>(
      std::upper_bound(curve.used.begin(), curve.used.end(), 0.9 * budget) - curve.used.begin());
  begin = std::min(begin, end - std::min(end, fewest));
  if (begin == end) return {not_known, not_known};
  return mean_and_error(curve.nats.data() + begin, end - begin);
}

/// Mean over seeds.
ComparisonRow row_at(double budget, const std::map<std::uint64_t, Curve>& seeds) {
  MeanWithError mean;
  double share = 0;
  for (const auto& [seed, curve] : seeds) {
    const auto [loss, error] = loss_at(curve, budget);
    mean.add(loss, error);
    share += std::min(1.0, budget / curve.total()) / static_cast<double>(seeds.size());
  }
  ComparisonRow row;
  row.budget = budget;
  row.share_of_training = share;
  row.nats_per_byte = mean.mean();
  row.stderr_nats = mean.standard_error();
  return row;
}

std::string bits(const ComparisonRow& row) { return fixed(bits_from_nats(row.nats_per_byte), 3); }

bool ties(const ComparisonRow& leader, const ComparisonRow& row) {
  return row.nats_per_byte - leader.nats_per_byte <
         2 * std::hypot(leader.stderr_nats, row.stderr_nats);
}

std::string equal_words(const std::string& equality) {
  return "equal " + (equality == "flops" ? "FLOPs" : equality);
}

std::vector<ComparisonRow> rows_of(const std::vector<ComparisonRow>& rows,
                                   std::int64_t train_context, const std::string& equality) {
  std::vector<ComparisonRow> result;
  for (const ComparisonRow& row : rows)
    if (row.train_context == train_context && (equality.empty() || row.equality == equality))
      result.push_back(row);
  return result;
}

/// "a leads at equal bytes (a tie with b) and equal FLOPs; c at equal seconds", of one context.
std::string leaders(const std::vector<ComparisonRow>& rows) {
  std::vector<std::pair<std::string, std::vector<std::string>>> where;  // layer, equalities
  for (const std::string& equality : distinct(rows, &ComparisonRow::equality)) {
    const auto ranked = rows_of(rows, rows[0].train_context, equality);
    const std::string& leader = ranked[0].layer;
    std::vector<std::string> tied;
    for (std::size_t i = 1; i < ranked.size(); ++i)
      if (ties(ranked[0], ranked[i])) tied.push_back(ranked[i].layer);
    auto place = std::find_if(where.begin(), where.end(),
                              [&](const auto& entry) { return entry.first == leader; });
    if (place == where.end()) place = where.insert(where.end(), {leader, {}});
    place->second.push_back(equal_words(equality) +
                            (tied.empty() ? "" : " (a tie with " + listed(tied) + ")"));
  }
  std::string text;
  for (const auto& [layer, names] : where)
    text +=
        (text.empty() ? "" : "; ") + layer + (text.empty() ? " leads at " : " at ") + listed(names);
  return text;
}

/// One equality: the leader, who ties with it, and the others in order. `rows` are ranked.
std::string ranking(const std::vector<ComparisonRow>& rows) {
  std::vector<std::string> tied, behind;
  for (std::size_t i = 1; i < rows.size(); ++i)
    (ties(rows[0], rows[i]) ? tied : behind).push_back(rows[i].layer + " (" + bits(rows[i]) + ")");
  std::string text = "Context " + std::to_string(rows[0].train_context) + ", " +
                     equal_words(rows[0].equality) + " (" + budget_text(rows[0]) +
                     "): " + rows[0].layer + " " + bits(rows[0]);
  if (!std::isnan(rows[0].stderr_nats))
    text += " ± " + fixed(bits_from_nats(rows[0].stderr_nats), 3);
  text += " bits per byte";
  if (!tied.empty()) text += "; within two standard errors of it, so a tie: " + listed(tied);
  if (!behind.empty()) text += "; behind: " + listed(behind);
  return text + ".";
}

/// Which layers had done much less of their own training than the one furthest on.
std::string caught_in_the_middle(const std::vector<ComparisonRow>& rows) {
  const auto furthest = std::max_element(rows.begin(), rows.end(),
                                         [](const ComparisonRow& a, const ComparisonRow& b) {
                                           return a.share_of_training < b.share_of_training;
                                         });
  auto percent = [](const ComparisonRow& row) {
    return fixed(100 * row.share_of_training, 0) + " %";
  };
  std::vector<std::string> caught;
  for (const ComparisonRow& row : rows)
    if (row.share_of_training < 0.9 * furthest->share_of_training)
      caught.push_back(row.layer + " (" + percent(row) + ")");
  if (caught.empty()) return "";
  return " There " + furthest->layer + " had done " + percent(*furthest) +
         " of its training, but these were in the middle of theirs, with a learning rate that was "
         "still to fall: " +
         listed(caught) + ". That puts them at a disadvantage.";
}

}  // namespace

std::vector<ComparisonRow> compare_training(const std::vector<TrainingPoint>& points) {
  std::vector<ComparisonRow> rows;
  for (const std::int64_t context : distinct(points, &TrainingPoint::train_context)) {
    for (const Equality& equality : equalities()) {
      const Curves curves = curves_of(points, context, equality.used);
      const double budget = common_budget(curves);
      if (curves.size() < 2 || !(budget > 0)) continue;
      std::vector<ComparisonRow> ranked;
      for (const auto& [layer, seeds] : curves) {
        ComparisonRow row = row_at(budget, seeds);
        row.layer = layer;
        row.train_context = context;
        row.equality = equality.name;
        if (!std::isnan(row.nats_per_byte)) ranked.push_back(row);
      }
      std::stable_sort(ranked.begin(), ranked.end(),
                       [](const ComparisonRow& a, const ComparisonRow& b) {
                         return a.nats_per_byte < b.nats_per_byte;
                       });
      if (ranked.size() > 1) rows.insert(rows.end(), ranked.begin(), ranked.end());
    }
  }
  return rows;
}

std::string comparison_sentence(const std::vector<ComparisonRow>& rows) {
  std::string text;
  for (const std::int64_t context : distinct(rows, &ComparisonRow::train_context))
    text += (text.empty() ? "By training loss under equal budgets, at context " : "; at context ") +
            std::to_string(context) + " " + leaders(rows_of(rows, context, ""));
  return text.empty() ? text : text + ".";
}

std::vector<std::string> comparison_paragraphs(const std::vector<ComparisonRow>& rows) {
  std::vector<std::string> paragraphs;
  for (const std::int64_t context : distinct(rows, &ComparisonRow::train_context)) {
    const auto here = rows_of(rows, context, "");
    for (const std::string& equality : distinct(here, &ComparisonRow::equality)) {
      const auto ranked = rows_of(here, context, equality);
      paragraphs.push_back(ranking(ranked) + caught_in_the_middle(ranked));
    }
  }
  return paragraphs;
}

std::string budget_text(const ComparisonRow& row) {
  if (row.equality == "bytes") return byte_size(row.budget);
  if (row.equality == "seconds") return duration(row.budget);
  return with_unit(row.budget, "FLOP");
}

}  // namespace ttt::examples
