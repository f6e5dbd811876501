#include "perplexity/evaluation.hpp"

#include <cmath>

#include "ttt/core/visit_index.hpp"
#include "ttt/layers/ttt_inner_losses.hpp"
#include "ttt/lm/generation.hpp"
#include "ttt/train/token_windows.hpp"

namespace ttt::examples {
namespace {

/// Mean over all bytes, and its standard error from the spread of the windows' means.
class WindowMean {
 public:
  void add(double sum, std::int64_t count) {
    if (count == 0) return;
    const double mean = sum / static_cast<double>(count);
    total_ += sum;
    count_ += count;
    sum_of_means_ += mean;
    sum_of_squares_ += mean * mean;
    ++windows_;
  }

  MeanLoss result() const {
    const auto n = static_cast<double>(windows_);
    const double mean = sum_of_means_ / n;
    const double variance = n > 1 ? (sum_of_squares_ - n * mean * mean) / (n - 1) : std::nan("");
    return {total_ / static_cast<double>(count_), std::sqrt(std::max(variance, 0.0) / n), count_};
  }

 private:
  double total_ = 0, sum_of_means_ = 0, sum_of_squares_ = 0;
  std::int64_t count_ = 0, windows_ = 0;
};

/// Doubling pieces of a window: [0, 1), [1, 2), [2, 4), ... With a `border` a piece ends there, and
/// those beyond it are half as long as what is before it.
class Buckets {
 public:
  explicit Buckets(std::int64_t border = 0) : border_(static_cast<std::size_t>(border)) {}

  void add(std::span<const float> nats) {
    double sum = 0;
    for (std::size_t bucket = 0, begin = 0; begin < nats.size(); ++bucket) {
      const std::size_t end = std::min(end_of(begin), nats.size());
      double part = 0;
      for (std::size_t t = begin; t < end; ++t) part += static_cast<double>(nats[t]);
      if (bucket == means_.size()) {
        means_.emplace_back();
        bounds_.emplace_back(begin, end);
      }
      means_[bucket].add(part, static_cast<std::int64_t>(end - begin));
      sum += part;
      begin = end;
    }
    all_.add(sum, std::ssize(nats));
  }

  LossByWindow result() const {
    LossByWindow result{all_.result(), {}};
    for (std::size_t i = 0; i < means_.size(); ++i)
      result.buckets.push_back({static_cast<std::int64_t>(bounds_[i].first),
                                static_cast<std::int64_t>(bounds_[i].second), means_[i].result()});
    return result;
  }

 private:
  std::size_t end_of(std::size_t begin) const {
    const std::size_t doubled = begin == 0 ? 1 : 2 * begin;
    if (border_ == 0) return doubled;
    return begin < border_ ? std::min(doubled, border_) : begin + (border_ + 1) / 2;
  }

  std::size_t border_;
  WindowMean all_;
  std::vector<WindowMean> means_;
  std::vector<std::pair<std::size_t, std::size_t>> bounds_;
};

LossByWindow evaluate(const Model& model, const std::vector<std::string_view>& windows,
                      double inner_rate_scale, bool carry_state, Buckets buckets);

}  // namespace

std::vector<std::string_view> test_windows(const std::vector<Document>& documents,
                                           std::int64_t context, std::int64_t max_bytes) {
  std::vector<std::string_view> windows;
  for (const Document& document : documents) {
    const std::string_view bytes = document.bytes;
    for (std::int64_t begin = 0; begin + context < std::ssize(bytes); begin += context) {
      if (max_bytes > 0 && std::ssize(windows) * context >= max_bytes) return windows;
      windows.push_back(
          bytes.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(context + 1)));
    }
  }
  return windows;
}

LossByWindow evaluate(const Model& model, const std::vector<std::string_view>& windows,
                      double inner_rate_scale, bool carry_state) {
  return evaluate(model, windows, inner_rate_scale, carry_state, Buckets());
}

std::vector<PositionRow> extrapolate(const Model& model, const std::string& layer,
                                     std::int64_t train_context, std::uint64_t seed,
                                     const std::vector<Document>& documents,
                                     std::int64_t max_bytes) {
  const auto windows =
      test_windows(documents, 4 * train_context, std::max<std::int64_t>(1, max_bytes));
  std::vector<PositionRow> rows;
  if (windows.empty()) return rows;
  for (const BucketLoss& bucket :
       evaluate(model, windows, 1, false, Buckets(train_context)).buckets)
    rows.push_back({layer, train_context, seed, bucket.begin, bucket.end, bucket.loss.nats,
                    bucket.loss.standard_error, bucket.loss.count});
  return rows;
}

