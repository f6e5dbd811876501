// The concepts, compiled: what satisfies them, and which mistakes they catch.
#include <string>

#include "ttt/layers/attention.hpp"
#include "ttt/layers/linear_attention.hpp"
#include "ttt/layers/lstm.hpp"
#include "ttt/layers/mamba.hpp"
#include "ttt/layers/sequence_layer.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/layers/ttt_mlp.hpp"

namespace ttt::test {
namespace {

struct OneTensor {
  Matrix<double> weight;
  static auto fields(auto& self) { return std::tuple(field("weight", self.weight)); }
};

// HasFields

struct NoFields {
  Matrix<double> weight;
};
struct FieldsOfAnObject {
  Matrix<double> weight;
  auto fields() { return std::tuple(field("weight", weight)); }
};

static_assert(HasFields<OneTensor>);
static_assert(HasFields<const OneTensor>);
static_assert(HasFields<TTTParameters<float, LinearModel>>);
static_assert(HasFields<TTTState<double, MLPModel>>);
static_assert(!HasFields<NoFields>);
static_assert(!HasFields<FieldsOfAnObject>);  // must be static: const and not const alike
static_assert(!HasFields<Matrix<double>>);
static_assert(!HasFields<double>);

// Members are counted, so that one left out of fields() is found.

struct ThreeMembers {
  Matrix<double> weight;
  Index position;
  std::array<Vector<double>, 2> biases;
};
static_assert(detail::member_count<OneTensor>() == 1);
static_assert(detail::member_count<ThreeMembers>() == 3);
static_assert(detail::member_count<TTTState<float, MLPModel>>() == 4);

// Scalar

static_assert(Scalar<float> && Scalar<double>);
static_assert(!Scalar<int> && !Scalar<std::string>);

// Activation

struct NoSecondDerivative {
  template <class S>
  static void value(MatrixIn<S>, MatrixOut<S>) {}
  template <class S>
  static void inner_gradient(MatrixIn<S>, MatrixOut<S>, MatrixOut<S>) {}
  template <class S>
  static void derivative(MatrixIn<S>, MatrixOut<S>) {}
};
struct OneNumberAtATime {
  template <class S>
  static S value(S z) {
    return z;
  }
};
struct WholeActivation : NoSecondDerivative {
  template <class S>
  static void outer_gradients(MatrixIn<S>, MatrixOut<S>, MatrixOut<S>) {}
};

template <class A>
inline constexpr bool activates = Activation<A, float>&& Activation<A, double>;

static_assert(activates<Identity> && activates<ReLU> && activates<Tanh> && activates<SiLU>);
static_assert(activates<GeluTanh> && activates<GeluTanhRounded>);
static_assert(activates<WholeActivation>);
static_assert(!activates<NoSecondDerivative>);
static_assert(!activates<OneNumberAtATime>);
static_assert(!activates<int>);

// InnerModel

struct NoOutputRule {
  static constexpr std::size_t weight_count = 1;
  static WeightShape weight_shape(std::size_t, Index head_width) {
    return {head_width, head_width};
  }
};
struct NoShapes {
  using Output = PlainOutput;
  static constexpr std::size_t weight_count = 1;
};
struct OwnModel : NoOutputRule {
  using Output = PlainOutput;
};

static_assert(InnerModel<LinearModel> && InnerModel<MLPModel> && InnerModel<MLPModelRoundedGelu>);
static_assert(InnerModel<Stack<Affine<2>, SiLU, Affine<3>, SiLU, Affine<>>>);
static_assert(InnerModel<OwnModel> && !StackModel<OwnModel>);
static_assert(!InnerModel<NoOutputRule>);
static_assert(!InnerModel<NoShapes>);
static_assert(!InnerModel<GeluTanh>);
static_assert(LinearModel::weight_count == 1 && MLPModel::weight_count == 2);
static_assert(MLPModel::weight_shape(0, 6).rows == 24 && MLPModel::weight_shape(1, 6).cols == 24);

// SequenceLayer: a layer that only declares, with one mistake at a time

enum class Mistake {
  none,
  integer_scalar,
  no_step,
  hidden_state,
  no_backward,
  no_batch,
  no_initial_state_gradient,
  other_initial_state,
  state_without_fields,
  state_that_cannot_be_copied,
  parameters_without_fields,
  parameters_by_value,
  no_check,
};

struct MovableState : OneTensor {
  MovableState() = default;
  MovableState(MovableState&&) = default;
  MovableState& operator=(MovableState&&) = default;
};

struct Empty {};

template <bool condition, class A, class B>
using Choose = std::conditional_t<condition, A, B>;

template <Mistake M>
struct Declared {
  using Scalar = Choose<M == Mistake::integer_scalar, int, double>;
  using Config = Empty;
  using Parameters = Choose<M == Mistake::parameters_without_fields, NoFields, OneTensor>;
  using State = Choose<M == Mistake::state_without_fields, NoFields,
                       Choose<M == Mistake::state_that_cannot_be_copied, MovableState, OneTensor>>;
  using Workspace = Empty;
  using Cache = OneTensor;
  using In = MatrixIn<double>;
  using Out = MatrixOut<double>;
  using Run = const RunOptions&;

