#include "perplexity/count_model.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "ttt/core/check.hpp"

namespace ttt::examples {

namespace {

/// The lowest `bytes` bytes of a key.
constexpr std::uint64_t suffix(std::uint64_t key, int bytes) {
  return key & ((std::uint64_t{1} << (8 * bytes)) - 1);
}

/// Adds without wrapping round: a text of more than 4 GB may repeat a byte more often than that.
std::uint32_t saturating_sum(std::uint32_t a, std::uint32_t b) {
  return a > std::numeric_limits<std::uint32_t>::max() - b
             ? std::numeric_limits<std::uint32_t>::max()
             : a + b;
}

}  // namespace

CountModel::Grams CountModel::merged(Grams grams) {
  std::sort(grams.begin(), grams.end(), [](const Gram& a, const Gram& b) { return a.key < b.key; });
  std::size_t kept = 0;
  for (const Gram& gram : grams) {
    if (kept > 0 && grams[kept - 1].key == gram.key) {
      grams[kept - 1].count = saturating_sum(grams[kept - 1].count, gram.count);
    } else {
      grams[kept++] = gram;
    }
  }
  grams.resize(kept);
  grams.shrink_to_fit();
  return grams;
}

CountModel::Grams CountModel::occurrences(const std::vector<std::string_view>& documents,
                                          int context_bytes) {
  std::unordered_map<std::uint64_t, std::uint32_t> counts;
  for (const std::string_view document : documents) {
    std::uint64_t key = 0;
    std::size_t seen = 0;
    for (const unsigned char byte : as_bytes(document)) {
      key = suffix(key << 8 | byte, context_bytes + 1);
      if (++seen <= static_cast<std::size_t>(context_bytes)) continue;
      std::uint32_t& count = counts[key];
      count = saturating_sum(count, 1);
    }
  }
  Grams grams;
  grams.reserve(counts.size());
  for (const auto& [key, count] : counts) grams.push_back({key, count});
  return merged(std::move(grams));
}

CountModel::Table::Table(Grams sorted) : grams(std::move(sorted)) {
  // D_i = i - (i + 1) Y n_{i+1} / n_i, Y = n_1 / (n_1 + 2 n_2), n_i: n-grams that occur i times.
  double n[5] = {};
  for (const Gram& gram : grams) n[std::min<std::uint32_t>(gram.count, 4)] += 1;
  const double Y = n[1] / (n[1] + 2 * n[2]);
  for (int i = 1; i <= 3; ++i) {
    discount[i] = i - (i + 1) * Y * n[i + 1] / n[i];
    // A small text may lack some n_i, which makes the estimate meaningless.
    if (!(discount[i] > 0 && discount[i] < i)) discount[i] = 0.5 * i;
  }
  for (std::size_t begin = 0, end = 0; begin < grams.size(); begin = end) {
    const std::uint64_t context = grams[begin].key >> 8;
    double total = 0, discounted = 0;
    for (; end < grams.size() && grams[end].key >> 8 == context; ++end) {
      total += grams[end].count;
      discounted += discount[std::min<std::uint32_t>(grams[end].count, 3)];
    }
    rows[context] = {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end), total,
                     discounted / total};
  }
}

double CountModel::Table::probability(std::uint64_t key, double shorter) const {
  const auto row = rows.find(key >> 8);
  if (row == rows.end()) return shorter;
  const auto end = grams.begin() + row->second.end;
  const auto gram =
      std::lower_bound(grams.begin() + row->second.begin, end, key,
                       [](const Gram& a, std::uint64_t wanted) { return a.key < wanted; });
  const std::uint32_t count = gram != end && gram->key == key ? gram->count : 0;
  const double kept = count - discount[std::min<std::uint32_t>(count, 3)];
  return kept / row->second.total + row->second.gamma * shorter;
}

CountModel::CountModel(const std::vector<std::string_view>& documents, int max_context)
    : max_context_(max_context) {
  require(1 <= max_context && max_context <= 6, "CountModel: max_context is ", max_context,
          ", expected 1 to 6");
  require(std::any_of(documents.begin(), documents.end(), [](auto text) { return !text.empty(); }),
          "CountModel: the documents have no byte to count");
  for (int context = 0; context <= max_context; ++context)
    occurrences_.emplace_back(occurrences(documents, context));
  for (int context = 0; context < max_context; ++context) {
    Grams extended = occurrences_[static_cast<std::size_t>(context) + 1].grams;
    for (Gram& gram : extended) gram = {suffix(gram.key, context + 1), 1};
    continuations_.emplace_back(merged(std::move(extended)));
  }
}

double CountModel::nats(Bytes context, unsigned char next) const {
  const std::size_t used = std::min(context.size(), static_cast<std::size_t>(max_context_));
  std::uint64_t key = 0;
  for (const unsigned char byte : context.last(used)) key = key << 8 | byte;
  key = key << 8 | next;

  double p = 1.0 / 256;
  for (std::size_t bytes = 0; bytes <= used; ++bytes) {
    const Table& table = bytes == used ? occurrences_[bytes] : continuations_[bytes];
    p = table.probability(suffix(key, static_cast<int>(bytes) + 1), p);
  }
  return -std::log(p);
}

std::vector<double> CountModel::window_nats(Bytes window, int context_bytes,
                                            std::size_t skip) const {
  require(0 <= context_bytes && context_bytes <= max_context_,
          "CountModel.window_nats: ", context_bytes, " bytes of context, expected 0 to ",
          max_context_);
  std::vector<double> nats_per_byte;
  for (std::size_t t = skip; t < window.size(); ++t) {
    const std::size_t used = std::min(t, static_cast<std::size_t>(context_bytes));
    nats_per_byte.push_back(nats(window.subspan(t - used, used), window[t]));
  }
  return nats_per_byte;
}

std::size_t CountModel::distinct(int context_bytes) const {
  return occurrences_.at(static_cast<std::size_t>(context_bytes)).grams.size();
}

std::int64_t CountModel::state_bytes(int context_bytes) const {
  auto table_bytes = [](const Table& table) {
    return table.grams.size() * sizeof(Gram) +
           table.rows.size() * (sizeof(std::uint64_t) + sizeof(Row));
  };
  std::size_t total = table_bytes(occurrences_.at(static_cast<std::size_t>(context_bytes)));
  for (std::size_t i = 0; i < static_cast<std::size_t>(context_bytes); ++i)
    total += table_bytes(continuations_[i]);
  return static_cast<std::int64_t>(total);
}

}  // namespace ttt::examples
