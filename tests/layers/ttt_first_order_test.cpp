// A TTT layer with first-order code for an inner model equals the layer with the same model as a
// stack: outputs, states and every gradient, whole and streamed. And one with a convolution learns.
#include <gtest/gtest.h>

#include "layers/ttt_cases.hpp"
#include "ttt/inner/conv_model.hpp"
#include "ttt/inner/first_order_mlp.hpp"

namespace ttt::test {
namespace {

using StackMLP = Stack<Affine<2>, Tanh, Affine<>>;

/// Moves tensors of one type of parameters or states to another with the same tensors.
template <class To, class From>
To moved(To to, const From& from) {
  std::vector<Matrix<double>> tensors;
  for_each_tensor([&](const TensorInfo&, const auto& tensor) { tensors.push_back(tensor); }, from);
  std::size_t i = 0;
  for_each_tensor([&](const TensorInfo&, auto& tensor) { tensor = tensors.at(i++); }, to);
  return to;
}

template <class A, class B>
void expect_equal(const A& a, const B& b) {
  const A other = moved(a, b);
  for_each_tensor(
      [](const TensorInfo& info, const auto& x, const auto& y) {
        EXPECT_LE((x - y).cwiseAbs().maxCoeff(), 1e-11 * std::max(1.0, y.cwiseAbs().maxCoeff()))
            << info.name;
      },
      a, other);
}

TEST(TTTFirstOrderTest, EqualsTheStack) {
  using Own = TTTLayer<double, FirstOrderMLP<Tanh, 2>>;
  using Stacked = TTTLayer<double, StackMLP>;
  each_layer<TTTCases<StackMLP>, double>([](const Stacked& stacked, Index period) {
    Own own(stacked.config());
    own.parameters() = moved(own.parameters(), stacked.parameters());
    for (const Index lead : {Index{0}, Index{2}}) {
      SCOPED_TRACE(concat("start ", lead));
      const Stream<Own> stream = random_stream(own, lead, 2 * period + 3, 1);
      const auto outcome = run(own, stream);
      expect_equal(outcome, run(stacked, random_stream(stacked, lead, 2 * period + 3, 1)));
      Random random(3);
      const std::vector<Index> pieces = random_pieces(stream.x.cols(), random);
      expect_equal(infer(own, stream, pieces, true), outcome.outputs);
      expect_equal(run(own, stream, pieces), outcome);
    }
  });
}

/// With W_0 = 0 a plain linear convolution begins by predicting nothing. Tokens that are always the
/// same image shifted by one pixel teach it the shift.
TEST(TTTFirstOrderTest, AConvolutionLearnsWhileItReads) {
  using Model = ConvModel<Conv1D<1, 3>, 0, Identity, PlainOutput>;
  const Index f = 16, tokens = 200;
  Random random(5);
  auto W = InnerWeights<double, Model>::zero(1, f), R = W;
  const HeadNorm<double> no_norm{{nullptr, 0}, {nullptr, 0}};
  const Vector<double> read = Vector<double>::Constant(1, -1),
                       rate = Vector<double>::Constant(1, 0.02);
  const CarriedWeights<double, Model> carried{std::as_const(R).head(0), read};
  ChunkForm<double, Model>::Trace trace;
  Vector<double> z(f);
  for (Index t = 0; t < tokens; ++t) {
    const auto image = random_matrix<double>(f, 1, random);
    Matrix<double> shifted = Matrix<double>::Zero(f, 1);
    shifted.bottomRows(f - 1) = image.topRows(f - 1);
    ChunkForm<double, Model>::step({std::as_const(W).head(0), true, std::span(&carried, 1), no_norm,
                                    image, image, shifted, Matrix<double>()},
                                   rate, R.head(0), z, trace);
    // online: the border after every token
    W.W[0] -= R.W[0];
    W.b[0] -= R.b[0];
    set_zero(R);
  }
  const Matrix<double> shift{{1, 0, 0}};  // a pixel takes the value of the one before it
  EXPECT_LE((W.W[0] - shift).cwiseAbs().maxCoeff(), 1e-3) << W.W[0];
  EXPECT_LE(std::abs(W.b[0](0)), 1e-3);
}

}  // namespace
}  // namespace ttt::test
