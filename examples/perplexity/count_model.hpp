/// @file
/// Byte n-grams with interpolated modified Kneser-Ney smoothing (Chen and Goodman, 1999, eq. 33):
///   p(x | h) = (c(h x) - D(c(h x))) / c(h .) + gamma(h) p(x | h without its oldest byte),
///   gamma(h) = (D_1 N_1(h) + D_2 N_2(h) + D_3 N_3+(h)) / c(h .),
/// N_i(h): bytes that follow h exactly i times. The longest context counts occurrences; shorter
/// ones count the different bytes in front. Below the empty context every byte has 1/256.
/// What a context of a few bytes is worth: the yardstick beside the neural models.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ttt::examples {

class CountModel {
 public:
  using Bytes = std::span<const unsigned char>;

  /// Counts the n-grams of `documents` (none reaches across two of them).
  /// Throws `std::invalid_argument` unless `1 <= max_context <= 6` and there is a byte to count.
  explicit CountModel(const std::vector<std::string_view>& documents, int max_context = 4);

  int max_context() const { return max_context_; }

  /// -ln p(next | context): uses the last `max_context()` bytes of `context`, or all of a shorter
  /// one, down to none. Threads may share the model.
  double nats(Bytes context, unsigned char next) const;

  /// Nats for each byte of `window` but the first `skip`, each predicted from at most
  /// `context_bytes` bytes before it, none of them from before the window.
  std::vector<double> window_nats(Bytes window, int context_bytes, std::size_t skip = 0) const;

  /// Distinct n-grams with `context_bytes` bytes of context: what this model remembers.
  std::size_t distinct(int context_bytes) const;

  /// Memory of the tables that `context_bytes` bytes of context need.
  std::int64_t state_bytes(int context_bytes) const;

 private:
  struct Gram {
    std::uint64_t key;  // oldest byte highest, predicted byte lowest
    std::uint32_t count;
  };
  using Grams = std::vector<Gram>;  // sorted by key

  struct Row {
    std::uint32_t begin, end;  // the context's n-grams
    double total, gamma;
  };

  struct Table {
    explicit Table(Grams sorted);
    double probability(std::uint64_t key, double shorter) const;

    Grams grams;
    std::unordered_map<std::uint64_t, Row> rows;  // by context
    double discount[4] = {};                      // of counts 0, 1, 2, 3 and more
  };

  static Grams merged(Grams grams);
  static Grams occurrences(const std::vector<std::string_view>& documents, int context_bytes);

  int max_context_;
  std::vector<Table> occurrences_;    // [max_context + 1], by bytes of context
  std::vector<Table> continuations_;  // [max_context]
};

inline CountModel::Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const unsigned char*>(text.data()), text.size()};
}

}  // namespace ttt::examples
