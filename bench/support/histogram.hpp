/// @file
/// Quantiles of any number of measurements in 30 KB: counts in buckets that are 1 wide up to 128
/// and then a 64th of the power of two below them, so that a quantile is right to within 1 %.
/// The maximum is exact. `add` allocates nothing and takes the same time always.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ttt::bench {

class Histogram {
 public:
  void add(std::uint64_t value) {
    ++counts_[bucket(value)];
    ++total_;
    maximum_ = std::max(maximum_, value);
  }

  void clear() { *this = {}; }
  std::uint64_t total() const { return total_; }
  std::uint64_t maximum() const { return maximum_; }

  /// The smallest value that at least the part `q` of all measurements does not exceed (the middle
  /// of its bucket); 0 where there are none.
  double quantile(double q) const {
    const auto wanted = static_cast<std::uint64_t>(q * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t b = 0; b < counts_.size(); ++b) {
      seen += counts_[b];
      if (seen > wanted || (seen == total_ && total_ > 0)) return middle(b);
    }
    return 0;
  }
  double median() const { return quantile(0.5); }

 private:
  static constexpr int fine = 6;  // 64 buckets for a power of two
  static constexpr std::size_t width = std::size_t{1} << fine;
  static constexpr std::size_t bucket_count = (64 - fine + 1) * width;

  static std::size_t bucket(std::uint64_t value) {
    const int shift = std::max(static_cast<int>(std::bit_width(value)) - fine - 1, 0);
    return static_cast<std::size_t>(shift) * width + static_cast<std::size_t>(value >> shift);
  }
  static double middle(std::size_t bucket) {
    const std::size_t shift = std::max<std::size_t>(bucket / width, 1) - 1;
    const double size = static_cast<double>(std::uint64_t{1} << shift);
    return static_cast<double>(bucket - shift * width) * size + (size - 1) / 2;
  }

  std::array<std::uint64_t, bucket_count> counts_{};
  std::uint64_t total_ = 0, maximum_ = 0;
};

}  // namespace ttt::bench
