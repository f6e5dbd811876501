/// @file
/// The fast kernel as a picture of motion. A convolution reads at tap (i, j), counted from its
/// middle, the pixel p + (i, j): to move a picture by d it has its weight at -d,
///   z(p) = sum_ij W(i, j) x(p + (i, j))        z(p) = x(p - d)  where  W = 1 at (i, j) = -d
/// so the map of motion M(d) = W(-d) is the kernel turned by half a circle. Where M is largest is
/// what the layer takes for the displacement.
#pragma once

#include <string>
#include <vector>

#include "video/clips.hpp"

namespace ttt::examples {

/// M [diameter, diameter] of the weights [1, taps]; d = (0, 0) is in the middle.
Matrix<float> motion_map(MatrixIn<float> weights);

/// The displacement whose entry of a map of motion is largest.
Displacement peak(MatrixIn<float> map);

/// Maps side by side, in lines: shades up to the largest entry of each, brackets around the true
/// displacement.
std::string draw_maps(const std::vector<Matrix<float>>& maps,
                      const std::vector<Displacement>& displacements);

}  // namespace ttt::examples