namespace {

LossByWindow evaluate(const Model& model, const std::vector<std::string_view>& windows,
                      double inner_rate_scale, bool carry_state, Buckets buckets) {
  // Windows in one batch: few, so that long ones take no more memory; threads share heads too.
  constexpr std::size_t tokens_at_once = 4096;
  const std::size_t context = windows.empty() ? 1 : windows.front().size() - 1;
  const std::size_t at_once = std::clamp<std::size_t>(tokens_at_once / context, 1, 4);
  auto workspace = model.workspace(1);
  std::vector<Model::State> states(carry_state ? 1 : at_once, model.initial_state());
  const char* previous_end = nullptr;
  for (std::size_t first = 0; first < windows.size();) {
    const std::size_t count = std::min(states.size(), windows.size() - first);
    TokenBatch batch;
    std::vector<Model::State*> pointers;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string_view window = windows[first + i];
      const bool continues = carry_state && window.data() + 1 == previous_end;
      if (!continues) states[i] = model.initial_state();
      previous_end = window.data() + window.size();
      append_window(window, batch);
      pointers.push_back(&states[i]);
    }
    std::vector<float> nats(batch.ids.size());
    model.loss_batch(batch.ids, batch.targets, batch.lengths, pointers, workspace, nullptr,
                     {inner_rate_scale}, nats);
    std::size_t begin = 0;
    for (const Index length : batch.lengths) {
      buckets.add(std::span<const float>(nats).subspan(begin, static_cast<std::size_t>(length)));
      begin += static_cast<std::size_t>(length);
    }
    first += count;
  }
  return buckets.result();
}

}  // namespace

MeanLoss evaluate(const CountModel& model, const std::vector<std::string_view>& windows,
                  int context_bytes) {
  WindowMean mean;
  for (const std::string_view window : windows) {
    double sum = 0;
    const auto nats = model.window_nats(as_bytes(window), context_bytes, 1);
    for (const double value : nats) sum += value;
    mean.add(sum, std::ssize(nats));
  }
  return mean.result();
}

namespace {

/// Adds the mean losses of each head over windows that stand side by side, `context` columns each.
void add_inner_losses(const InnerLosses<float>& losses, std::int64_t block, Index context,
                      std::vector<InnerLossBucket>& rows) {
  const Index windows = losses.initial.cols() / context;
  for (Index head = 0; head < losses.initial.rows(); ++head) {
    for (Index begin = 0; begin < context; begin = std::max<Index>(1, 2 * begin)) {
      const Index end = std::min(std::max<Index>(1, 2 * begin), context);
      const auto mean = [&](const Matrix<float>& loss) {
        double sum = 0;
        for (Index i = 0; i < windows; ++i)
          sum +=
              static_cast<double>(loss.row(head).segment(i * context + begin, end - begin).mean());
        return sum / static_cast<double>(windows);
      };
      rows.push_back({block, head, begin, end, mean(losses.initial), mean(losses.border),
                      mean(losses.before), mean(losses.after)});
    }
  }
}

}  // namespace

std::vector<InnerLossBucket> inner_losses(const Model& model,
                                          const std::vector<std::string_view>& windows,
                                          std::size_t max_windows) {
  // The windows as one batch of equal lengths: columns of a window stand together.
  const std::size_t count = std::min(windows.size(), max_windows);
  TokenBatch batch;
  for (std::size_t i = 0; i < count; ++i) append_window(windows[i], batch);
  const Index context = batch.lengths.front();
  std::vector<Model::State> states(count, model.initial_state());
  std::vector<Model::State*> pointers;
  for (auto& state : states) pointers.push_back(&state);
  auto workspace = model.workspace(1);
  Model::Cache cache;
  model.loss_batch(batch.ids, batch.targets, batch.lengths, pointers, workspace, &cache);

  std::vector<InnerLossBucket> rows;
  for (std::size_t block = 0; block < cache.trunk.layers.size(); ++block)
    visit_index(model.trunk().parameters().layers[block].mixer(),
                [&](auto index, const auto& layer) {
                  const auto& layer_cache = std::get<index>(cache.trunk.layers[block].mixer);
                  if constexpr (requires { ttt::inner_losses(layer, layer_cache); })
                    add_inner_losses(ttt::inner_losses(layer, layer_cache),
                                     static_cast<std::int64_t>(block), context, rows);
                });
  return rows;
}

std::string sample(const Model& model, std::string_view prompt, int bytes, double temperature,
                   std::uint64_t seed) {
  auto workspace = model.workspace(static_cast<Index>(prompt.size()));
  Generation<Model> generation{model.initial_state()};
  generation.random_seed = seed;
  append(model, tokens_of(prompt), generation, workspace);
  std::string text;
  for (int i = 0; i < bytes; ++i)
    text +=
        static_cast<char>(write_token(model, {.temperature = temperature}, generation, workspace));
  return text;
}

}  // namespace ttt::examples
