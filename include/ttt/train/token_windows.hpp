/// @file
/// Training windows from documents: each epoch cuts every document into consecutive windows of
/// `context` tokens from a random start, and reads them in a random order. Which windows come when
/// follows from the seed alone, so different models see the same tokens in the same order, and a
/// run that is resumed goes on where it stopped.
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/random.hpp"

namespace ttt {

/// Sequences of a training step, one after another: `targets[i]` follows `ids[i]`.
struct TokenBatch {
  std::vector<std::int32_t> ids, targets;
  std::vector<Index> lengths;
};

/// Adds a window of bytes, all but its last as inputs.
inline void append_window(std::string_view window, TokenBatch& batch) {
  for (std::size_t t = 0; t + 1 < window.size(); ++t) {
    batch.ids.push_back(static_cast<unsigned char>(window[t]));
    batch.targets.push_back(static_cast<unsigned char>(window[t + 1]));
  }
  batch.lengths.push_back(std::ssize(window) - 1);
}

/// Windows of bytes. The documents must outlive this object.
class TokenWindows {
 public:
  /// Throws `std::invalid_argument` where no document has `context + 1` bytes.
  TokenWindows(std::vector<std::string_view> documents, Index context, std::uint64_t seed)
      : documents_(std::move(documents)), context_(context), seed_(seed) {
    require(context > 0, "TokenWindows: context is ", context, ", expected a positive number");
    start_epoch(0);
    require(!windows_.empty(), "TokenWindows: no document has the ", context + 1,
            " bytes that a context of ", context, " needs");
  }

  Index context() const { return context_; }

  /// Windows `first`, `first + 1`, ..., counted from the start of training.
  TokenBatch batch(Index first, Index count) {
    TokenBatch batch;
    for (Index i = first; i < first + count; ++i) append_window(window(i), batch);
    return batch;
  }

 private:
  /// The bytes of window i: `context` inputs and one more, the last target.
  std::string_view window(Index i) {
    if (i < epoch_begin_) start_epoch(0);
    while (i >= epoch_begin_ + std::ssize(windows_)) {
      const Index next = epoch_begin_ + std::ssize(windows_);
      start_epoch(epoch_ + 1);
      epoch_begin_ = next;
    }
    return windows_[static_cast<std::size_t>(i - epoch_begin_)];
  }

  /// Lists the windows of an epoch. (Their number may differ a little from epoch to epoch.)
  void start_epoch(Index epoch) {
    epoch_ = epoch;
    if (epoch == 0) epoch_begin_ = 0;
    Random random(seed_ * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(epoch));
    windows_.clear();
    for (const std::string_view document : documents_) {
      const Index length = std::ssize(document);
      const Index slack = length - context_ - 1;
      if (slack < 0) continue;
      for (Index begin = random.below(std::min(context_, slack + 1)); begin + context_ < length;
           begin += context_)
        windows_.push_back(document.substr(static_cast<std::size_t>(begin),
                                           static_cast<std::size_t>(context_ + 1)));
    }
    for (std::size_t i = windows_.size(); i > 1; --i)  // Fisher-Yates
      std::swap(windows_[i - 1], windows_[static_cast<std::size_t>(random.below(i))]);
  }

  std::vector<std::string_view> documents_;
  Index context_;
  std::uint64_t seed_;
  std::vector<std::string_view> windows_;
  Index epoch_ = 0, epoch_begin_ = 0;
};

}  // namespace ttt
