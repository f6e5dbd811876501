/// @file
/// A causal model of continuous signals: the trunk between two affine maps.
///   h_t = W_in' x_t + b_in      y_t = W_out' trunk(h_0..t) + b_out
/// x [input_width, T], y [output_width, T]; with the loss in nn/regression_loss.hpp, y_t may
/// predict x_(t+1), or anything else that is known when the model is trained.
#pragma once

#include "ttt/lm/trunk.hpp"
#include "ttt/nn/linear.hpp"

namespace ttt {

template <SequenceLayer... Mixers>
struct SequenceModelConfig {
  Index input_width = 1;
  Index output_width = 1;
  TrunkConfig<Mixers...> trunk;

  /// Throws `std::invalid_argument` for the first violation.
  void validate() const {
    require(input_width > 0, "SequenceModelConfig: input_width is ", input_width,
            ", expected a positive number");
    require(output_width > 0, "SequenceModelConfig: output_width is ", output_width,
            ", expected a positive number");
    trunk.validate();
  }
};

template <SequenceLayer... Mixers>
class SequenceModel {
 public:
  using TrunkType = Trunk<Mixers...>;
  using Scalar = typename TrunkType::Scalar;
  using S = Scalar;
  using Config = SequenceModelConfig<Mixers...>;
  using State = typename TrunkType::State;

  struct Parameters {
    Matrix<S> input_weight;  // [input_width, D]
    Vector<S> input_bias;    // [D]
    TrunkType trunk;
    Matrix<S> output_weight;  // [D, output_width]
    Vector<S> output_bias;    // [output_width]
    static auto fields(auto& self) {
      return std::tuple(streamed(field("input.weight", self.input_weight)),
                        field("input.bias", self.input_bias), field("trunk", self.trunk),
                        streamed(field("output.weight", self.output_weight)),
                        field("output.bias", self.output_bias));
    }
  };

  struct Workspace {
    typename TrunkType::Workspace trunk;
    Matrix<S> hidden;    // [D, T]; in backward, its adjoint
    Vector<S> hidden_t;  // [D]: one token
  };

  struct Cache {
    typename TrunkType::Cache trunk;
    Matrix<S> x;       // [input_width, T]
    Matrix<S> hidden;  // [D, T] after the final norm
  };

  explicit SequenceModel(const Config& config, Random&& random = Random(0))
      : SequenceModel(config, random) {}
  SequenceModel(const Config& config, Random& random)
      : config_((config.validate(), config)),
        parameters_{Matrix<S>(config.input_width, config.trunk.block.width),
                    Vector<S>::Zero(config.trunk.block.width), TrunkType(config.trunk, random),
                    Matrix<S>(config.trunk.block.width, config.output_width),
                    Vector<S>::Zero(config.output_width)} {
    // An input of unit variance enters the residual stream with unit variance.
    const double input_deviation = 1 / std::sqrt(static_cast<double>(config.input_width));
    random.fill_normal(parameters_.input_weight, input_deviation);
    random.fill_normal(parameters_.output_weight, config.trunk.block.initializer_range);
  }

