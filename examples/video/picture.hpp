/// @file
/// video.svg: clips of the test, what each model expects next, the fast kernel as a map of motion
/// beside the true displacement, and the error by the number of frames read.
#pragma once

#include <string>
#include <vector>

#include "support/svg.hpp"
#include "video/clips.hpp"

namespace ttt::examples {

/// One clip: pictures in a row, then the map of motion.
struct ClipPicture {
  std::vector<Vector<float>> frames;  // [pixels] each, one for each column title
  Matrix<float> map;                  // [diameter, diameter]
  Displacement displacement;
};

std::string draw_picture(const std::vector<std::string>& column_titles,
                         const std::vector<ClipPicture>& clips, const Chart& errors);

}  // namespace ttt::examples
