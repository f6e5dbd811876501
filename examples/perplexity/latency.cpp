#include "perplexity/latency.hpp"

#include <algorithm>

#include "support/clock.hpp"

namespace ttt::examples {
namespace {

/// Steps that are timed together: a layer may learn only with each 16th token, say.
constexpr Index steps_at_once = 16;

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// One context and batch.
class Streams {
 public:
  Streams(const Model& model, std::string_view text, Index context, Index batch)
      : model_(model), context_(context), workspace_(model.workspace(1)), logits_(256, batch) {
    const auto length = static_cast<Index>(text.size());
    for (Index t = 0; t < batch * context; ++t)
      ids_.push_back(static_cast<unsigned char>(text[static_cast<std::size_t>(t % length)]));
    next_.assign(static_cast<std::size_t>(batch), ids_.back());
    states_.resize(static_cast<std::size_t>(batch));
    for (Model::State& state : states_) pointers_.push_back(&state);
  }

  /// Reads the context with new states; seconds.
  double prefill() {
    for (Model::State& state : states_) state = model_.initial_state(context_ + steps_at_once);
    const std::vector<Index> lengths(states_.size(), context_);
    const double start = seconds_now();
    model_.prefill_batch(ids_, lengths, pointers_, logits_, workspace_);
    return seconds_now() - start;
  }

  /// Some steps after the context; seconds of one step of all streams. Leaves the states as they
  /// were.
  double decode() {
    std::vector<decltype(mark(states_[0]))> marks;
    for (const Model::State& state : states_) marks.push_back(mark(state));
    const double start = seconds_now();
    for (Index i = 0; i < steps_at_once; ++i) {
      if (states_.size() == 1)
        model_.step(next_[0], states_[0], logits_.col(0), workspace_);
      else
        model_.step_batch(next_, pointers_, logits_, workspace_);
    }
    const double seconds = (seconds_now() - start) / steps_at_once;
    for (std::size_t i = 0; i < states_.size(); ++i) rewind(states_[i], marks[i]);
    return seconds;
  }

 private:
  const Model& model_;
  Index context_;
  Model::Workspace workspace_;
  Matrix<float> logits_;                  // [V, B]
  std::vector<std::int32_t> ids_, next_;  // [B * context], [B]
  std::vector<Model::State> states_;
  std::vector<Model::State*> pointers_;
};

/// Repeats for about `seconds`: at least one prefill and one decode.
LatencyRow measure(Streams& streams, const std::string& layer, Index context, Index batch,
                   double seconds) {
  constexpr std::size_t most_prefills = 9, most_decodes = 60;
  std::vector<double> prefills, decodes;
  const double start = seconds_now();
  do {
    prefills.push_back(streams.prefill());
    const double decode_start = seconds_now();
    do {
      decodes.push_back(streams.decode());
    } while (decodes.size() < most_decodes && seconds_now() - decode_start < seconds / 2);
  } while (prefills.size() < most_prefills && seconds_now() - start < seconds);
  LatencyRow row;
  row.layer = layer;
  row.context = context;
  row.batch = batch;
  row.prefill_tokens_per_second = static_cast<double>(context * batch) / median(prefills);
  row.decode_seconds_per_token = median(decodes) / static_cast<double>(batch);
  return row;
}

/// Seconds that measuring `row` once takes.
double cost(const LatencyRow& row) {
  const auto batch = static_cast<double>(row.batch);
  return static_cast<double>(row.context) * batch / row.prefill_tokens_per_second +
         steps_at_once * batch * row.decode_seconds_per_token;
}

/// What the next context costs at least: in proportion to its length, or as the cost has grown.
double expected_cost(const std::vector<LatencyRow>& rows, std::int64_t context) {
  const LatencyRow& last = rows.back();
  double growth = static_cast<double>(context) / static_cast<double>(last.context);
  if (rows.size() > 1) growth = std::max(growth, cost(last) / cost(rows[rows.size() - 2]));
  return growth * cost(last);
}

}  // namespace

std::vector<LatencyRow> measure_latency(const Model& model, const std::string& layer,
                                        std::string_view text, const LatencyOptions& options) {
  require(!text.empty(), "measure_latency: the text is empty, expected bytes to read");
  const double start = seconds_now();
  std::vector<std::vector<LatencyRow>> by_batch(options.batches.size());
  std::vector<bool> ended(options.batches.size());
  for (const std::int64_t context : options.contexts) {
    const std::int64_t bytes = state_bytes(model, context);
    for (std::size_t i = 0; i < options.batches.size(); ++i) {
      auto& rows = by_batch[i];
      const std::int64_t batch = options.batches[i];
      const double left = options.seconds - (seconds_now() - start);
      if (bytes * batch > options.max_state_bytes ||
          (!rows.empty() && expected_cost(rows, context) > left))
        ended[i] = true;
      if (ended[i]) continue;
      Streams streams(model, text, context, batch);
      rows.push_back(measure(streams, layer, context, batch, 0.02 * options.seconds));
      rows.back().state_bytes = bytes;
    }
  }
  std::vector<LatencyRow> all;
  for (const auto& rows : by_batch) all.insert(all.end(), rows.begin(), rows.end());
  return all;
}

}  // namespace ttt::examples
