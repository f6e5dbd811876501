// Against torch.nn.utils.clip_grad_norm_ (golden/make_adamw_golden.py) and by hand.
#include "ttt/train/gradient_clip.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "ttt/io/safetensors.hpp"

namespace ttt {
namespace {

template <class S>
struct Gradient {
  Matrix<S> a;
  Vector<S> b;

  static auto fields(auto& self) { return std::tuple(field("a", self.a), field("b", self.b)); }
};

template <class S>
class ClipGradientScalarTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ClipGradientScalarTest, Scalars);

TYPED_TEST(ClipGradientScalarTest, ClipsAsTorchDoes) {
  using S = TypeParam;
  const SafetensorsFile file(TTT_GOLDEN_DIR "/train/adamw.safetensors");
  const std::string prefix = std::is_same_v<S, double> ? "f64." : "f32.";
  const Matrix<S> a = file.matrix<S>(prefix + "gradient.a"),
                  b = file.matrix<S>(prefix + "gradient.b");
  const Matrix<S> clipped_a = file.matrix<S>(prefix + "clipped.a");
  const Matrix<S> clipped_b = file.matrix<S>(prefix + "clipped.b");
  const auto norms = file.read<double>(prefix + "norm");
  const double epsilon = static_cast<double>(std::numeric_limits<S>::epsilon());
  for (Index k = 0; k < 12; ++k) {
    const double expected = norms[static_cast<std::size_t>(k)];
    Gradient<S> gradient{a.middleCols(3 * k, 3), b.col(k)};
    EXPECT_NEAR(clip_gradient(gradient, 2.0), expected, 4 * epsilon * expected);
    EXPECT_LT((gradient.a - clipped_a.middleCols(3 * k, 3)).cwiseAbs().maxCoeff(), 4 * epsilon);
    EXPECT_LT((gradient.b - clipped_b.col(k)).cwiseAbs().maxCoeff(), 4 * epsilon);
  }
}

TEST(ClipGradientTest, ScalesOnlyAboveTheLimit) {
  Gradient<double> gradient{Matrix<double>::Constant(1, 1, 3), Vector<double>::Constant(1, -4)};
  EXPECT_DOUBLE_EQ(clip_gradient(gradient, 5.1), 5);
  EXPECT_EQ(gradient.a(0, 0), 3);
  EXPECT_DOUBLE_EQ(clip_gradient(gradient, 1), 5);
  EXPECT_DOUBLE_EQ(gradient.a(0, 0), 3 / (5 + 1e-6));
  EXPECT_DOUBLE_EQ(gradient.b(0), -4 / (5 + 1e-6));
}

TEST(ClipGradientTest, SumsInDouble) {
  // In float, 1e20 squared overflows, and 1 beside 2^24 is lost.
  Gradient<float> large{Matrix<float>::Constant(1, 1, 1e20f), {}};
  EXPECT_NEAR(clip_gradient(large, 1), 1e20, 1e14);
  EXPECT_FLOAT_EQ(large.a(0, 0), 1);
  const Gradient<float> mixed{Matrix<float>::Constant(1, 1, 4096), Vector<float>::Ones(1)};
  EXPECT_DOUBLE_EQ(global_norm(mixed), std::sqrt(0x1p24 + 1));
}

TEST(ClipGradientTest, LeavesAGradientThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  Gradient<float> gradient{Matrix<float>::Ones(1, 1), Vector<float>::Constant(1, infinity)};
  EXPECT_EQ(clip_gradient(gradient, 1), infinity);
  EXPECT_EQ(gradient.a(0, 0), 1);
  gradient.b(0) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(clip_gradient(gradient, 1)));
  EXPECT_EQ(gradient.a(0, 0), 1);
  EXPECT_THROW(clip_gradient(gradient, 0), std::invalid_argument);
}

}  // namespace
}  // namespace ttt