  const Config& config() const { return config_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters& parameters() { return parameters_; }
  const TrunkType& trunk() const { return parameters_.trunk; }
  /// D, the width of the trunk.
  Index width() const { return trunk().width(); }

  State initial_state() const { return trunk().initial_state(); }
  void check(const State& state) const { trunk().check(state); }
  Workspace workspace(Index max_tokens) const {
    return {trunk().workspace(max_tokens), Matrix<S>(width(), max_tokens), Vector<S>(width())};
  }

  /// Advances `state` by the T tokens of x; writes y.
  /// Throws `std::invalid_argument` where a shape is wrong.
  void forward(MatrixIn<S> x, State& state, MatrixOut<S> y, Workspace& w,
               const RunOptions& options = {}) const {
    require_shape("SequenceModel.forward: y", y, config_.output_width, x.cols());
    State* const states[] = {&state};
    for (Index begin = 0; begin < x.cols(); begin += TrunkType::inference_tile) {
      const Index size = std::min(TrunkType::inference_tile, x.cols() - begin);
      forward_batch(x.middleCols(begin, size), Lengths(&size, 1), states, y.middleCols(begin, size),
                    w, nullptr, options);
    }
  }

  /// The same numbers; `cache` then holds what `backward` needs.
  void forward(MatrixIn<S> x, State& state, MatrixOut<S> y, Workspace& w, Cache& cache,
               const RunOptions& options = {}) const {
    State* const states[] = {&state};
    const Index size = x.cols();
    forward_batch(x, Lengths(&size, 1), states, y, w, &cache, options);
  }

  /// Several streams, side by side in x and y, each with its own state. `cache` may be null.
  void forward_batch(MatrixIn<S> x, Lengths lengths, States<State> states, MatrixOut<S> y,
                     Workspace& w, Cache* cache, const RunOptions& options = {}) const {
    require_shape("SequenceModel.forward: x", x, config_.input_width, x.cols());
    require_shape("SequenceModel.forward: y", y, config_.output_width, x.cols());
    const Parameters& p = parameters_;
    ensure_shape(w.hidden, width(), x.cols());
    Linear<S>::forward(x, p.input_weight, w.hidden);
    w.hidden.colwise() += p.input_bias;
    trunk().forward_batch(w.hidden, lengths, states, w.hidden, w.trunk,
                          cache ? &cache->trunk : nullptr, options);
    if (cache) {
      cache->x = x;
      cache->hidden = w.hidden;
    }
    Linear<S>::forward(w.hidden, p.output_weight, y);
    y.colwise() += p.output_bias;
  }

  /// Given dy = dLoss/dy and, in `d_state`, dLoss/d(state after): writes dx, replaces `d_state` by
  /// dLoss/d(state before), and adds into `grad`.
  void backward(MatrixIn<S> dy, const Cache& cache, State& d_state, MatrixOut<S> dx,
                Parameters& grad, Workspace& w) const {
    State* const d_states[] = {&d_state};
    backward_batch(dy, cache, d_states, dx, grad, w);
  }

  void backward_batch(MatrixIn<S> dy, const Cache& cache, States<State> d_states, MatrixOut<S> dx,
                      Parameters& grad, Workspace& w) const {
    const Parameters& p = parameters_;
    require_shape("SequenceModel.backward: dy", dy, config_.output_width, cache.x.cols());
    require_shape("SequenceModel.backward: dx", dx, config_.input_width, cache.x.cols());
    ensure_shape(w.hidden, width(), dy.cols());
    Linear<S>::backward_weight(dy, cache.hidden, grad.output_weight);
    grad.output_bias += dy.rowwise().sum();
    Linear<S>::backward_input(dy, p.output_weight, w.hidden);
    trunk().backward_batch(w.hidden, cache.trunk, d_states, w.hidden, grad.trunk.parameters(),
                           w.trunk);
    Linear<S>::backward_weight(w.hidden, cache.x, grad.input_weight);
    grad.input_bias += w.hidden.rowwise().sum();
    Linear<S>::backward_input(w.hidden, p.input_weight, dx);
  }

  /// Adds what a stream's beginning owes to learned initial states (TTT's W_0).
  void backward_initial_state(const State& d_state, Parameters& grad) const {
    trunk().backward_initial_state(d_state, grad.trunk.parameters());
  }

  /// One token: x_t [input_width], y_t [output_width]. Allocates nothing; `check(state)` is the
  /// caller's.
  void step(VectorIn<S> x_t, State& state, VectorOut<S> y_t, Workspace& w,
            const RunOptions& options = {}) const {
    const Parameters& p = parameters_;
    Linear<S>::step(x_t, p.input_weight, w.hidden_t, options.decode_weights);
    w.hidden_t += p.input_bias;
    trunk().step(w.hidden_t, state, w.hidden_t, w.trunk, options);
    Linear<S>::step(w.hidden_t, p.output_weight, y_t, options.decode_weights);
    y_t += p.output_bias;
  }

 private:
  Config config_;
  Parameters parameters_;
};

}  // namespace ttt
