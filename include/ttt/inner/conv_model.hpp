/// @file
/// A convolutional inner model: a token is a small image or a stretch of a signal, and the weights
/// that are learned inside are convolution kernels,
///   Z_1 = W_1 * x + b_1,   Z_{l+1} = W_{l+1} * s(Z_l) + b_{l+1}
/// with odd kernels, zero padding and stride 1, so that every layer keeps the pixels. A column of f
/// numbers is the token [rows, cols, channels], the channels of a pixel side by side. A convolution
/// is a product: the neighbours of every pixel, gathered in a column, times W.
/// Source: Sun et al. 2024 (arXiv 2407.04620), section 5, names convolutional networks as inner
/// models for video; the code is ours.
#pragma once

#include "ttt/inner/first_order.hpp"

namespace ttt {

/// Kernels of `kernel_size` frames over f / channels frames of `channel_count` numbers each.
template <int channel_count, int kernel_size>
struct Conv1D {
  static_assert(channel_count > 0 && kernel_size % 2 == 1, "kernels have an odd size");
  static constexpr Index channels = channel_count, kernel_rows = 1, kernel_cols = kernel_size;

  /// Frames of a token of f numbers.
  static Index image_cols(Index f) { return f / channels; }

  static void check(Index f) {
    require(f % channels == 0, "Conv1D: the head width ", f, " is no multiple of ", channels,
            " channels");
  }
};

/// Kernels of kernel_size x kernel_size pixels over images [row_count, col_count, channel_count].
template <int channel_count, int kernel_size, int row_count, int col_count>
struct Conv2D {
  static_assert(channel_count > 0 && kernel_size % 2 == 1, "kernels have an odd size");
  static constexpr Index channels = channel_count;
  static constexpr Index kernel_rows = kernel_size, kernel_cols = kernel_size;

  static Index image_cols(Index) { return col_count; }

  static void check(Index f) {
    require(f == row_count * col_count * channels, "Conv2D: the head width is ", f,
            ", expected rows x columns x channels = ", row_count, " x ", col_count, " x ",
            channels);
  }
};

/// One convolution, or two with `hidden_channels` channels between them and an activation:
///     using Frames = ConvModel<Conv1D<4, 3>>;
///     using Video = ConvModel<Conv2D<3, 3, 8, 8>, 12, SiLU>;   // f = 192
/// A kernel is W [out channels, kernel rows * kernel cols * in channels] with a bias: its columns
/// in the order of a token's numbers. Throws `std::invalid_argument` for a head width that does not
/// fit the shape.
template <class Shape, int hidden_channels = 0, class Activation = GeluTanh,
          class OutputRule = LayerNormResidual>
struct ConvModel {
  static_assert(hidden_channels >= 0, "a number of channels, or 0: a single convolution");
  using Output = OutputRule;
  static constexpr std::size_t weight_count = hidden_channels > 0 ? 2 : 1;
  static constexpr Index taps = Shape::kernel_rows * Shape::kernel_cols;

  static WeightShape weight_shape(std::size_t l, Index f) {
    Shape::check(f);
    const Index in = l == 0 ? Shape::channels : hidden_channels;
    const Index out = l + 1 == weight_count ? Shape::channels : hidden_channels;
    return {.rows = out, .cols = taps * in, .bias = true};
  }

  template <class T>
  using Weights = ModelWeights<T, weight_count>;

  /// Matrices have a pixel in a column here, [channels, P m] for m tokens of P pixels.
  template <class T>
  struct Saved {
    Index f;
    std::array<T, weight_count> patches;  // [taps * channels, P m]
    std::array<T, weight_count> z;        // [channels, P m]
  };

  template <class T>
  static T predict(const Weights<T>& w, const T& x, Saved<T>& saved) {
    saved.f = x.rows();
    T a = reshape(x, Shape::channels);
    for (std::size_t l = 0; l < weight_count; ++l) {
      if (l > 0) a = activation<Activation>(saved.z[l - 1]);
      saved.patches[l] = gather(a, saved.f);
      saved.z[l] = add_column(w.W[l] * saved.patches[l], w.b[l]);
    }
    return reshape(saved.z[weight_count - 1], saved.f);
  }

  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    T da = reshape(dy, Shape::channels);
    for (std::size_t l = weight_count; l-- > 0;) {
      T dz = da;
      if (l + 1 < weight_count) dz = activation_derivative<Activation>(saved.z[l]).cwiseProduct(da);
      dw.W[l] = dz * saved.patches[l].transpose();
      dw.b[l] = sum_columns(dz);
      const T d_patches = w.W[l].transpose() * dz;
      da = scatter(d_patches, saved.f);
    }
    dx = reshape(da, saved.f);
  }

 private:
  /// The same numbers in columns of `rows`.
  template <class T>
  static T reshape(const T& x, Index rows) {
    return map_linear(x, [&](const auto& from) {
      return Eigen::Map<const std::decay_t<decltype(from)>>(from.data(), rows, from.size() / rows);
    });
  }

  /// Beside every pixel its neighbours under the kernel; zero beyond the border.
  template <class T>
  static T gather(const T& pixels, Index f) {
    return map_linear(pixels, [&](const auto& from) {
      const Index channels = from.rows(), count = from.cols();
      std::decay_t<decltype(from)> patches(taps * channels, count);
      patches.setZero();
      for_each_neighbour(count, f, [&](Index pixel, Index tap, Index neighbour) {
        patches.col(pixel).segment(tap * channels, channels) = from.col(neighbour);
      });
      return patches;
    });
  }

  /// Adjoint of `gather`.
  template <class T>
  static T scatter(const T& patches, Index f) {
    return map_linear(patches, [&](const auto& from) {
      const Index channels = from.rows() / taps, count = from.cols();
      std::decay_t<decltype(from)> pixels(channels, count);
      pixels.setZero();
      for_each_neighbour(count, f, [&](Index pixel, Index tap, Index neighbour) {
        pixels.col(neighbour) += from.col(pixel).segment(tap * channels, channels);
      });
      return pixels;
    });
  }

  /// Calls `visit(pixel, tap, neighbour)` for every neighbour inside the image of its pixel.
  template <class Visit>
  static void for_each_neighbour(Index count, Index f, Visit&& visit) {
    const Index cols = Shape::image_cols(f), rows = f / Shape::channels / cols;
    for (Index pixel = 0; pixel < count; ++pixel) {
      const Index row = pixel / cols % rows, col = pixel % cols;
      for (Index tap = 0; tap < taps; ++tap) {
        const Index down = tap / Shape::kernel_cols - Shape::kernel_rows / 2;
        const Index right = tap % Shape::kernel_cols - Shape::kernel_cols / 2;
        const bool inside =
            0 <= row + down && row + down < rows && 0 <= col + right && col + right < cols;
        if (inside) visit(pixel, tap, pixel + down * cols + right);
      }
    }
  }
};

}  // namespace ttt
