/// @file
/// Clips of moving shapes: a picture of squares, discs, crosses and speckled blobs, light and dark,
/// on a torus, and all of it moves by one displacement a frame, d in {-2..2}^2 without (0, 0):
///   frame_{t+1}(p) = frame_t(p - d)          what leaves at one side comes back at the other
/// A frame is a token of side x side pixels, row after row, of mean 0 and variance 1.
#pragma once

#include <array>
#include <vector>

#include "ttt/core/random.hpp"
#include "ttt/core/views.hpp"

namespace ttt::examples {

constexpr Index side = 16, pixels = side * side;
constexpr Index reach = 2;                 // pixels a frame, at most, along each axis
constexpr Index diameter = 2 * reach + 1;  // of a kernel that holds every displacement

/// Pixels a frame.
struct Displacement {
  Index down = 0, right = 0;
  bool operator==(const Displacement&) const = default;
};

/// What is one displacement later in the place of `frame` [pixels]; a torus has no border.
Vector<float> moved(VectorIn<float> frame, Displacement d);

/// The same, and 0 where a convolution that pads with zeros does not see what comes in.
Vector<float> moved_without_return(VectorIn<float> frame, Displacement d);

struct Clip {
  Displacement displacement;
  Matrix<float> frames;  // [pixels, count]
};

Clip draw_clip(Index count, Random& random);

/// Clips side by side, as the layers read them: token t of a clip is frame t, its target frame t+1.
struct Clips {
  std::vector<Displacement> displacements;
  std::vector<Index> lengths;     // tokens of each clip
  Matrix<float> frames, targets;  // [pixels, clips * length]

  Clips(Index clips, Index length, Random& random);

  Index count() const { return std::ssize(lengths); }
  Index length() const { return lengths.front(); }
  Index column(Index clip, Index t) const { return clip * length() + t; }
};

}  // namespace ttt::examples
