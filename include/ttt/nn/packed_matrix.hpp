/// @file
/// A weight W [in, out] in few bytes, for products with one token, y = W' x, whose time is that of
/// reading W from memory:
///   float32    as it is             bfloat16    the upper 16 bits, rounded to the nearest, even
///   int8       s q with q = round(w / s) in -127 .. 127 and s = max |w| / 127, for each output
/// The outputs stand in panels: word after word, the next 1, 2 or 4 inputs of each of its outputs.
/// So a panel is one stream of memory, and its outputs are the lanes of registers. An output is the
/// sum of four sums, over the inputs 0, 4, 8, ..., over 1, 5, 9, ... and so on: it depends neither
/// on other outputs nor on how these are shared among threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "ttt/core/views.hpp"
#include "ttt/nn/word_lanes.hpp"

namespace ttt {

enum class WeightFormat { float32, bfloat16, int8 };

class PackedMatrix {
 public:
  /// Words of memory that a weight [in, out] takes.
  static Index words(WeightFormat format, Index in, Index out) {
    const PackedMatrix shape(format, in, out);
    return shape.panels() * shape.panel_words();
  }

  /// Packs `weight`, whose numbers are finite, into `memory`: `words(format, in, out)` words, which
  /// must outlive the matrix.
  PackedMatrix(WeightFormat format, MatrixIn<float> weight, std::uint32_t* memory)
      : PackedMatrix(format, weight.rows(), weight.cols()) {
    memory_ = memory;
    std::fill_n(memory, panels() * panel_words(), 0u);
    for (Index j = 0; j < out_; ++j) {
      const float scale = scale_of(weight.col(j));
      if (format == WeightFormat::int8) memory[scale_word(j)] = std::bit_cast<std::uint32_t>(scale);
      for (Index i = 0; i < in_; ++i) memory[word(i, j)] |= code(weight(i, j), scale) << shift(i);
    }
  }

  WeightFormat format() const { return format_; }
  Index in() const { return in_; }
  Index out() const { return out_; }
  /// Bytes that one product reads.
  Index bytes() const { return 4 * panels() * panel_words(); }
  /// Groups of outputs that `multiply` computes together.
  Index panels() const { return (out_ + width - 1) / width; }

  /// The number that stands for weight(i, j).
  float value(Index i, Index j) const {
    const std::uint32_t bits = memory_[word(i, j)] >> shift(i);
    if (format_ == WeightFormat::float32) return std::bit_cast<float>(bits);
    if (format_ == WeightFormat::bfloat16) return std::bit_cast<float>(bits << 16);
    return static_cast<float>(static_cast<std::int8_t>(bits & 255)) *
           std::bit_cast<float>(memory_[scale_word(j)]);
  }

  /// y = W' x, only the outputs of `count` panels from `begin` on. Shapes: x [in], y [out].
  void multiply(const float* x, float* y, Index begin, Index count) const {
    for (Index p = begin; p < begin + count; ++p) {
      if (format_ == WeightFormat::float32) multiply_panel<1>(p, x, y);
      if (format_ == WeightFormat::bfloat16) multiply_panel<2>(p, x, y);
      if (format_ == WeightFormat::int8) multiply_panel<4>(p, x, y);
    }
  }

 private:
  static constexpr int registers = 2;                   // of outputs, beside each other
  static constexpr int width = registers * word_lanes;  // outputs of a panel
  static constexpr int chains = 4;                      // sums of an output
  using Sums = FloatLanes[chains][registers];

  PackedMatrix(WeightFormat format, Index in, Index out) : format_(format), in_(in), out_(out) {}

  Index per_word() const {
    return format_ == WeightFormat::float32 ? 1 : format_ == WeightFormat::bfloat16 ? 2 : 4;
  }
  /// Words of the weights of a panel, whose inputs are filled up to a multiple of four, by zeros.
  Index weight_words() const { return (in_ + chains - 1) / chains * chains / per_word() * width; }
  /// With int8, the scales of its outputs follow.
  Index panel_words() const {
    return weight_words() + (format_ == WeightFormat::int8 ? Index{width} : 0);
  }
  Index word(Index i, Index j) const {
    return j / width * panel_words() + i / per_word() * width + j % width;
  }
  Index scale_word(Index j) const { return j / width * panel_words() + weight_words() + j % width; }
  int shift(Index i) const { return static_cast<int>(32 / per_word() * (i % per_word())); }

  /// 0, and with it every weight, where the division would leave the normal numbers.
  float scale_of(VectorIn<float> weights) const {
    if (format_ != WeightFormat::int8 || weights.size() == 0) return 1;
    float largest = 0;
    for (Index i = 0; i < weights.size(); ++i) largest = std::max(largest, std::abs(weights[i]));
    const float scale = largest / 127;
    return scale < std::numeric_limits<float>::min() ? 0 : scale;
  }

  std::uint32_t code(float weight, float scale) const {
    const auto bits = std::bit_cast<std::uint32_t>(weight);
    if (format_ == WeightFormat::float32) return bits;
    if (format_ == WeightFormat::bfloat16) {
      const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
      return (rounded & 0x7fff) == 0x7f80 ? rounded - 1 : rounded;  // not to infinity
    }
    return scale > 0 ? static_cast<std::uint32_t>(std::lrint(weight / scale)) & 255 : 0;
  }

  template <int per_word>
  void multiply_panel(Index p, const float* x, float* y) const {
    constexpr Index stride = chains / per_word * width;
    const std::uint32_t* words = memory_ + p * panel_words();
    Sums sums = {};
    Index i = 0;
    for (; i + chains <= in_; i += chains, words += stride) add<per_word>(words, x + i, sums);
    if (i < in_) {
      float rest[chains] = {};
      std::copy(x + i, x + in_, rest);
      add<per_word>(words, rest, sums);
      words += stride;
    }
    float outputs[width];
    for (int r = 0; r < registers; ++r) {
      const FloatLanes sum = (sums[0][r] + sums[1][r]) + (sums[2][r] + sums[3][r]);
      std::memcpy(outputs + r * word_lanes, &sum, sizeof sum);
    }
    for (int j = 0; per_word == 4 && j < width; ++j) outputs[j] *= std::bit_cast<float>(words[j]);
    std::copy_n(outputs, std::min<Index>(width, out_ - p * width), y + p * width);
  }

  /// The products with four inputs: a chain each.
  template <int per_word>
  static void add(const std::uint32_t* words, const float* x, Sums& sums) {
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) {
#pragma GCC unroll 2
      for (int r = 0; r < registers; ++r) {
        FloatLanes weights;
        load_lanes<per_word>(words + c / per_word * width + r * word_lanes, c % per_word, weights);
        sums[c][r] += weights * x[c];
      }
    }
  }

  WeightFormat format_;
  Index in_, out_;
  std::uint32_t* memory_ = nullptr;
};

}  // namespace ttt
