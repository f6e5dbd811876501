// A model of signals: its gradients, and that steps, pieces and batches say what one forward says.
#include "ttt/lm/sequence_model.hpp"

#include <gtest/gtest.h>

#include "support/count_allocations.hpp"
#include "support/gradient_check.hpp"
#include "support/layer_runs.hpp"
#include "support/temporary_folder.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"
#include "ttt/nn/regression_loss.hpp"

namespace ttt::test {
namespace {

constexpr Index inputs = 3, outputs = 2, T = 11;

/// Two blocks, one of each mixer; noise on all parameters.
template <class S>
auto make_model(Index depth = 2) {
  using Model = SequenceModel<TTTLinear<S>, TTTMLP<S>>;
  typename Model::Config config{.input_width = inputs, .output_width = outputs, .trunk = {}};
  const TTTConfig layer{.width = 8, .heads = 2, .mini_batch = 4, .share_qk = true, .gate = true};
  config.trunk = {depth, {.width = 8, .intermediate = 6, .pre_conv = true}, {layer, layer}, {}};
  for (Index i = 0; i < depth; ++i)
    config.trunk.layer_types.push_back(static_cast<std::size_t>(i % 2));
  Model model(config, Random(1));
  Random random(2);
  for_each_tensor(
      [&](const TensorInfo&, auto& tensor) {
        tensor += 0.3 * random_matrix<S>(tensor.rows(), tensor.cols(), random);
      },
      model.parameters());
  return model;
}

template <class S>
Matrix<S> noise(Index rows, Index cols, std::uint64_t seed) {
  Random random(seed);
  return random_matrix<S>(rows, cols, random);
}

template <class S>
class SequenceModelTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(SequenceModelTest, Scalars);

TYPED_TEST(SequenceModelTest, StepsAndPiecesEqualOneForward) {
  using S = TypeParam;
  const auto model = make_model<S>();
  const Matrix<S> x = noise<S>(inputs, T, 3);
  auto workspace = model.workspace(T);
  auto state = model.initial_state();
  Matrix<S> y = unwritten<S>(outputs, T);
  model.forward(x, state, y, workspace);
  const auto after = state;
  typename std::remove_const_t<decltype(model)>::Cache cache;

  for (const std::vector<Index>& pieces : std::vector<std::vector<Index>>{
           {T}, {2, 5, 4}, {3, 0, 8}, std::vector<Index>(static_cast<std::size_t>(T), 1)}) {
    for (const bool with_cache : {false, true}) {
      state = model.initial_state();
      Matrix<S> y_pieces = unwritten<S>(outputs, T);
      Index begin = 0;
      for (const Index size : pieces) {
        const auto x_piece = x.middleCols(begin, size);
        auto y_piece = y_pieces.middleCols(begin, size);
        if (with_cache)
          model.forward(x_piece, state, y_piece, workspace, cache);
        else if (size == 1)
          model.step(x.col(begin), state, y_pieces.col(begin), workspace);
        else
          model.forward(x_piece, state, y_piece, workspace);
        begin += size;
      }
      EXPECT_LE(relative_error(y_pieces, y), tolerance::stream<S>);
      expect_close(state, after, tolerance::stream<S>);
    }
  }
}

TYPED_TEST(SequenceModelTest, BatchEqualsSeparateSequences) {
  using S = TypeParam;
  const auto model = make_model<S>();
  const std::vector<Index> lengths{5, 0, 6};
  const Matrix<S> x = noise<S>(inputs, T, 3);
  auto workspace = model.workspace(T);
  std::vector<typename std::remove_const_t<decltype(model)>::State> together(3,
                                                                             model.initial_state());
  auto apart = together;
  std::vector<typename std::remove_const_t<decltype(model)>::State*> states;
  for (auto& state : together) states.push_back(&state);
  Matrix<S> y = unwritten<S>(outputs, T), expected = y;
  model.forward_batch(x, lengths, states, y, workspace, nullptr);
  Index begin = 0;
  for (std::size_t s = 0; s < 3; begin += lengths[s++])
    model.forward(x.middleCols(begin, lengths[s]), apart[s], expected.middleCols(begin, lengths[s]),
                  workspace);
  EXPECT_LE(relative_error(y, expected), tolerance::stream<S>);
  for (std::size_t s = 0; s < 3; ++s) expect_close(together[s], apart[s], tolerance::stream<S>);
}

TYPED_TEST(SequenceModelTest, StepAllocatesNothing) {
  if constexpr (!counts_allocations) {
    GTEST_SKIP() << "allocations are counted with glibc and without sanitizers only";
  } else {
    using S = TypeParam;
    const auto model = make_model<S>();
    auto workspace = model.workspace(1);
    auto state = model.initial_state();
    const Vector<S> x_t = Vector<S>::Ones(inputs);
    Vector<S> y_t(outputs);
    for (Index t = 0; t < T; ++t) {
      const AllocationCounter counter;
      model.step(x_t, state, y_t, workspace);
      EXPECT_EQ(counter.count(), 0u) << "token " << t;
    }
  }
}

/// The mean squared loss of all pieces; with `grad`, also its gradient, W_0 and dx included.
template <class Model>
double loss_in_pieces(const Model& model, const Matrix<double>& x, const Matrix<double>& targets,
                      const std::vector<Index>& pieces, typename Model::Parameters* grad = nullptr,
                      Matrix<double>* dx = nullptr) {
  const SquaredLoss<double> loss;
  auto workspace = model.workspace(1);
  auto state = model.initial_state();
  std::vector<typename Model::Cache> caches(pieces.size());
  Matrix<double> y(outputs, T), dy(outputs, T);
  Index begin = 0;
  for (std::size_t i = 0; i < pieces.size(); begin += pieces[i++])
    model.forward(x.middleCols(begin, pieces[i]), state, y.middleCols(begin, pieces[i]), workspace,
                  caches[i]);
  if (grad) {
    loss.backward(y, targets, 1.0 / T, dy);
    auto d_state = zeros_like(state);
    for (std::size_t i = pieces.size(); i-- > 0;) {
      begin -= pieces[i];
      model.backward(dy.middleCols(begin, pieces[i]), caches[i], d_state,
                     dx->middleCols(begin, pieces[i]), *grad, workspace);
    }
    model.backward_initial_state(d_state, *grad);
  }
  return loss.mean(y, targets);
}

TEST(SequenceModelDoubleTest, BackwardEqualsDifferencesAndItsPieces) {
  auto model = make_model<double>();
  Matrix<double> x = noise<double>(inputs, T, 3), dx = unwritten<double>(inputs, T);
  const Matrix<double> targets = noise<double>(outputs, T, 4);
  auto grad = zeros_like(model.parameters());
  loss_in_pieces(model, x, targets, {T}, &grad, &dx);
  const auto loss_now = [&] { return loss_in_pieces(model, x, targets, {T}); };
  GradientCheckOptions options;
  options.elements_per_tensor = 6;
  EXPECT_TRUE(check_gradient(model.parameters(), grad, loss_now, options));
  EXPECT_TRUE(check_gradient(x, dx, loss_now));

  auto grad_pieces = zeros_like(grad);
  Matrix<double> dx_pieces = unwritten<double>(inputs, T);
  loss_in_pieces(model, x, targets, {3, 0, 2, 6}, &grad_pieces, &dx_pieces);
  expect_close(grad_pieces, grad, tolerance::stream<double>);
  EXPECT_LE(relative_error(dx_pieces, dx), tolerance::stream<double>);
}

TEST(SequenceModelDoubleTest, NamesItsTensors) {
  std::vector<std::string> names;
  for_each_tensor([&](const TensorInfo& info, const auto&) { names.push_back(info.name); },
                  make_model<double>().parameters());
  const std::vector<std::string> first(names.begin(), names.begin() + 3);
  const std::vector<std::string> last(names.end() - 3, names.end());
  EXPECT_EQ(first, (std::vector<std::string>{"input.weight", "input.bias",
                                             "trunk.layers.0.conv.norm.weight"}));
  EXPECT_EQ(last, (std::vector<std::string>{"trunk.norm.weight", "output.weight", "output.bias"}));
}

TEST(SequenceModelDoubleTest, WrongArgumentsAreRefusedInWords) {
  const auto model = make_model<double>();
  using Model = std::remove_const_t<decltype(model)>;
  auto workspace = model.workspace(T);
  auto state = model.initial_state(), foreign = make_model<double>(3).initial_state();
  Model::Cache cache;
  auto grad = zeros_like(model.parameters());
  Matrix<double> x = noise<double>(inputs, T, 3), wide = noise<double>(inputs + 1, T, 3);
  Matrix<double> y(outputs, T), y_long(outputs, T + 1);
  EXPECT_EQ(testing::message_of([&] { model.forward(wide, state, y, workspace); }),
            "SequenceModel.forward: x has shape 4 x 11, expected 3 x 11");
  EXPECT_EQ(testing::message_of([&] { model.forward(x, state, y_long, workspace); }),
            "SequenceModel.forward: y has shape 2 x 12, expected 2 x 11");
  EXPECT_EQ(testing::message_of([&] { model.forward(x, foreign, y, workspace, cache); }),
            "Trunk: the state has 3 layers, expected 2");
  model.forward(x, state, y, workspace, cache);
  EXPECT_EQ(testing::message_of([&] { model.backward(y_long, cache, state, x, grad, workspace); }),
            "SequenceModel.backward: dy has shape 2 x 12, expected 2 x 11");
  EXPECT_EQ(testing::message_of([&] { model.backward(y, cache, state, wide, grad, workspace); }),
            "SequenceModel.backward: dx has shape 4 x 11, expected 3 x 11");
  EXPECT_EQ(testing::message_of([&] { model.backward(y, cache, foreign, x, grad, workspace); }),
            "Trunk: the state has 3 layers, expected 2");
  auto config = model.config();
  config.output_width = 0;
  EXPECT_EQ(testing::message_of([&] { Model model_without_output(config); }),
            "SequenceModelConfig: output_width is 0, expected a positive number");
}

}  // namespace
}  // namespace ttt::test
