/// @file
/// Seeded random numbers that are the same on every platform: SplitMix64 (Steele, Lea, Flood 2014)
/// for the integers, Marsaglia's polar method for normal numbers. (The distributions of <random>
/// differ between standard libraries.)
#pragma once

#include <cmath>
#include <cstdint>

#include "ttt/core/types.hpp"

namespace ttt {

class Random {
 public:
  explicit Random(std::uint64_t seed = 0) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform in {0, ..., count - 1}.
  Index below(Index count) { return static_cast<Index>(uniform() * static_cast<double>(count)); }

  /// Standard normal.
  double normal() {
    for (;;) {
      const double u = uniform(-1, 1), v = uniform(-1, 1), s = u * u + v * v;
      if (s > 0 && s < 1) return u * std::sqrt(-2 * std::log(s) / s);
    }
  }

  template <class Derived>
  void fill_normal(Eigen::MatrixBase<Derived>& tensor, double standard_deviation) {
    for (Index j = 0; j < tensor.cols(); ++j)
      for (Index i = 0; i < tensor.rows(); ++i)
        tensor(i, j) = static_cast<typename Derived::Scalar>(standard_deviation * normal());
  }

  template <class Derived>
  void fill_uniform(Eigen::MatrixBase<Derived>& tensor, double low, double high) {
    for (Index j = 0; j < tensor.cols(); ++j)
      for (Index i = 0; i < tensor.rows(); ++i)
        tensor(i, j) = static_cast<typename Derived::Scalar>(uniform(low, high));
  }

  /// The whole generator: store it to continue the same sequence later.
  std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_;
};

}  // namespace ttt
