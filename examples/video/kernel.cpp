#include "video/kernel.hpp"

#include <algorithm>

#include "ttt/core/check.hpp"

namespace ttt::examples {

Matrix<float> motion_map(MatrixIn<float> weights) {
  require_shape("motion_map: the kernel", weights, 1, diameter * diameter);
  Matrix<float> map(diameter, diameter);
  for (Index i = 0; i < diameter; ++i)
    for (Index j = 0; j < diameter; ++j)
      map(diameter - 1 - i, diameter - 1 - j) = weights(0, i * diameter + j);
  return map;
}

Displacement peak(MatrixIn<float> map) {
  Index row = 0, col = 0;
  map.maxCoeff(&row, &col);
  return {row - reach, col - reach};
}

namespace {

/// One line of a map.
std::string draw_row(const Matrix<float>& map, Displacement d, Index row) {
  static constexpr const char* shades[] = {"·", "░", "▒", "▓", "█"};
  std::string text;
  for (Index col = 0; col < diameter; ++col) {
    const bool is_true = row == d.down + reach && col == d.right + reach;
    const float share = map(row, col) / std::max(map.maxCoeff(), 1e-9f);
    const auto shade = static_cast<std::size_t>(std::clamp(5 * share, 0.0f, 4.0f));
    text += (is_true ? "[" : " ") + std::string(shades[shade]) + (is_true ? "]" : " ");
  }
  return text;
}

}  // namespace

std::string draw_maps(const std::vector<Matrix<float>>& maps,
                      const std::vector<Displacement>& displacements) {
  std::string text;
  for (Index row = 0; row < diameter; ++row) {
    for (std::size_t i = 0; i < maps.size(); ++i)
      text += "   " + draw_row(maps[i], displacements[i], row);
    text += '\n';
  }
  return text;
}

}  // namespace ttt::examples
