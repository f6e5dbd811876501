#include "video/clips.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace ttt::examples {
namespace {

constexpr Index fewest_shapes = 4, most_shapes = 6;

/// -1.5 to -0.5 or 0.5 to 1.5: visible on a background of 0.
double shade(Random& random) { return (random.below(2) == 0 ? -1 : 1) * random.uniform(0.5, 1.5); }

/// Whether a shape of `radius` has the pixel (row, col), counted from its middle.
bool covers(Index kind, Index radius, Index row, Index col) {
  switch (kind) {
    case 0:  // a square
      return true;
    case 1:  // a cross
      return row == 0 || col == 0;
    default:  // a disc; a speckled blob
      return row * row + col * col <= radius * radius;
  }
}

void draw_shape(Random& random, Vector<float>& frame) {
  const Index kind = random.below(4), radius = 1 + random.below(3);
  const Index middle_row = random.below(side), middle_col = random.below(side);
  const bool speckled = kind == 3;
  const double value = shade(random);
  for (Index row = -radius; row <= radius; ++row) {
    for (Index col = -radius; col <= radius; ++col) {
      if (!covers(kind, radius, row, col)) continue;
      const Index on_torus_row = (middle_row + row + side) % side;
      const Index on_torus_col = (middle_col + col + side) % side;
      frame[on_torus_row * side + on_torus_col] =
          static_cast<float>(speckled ? random.normal() : value);
    }
  }
}

Displacement draw_displacement(Random& random) {
  Index tap = random.below(diameter * diameter - 1);
  if (tap >= diameter * diameter / 2) ++tap;  // not (0, 0)
  return {tap / diameter - reach, tap % diameter - reach};
}

}  // namespace

Vector<float> moved(VectorIn<float> frame, Displacement d) {
  Vector<float> result(pixels);
  for (Index row = 0; row < side; ++row)
    for (Index col = 0; col < side; ++col)
      result[row * side + col] =
          frame[(row - d.down + side) % side * side + (col - d.right + side) % side];
  return result;
}

Vector<float> moved_without_return(VectorIn<float> frame, Displacement d) {
  Vector<float> result = moved(frame, d);
  const auto outside = [](Index place) { return place < 0 || place >= side; };
  for (Index row = 0; row < side; ++row)
    for (Index col = 0; col < side; ++col)
      if (outside(row - d.down) || outside(col - d.right)) result[row * side + col] = 0;
  return result;
}

Clip draw_clip(Index count, Random& random) {
  Clip clip{draw_displacement(random), Matrix<float>(pixels, count)};
  Vector<float> frame = Vector<float>::Zero(pixels);
  const Index shapes = fewest_shapes + random.below(most_shapes - fewest_shapes + 1);
  for (Index i = 0; i < shapes; ++i) draw_shape(random, frame);
  frame.array() -= frame.mean();
  frame /= std::sqrt(frame.squaredNorm() / static_cast<float>(pixels));
  for (Index t = 0; t < count; ++t) {
    clip.frames.col(t) = frame;
    frame = moved(frame, clip.displacement);
  }
  return clip;
}

Clips::Clips(Index clips, Index length, Random& random)
    : lengths(static_cast<std::size_t>(clips), length),
      frames(pixels, clips * length),
      targets(pixels, clips * length) {
  for (Index i = 0; i < clips; ++i) {
    const Clip clip = draw_clip(length + 1, random);
    displacements.push_back(clip.displacement);
    frames.middleCols(i * length, length) = clip.frames.leftCols(length);
    targets.middleCols(i * length, length) = clip.frames.rightCols(length);
  }
}

}  // namespace ttt::examples
