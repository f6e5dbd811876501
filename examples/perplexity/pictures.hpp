/// @file
/// The pictures of a report: rows of results to charts. A layer looks the same in all of them, and
/// curves of several seeds are their mean.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "perplexity/results.hpp"
#include "support/svg.hpp"

namespace ttt::examples {

/// Draws with one look a layer: `layers` lists all that appear in a report.
class Pictures {
 public:
  explicit Pictures(std::vector<std::string> layers) : layers_(std::move(layers)) {}

  /// Bits per byte on the test text against the training context; count models are yardsticks.
  Chart results_by_context(const std::vector<ResultRow>& rows) const;

  /// Training loss at one context against `TrainingPoint::tokens`, `seconds` or `flops`
  /// (neighbouring points are averaged to at most 60 a curve), from a twentieth of the shortest
  /// curve on: what is before it would press the rest together.
  template <class Number>
  Chart training(const std::vector<TrainingPoint>& rows, std::int64_t train_context,
                 Number TrainingPoint::*against, const std::string& x_title) const;

  /// Loss by position at one training context. With `border` for positions beyond it: a line at
  /// that context, from an eighth of it on.
  Chart positions(const std::vector<PositionRow>& rows, std::int64_t train_context,
                  bool border) const;

  /// One layer at one context: a curve for each scale of the inner learning rate.
  Chart frozen(const std::vector<FrozenRow>& rows, const std::string& layer,
               std::int64_t train_context) const;

  /// The four inner losses of one block, averaged over its heads.
  Chart inner_losses(const std::vector<InnerLossRow>& rows, const std::string& layer,
                     std::int64_t train_context, std::int64_t block) const;

  /// Milliseconds per written byte, or bytes read per second, against the context, at one batch.
  Chart decode_latency(const std::vector<LatencyRow>& rows, std::int64_t batch) const;
  Chart prefill_speed(const std::vector<LatencyRow>& rows, std::int64_t batch) const;

 private:
  Series series(const std::string& layer) const;
  void add_latency(Chart& chart, const std::vector<LatencyRow>& rows, std::int64_t batch,
                   double LatencyRow::*member, double factor) const;

  std::vector<std::string> layers_;
};

}  // namespace ttt::examples