  Index width() const;
  const Config& config() const;
  const Parameters& parameters() const requires(M != Mistake::parameters_by_value);
  Parameters& parameters() requires(M != Mistake::parameters_by_value);
  Parameters parameters() const requires(M == Mistake::parameters_by_value);
  Choose<M == Mistake::other_initial_state, Matrix<double>, State> initial_state() const;
  Workspace workspace(Index) const;
  void check(const State&) const requires(M != Mistake::no_check);

  void forward(In, State&, Out, Workspace&, Run) const requires(M != Mistake::hidden_state);
  void forward(In, State&, Out, Workspace&, Run) requires(M == Mistake::hidden_state);
  void forward(In, State&, Out, Workspace&, Cache&, Run) const;
  void backward(In, const Cache&, State&, Out, Parameters&, Workspace&) const
      requires(M != Mistake::no_backward);
  void backward_initial_state(const State&, Parameters&) const
      requires(M != Mistake::no_initial_state_gradient);
  void step(VectorIn<double>, State&, VectorOut<double>, Workspace&, Run) const
      requires(M != Mistake::no_step);
  void forward_batch(In, Lengths, States<State>, Out, Workspace&, Cache*, Run) const
      requires(M != Mistake::no_batch);
  void backward_batch(In, const Cache&, States<State>, Out, Parameters&, Workspace&) const;
  void step_batch(In, States<State>, Out, Workspace&, Run) const;
};

static_assert(SequenceLayer<Declared<Mistake::none>>);
static_assert(SequenceLayer<Attention<float>> && SequenceLayer<Attention<double>>);
static_assert(SequenceLayer<LinearAttention<float>> && SequenceLayer<LinearAttention<double>>);
static_assert(SequenceLayer<LinearAttention<float, NoFeatureMap>>);
static_assert(SequenceLayer<Mamba<float>> && SequenceLayer<Mamba<double>>);
static_assert(SequenceLayer<LSTM<float>> && SequenceLayer<LSTM<double>>);
static_assert(!SequenceLayer<Declared<Mistake::integer_scalar>>);
static_assert(!SequenceLayer<Declared<Mistake::no_step>>);
static_assert(!SequenceLayer<Declared<Mistake::hidden_state>>);  // forward must be const
static_assert(!SequenceLayer<Declared<Mistake::no_backward>>);
static_assert(!SequenceLayer<Declared<Mistake::no_batch>>);
static_assert(!SequenceLayer<Declared<Mistake::no_initial_state_gradient>>);
static_assert(!SequenceLayer<Declared<Mistake::other_initial_state>>);
static_assert(!SequenceLayer<Declared<Mistake::state_without_fields>>);
static_assert(!SequenceLayer<Declared<Mistake::state_that_cannot_be_copied>>);
static_assert(!SequenceLayer<Declared<Mistake::parameters_without_fields>>);
static_assert(!SequenceLayer<Declared<Mistake::parameters_by_value>>);
static_assert(!SequenceLayer<Declared<Mistake::no_check>>);
static_assert(!SequenceLayer<Empty> && !SequenceLayer<int>);

// The layers

static_assert(SequenceLayer<TTTLinear<float>> && SequenceLayer<TTTLinear<double>>);
static_assert(SequenceLayer<TTTMLP<float>> && SequenceLayer<TTTMLP<double>>);
static_assert(SequenceLayer<TTTLayer<float, Stack<Affine<2>, SiLU, Affine<3>, SiLU, Affine<>>>>);
static_assert(!SequenceLayer<TTTLinear<float>&>);
static_assert(!SequenceLayer<LinearModel>);

// Plain matrices, blocks of columns and maps of a caller's memory bind as arguments.

template <class L, class In, class Out, class TokenIn, class TokenOut>
concept TakesArguments = requires(const L& layer, In x, Out y, TokenIn x_t, TokenOut y_t,
                                  typename L::State& state, typename L::Workspace& workspace,
                                  typename L::Cache& cache, typename L::Parameters& grad) {
  layer.forward(x, state, y);
  layer.forward(x, state, y, workspace);
  layer.forward(x, state, y, workspace, cache);
  layer.backward(x, cache, state, y, grad, workspace);
  layer.step(x_t, state, y_t);
  layer.step(x_t, state, y_t, workspace);
};
using L = TTTLinear<float>;
using Block = Eigen::Block<Eigen::MatrixXf, Eigen::Dynamic, Eigen::Dynamic, true>;
using Column = Eigen::Block<Eigen::MatrixXf, Eigen::Dynamic, 1, true>;

static_assert(TakesArguments<L, const Eigen::MatrixXf&, Eigen::MatrixXf&, const Eigen::VectorXf&,
                             Eigen::VectorXf&>);
static_assert(
    TakesArguments<L, MatrixIn<float>, MatrixOut<float>, VectorIn<float>, VectorOut<float>>);
static_assert(TakesArguments<L, Block, Block, Column, Column>);
static_assert(TakesArguments<L, Eigen::Map<const Eigen::MatrixXf>, Eigen::Map<Eigen::MatrixXf>,
                             Eigen::Map<const Eigen::VectorXf>, Eigen::Map<Eigen::VectorXf>>);
// Neither another number type, nor a matrix that may not be written.
static_assert(!TakesArguments<L, const Eigen::MatrixXd&, Eigen::MatrixXd&, const Eigen::VectorXd&,
                              Eigen::VectorXd&>);
static_assert(!TakesArguments<L, const Eigen::MatrixXf&, const Eigen::MatrixXf&,
                              const Eigen::VectorXf&, const Eigen::VectorXf&>);

}  // namespace
}  // namespace ttt::test
