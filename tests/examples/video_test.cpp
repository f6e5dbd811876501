// The parts of `video`: clips move by what they say, a kernel's peak is read as a displacement, a
// map and the picture show it; and the program from outside.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <set>
#include <string>
#include <utility>

#include "support/temporary_folder.hpp"
#include "video/kernel.hpp"
#include "video/models.hpp"
#include "video/picture.hpp"

namespace ttt::examples {
namespace {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

/// A kernel [1, taps] of zeros with `value` at (row, col) from its middle.
Matrix<float> kernel_with(Index row, Index col, float value) {
  Matrix<float> W = Matrix<float>::Zero(1, diameter * diameter);
  W(0, (row + reach) * diameter + col + reach) = value;
  return W;
}

TEST(Clips, MoveByTheirDisplacement) {
  Random random(1);
  for (int i = 0; i < 50; ++i) {
    const Clip clip = draw_clip(4, random);
    const auto [down, right] = clip.displacement;
    for (Index t = 0; t + 1 < 4; ++t)
      for (Index row = 0; row < side; ++row)
        for (Index col = 0; col < side; ++col) {
          const Index to_row = (row + down + side) % side, to_col = (col + right + side) % side;
          ASSERT_EQ(clip.frames(to_row * side + to_col, t + 1), clip.frames(row * side + col, t));
        }
  }
}

TEST(Clips, DrawEveryDisplacementButNone) {
  Random random(2);
  std::set<std::pair<Index, Index>> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto [down, right] = draw_clip(1, random).displacement;
    seen.emplace(down, right);
  }
  EXPECT_EQ(seen.size(), 24u);
  EXPECT_FALSE(seen.contains({0, 0}));
  for (const auto& [down, right] : seen) {
    EXPECT_LE(std::abs(down), reach);
    EXPECT_LE(std::abs(right), reach);
  }
}

TEST(Clips, HaveMeanZeroAndVarianceOne) {
  Random random(3);
  for (int i = 0; i < 50; ++i) {
    const Vector<float> frame = draw_clip(1, random).frames.col(0);
    EXPECT_NEAR(frame.mean(), 0, 1e-5);
    EXPECT_NEAR(frame.squaredNorm() / pixels, 1, 1e-5);
  }
}

TEST(Clips, TargetsAreTheNextFrames) {
  Random random(4);
  const Clips clips(3, 5, random);
  ASSERT_EQ(clips.count(), 3);
  for (Index i = 0; i < 3; ++i)
    for (Index t = 0; t < 5; ++t) {
      const Vector<float> next = moved(clips.frames.col(clips.column(i, t)),
                                       clips.displacements[static_cast<std::size_t>(i)]);
      EXPECT_EQ(clips.targets.col(clips.column(i, t)), next);
    }
}

/// What the library's convolution makes of a frame, for every displacement, is the reference.
TEST(Kernel, PeakIsTheMotionThatTheConvolutionMakes) {
  Random random(5);
  const Matrix<float> frame = draw_clip(1, random).frames;
  for (Index down = -reach; down <= reach; ++down) {
    for (Index right = -reach; right <= reach; ++right) {
      const Displacement d{down, right};
      Kernel::Weights<Matrix<float>> w;
      w.W[0] = kernel_with(-down, -right, 1);
      w.b[0] = Matrix<float>::Zero(1, 1);
      Kernel::Saved<Matrix<float>> saved;
      EXPECT_EQ(Kernel::predict(w, frame, saved), moved_without_return(frame.col(0), d));
      EXPECT_EQ(peak(motion_map(w.W[0])), d);
    }
  }
}

TEST(Kernel, PeakIsTheLargestEntryNotTheLargestInSize) {
  const Matrix<float> W = kernel_with(1, -2, 0.5f) + kernel_with(0, 0, -3);
  EXPECT_EQ(peak(motion_map(W)), (Displacement{-1, 2}));
}

TEST(Kernel, OtherShapesAreRefused) {
  EXPECT_THROW(motion_map(Matrix<float>::Zero(1, 9)), std::invalid_argument);
}

TEST(Kernel, MapsAreDrawnWithTheTruthInBrackets) {
  const std::string drawn = draw_maps(
      {motion_map(kernel_with(2, 1, 1)), motion_map(kernel_with(0, 0, 1))}, {{-2, -1}, {0, 2}});
  EXPECT_EQ(drawn,
            "    · [█] ·  ·  ·     ·  ·  ·  ·  · \n"
            "    ·  ·  ·  ·  ·     ·  ·  ·  ·  · \n"
            "    ·  ·  ·  ·  ·     ·  ·  █  · [·]\n"
            "    ·  ·  ·  ·  ·     ·  ·  ·  ·  · \n"
            "    ·  ·  ·  ·  ·     ·  ·  ·  ·  · \n");
}

TEST(ConvLayer, BeginsAsSaid) {
  Random random(6);
  const ConvLayer layer = make_conv_layer(random);
  const auto& p = layer.parameters();
  for (const auto* map : {&p.q_proj, &p.v_proj, &p.o_proj}) EXPECT_TRUE(map->isIdentity());
  EXPECT_EQ(p.conv_q_weight, Matrix<float>::Constant(2, pixels, 0.5f));
  EXPECT_EQ(p.conv_k_weight, p.conv_q_weight);
}

TEST(Picture, HasAllFramesAndTheMap) {
  Random random(7);
  const Clip clip = draw_clip(2, random);
  const ClipPicture picture{
      {clip.frames.col(0), clip.frames.col(1)}, motion_map(kernel_with(0, 1, 1)), {2, 0}};
  Chart errors;
  errors.title = "Errors";
  const std::string drawn = draw_picture({"now", "next"}, {picture}, errors);
  for (const char* part : {">now<", ">next<", "true (2, 0), peak (0, -1)", ">Errors<"})
    EXPECT_NE(drawn.find(part), std::string::npos) << part;
}

int exit_code(const std::string& options, const TemporaryFolder& folder) {
  const std::string command = std::string(TTT_VIDEO_PROGRAM) + " " + options + " >" +
                              (folder / "output").string() + " 2>" + (folder / "errors").string();
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(VideoProgram, GivesTheSameBytesForAnyNumberOfThreads) {
  const TemporaryFolder folder;
  for (const std::string threads : {"1", "2"})
    ASSERT_EQ(exit_code("--quick --steps 2 --threads " + threads + " --out " +
                            (folder / threads).string(),
                        folder),
              0)
        << read_bytes(folder / "errors");
  EXPECT_EQ(read_bytes(folder / "1/video.svg"), read_bytes(folder / "2/video.svg"));
}

TEST(VideoProgram, RefusesWrongOptions) {
  const TemporaryFolder folder;
  EXPECT_EQ(exit_code("--steps 0", folder), 2);
  EXPECT_NE(read_bytes(folder / "errors").find("--steps"), std::string::npos);
  EXPECT_EQ(exit_code("--colour", folder), 2);
  write_bytes(folder / "file", "");
  EXPECT_EQ(exit_code("--quick --out " + (folder / "file").string() + "/under", folder), 1);
  EXPECT_NE(read_bytes(folder / "errors").find("video: "), std::string::npos);
}

}  // namespace
}  // namespace ttt::examples
