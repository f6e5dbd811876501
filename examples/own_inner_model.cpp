/// @file
/// An inner model of your own: any f(x; W), in a few lines.
///
/// The hidden state of a TTT layer is the weights W of a model f. Which model, is yours to choose:
///   1. A list of stages, in one line. The library runs it by matrix products (the dual form).
///   2. Your own code, where no list of stages says what you mean: f, and its gradient as you would
///      write it for plain training. The library runs that code once more on pairs (value, tangent)
///      and so has the gradients of the outer loop, which pass through every inner step.
/// Both are checked first: the slopes of a loss of the whole layer against differences. Then both
/// are trained on one task, beside TTT-Linear.
///
/// The task. Each sequence is a landscape U of its own, hidden: wells and hills at random places of
/// a plane. Token t brings a place x_t and, of the place before it, the force F = -dU/dx:
///
///   token_t = (x_t, x_{t-1}, F(x_{t-1}))       predict F(x_t)
///
/// So the inner loop can learn the map x -> F(x) while it reads, from one example a token. Around
/// the layer all is linear:
///
///   m_t = layer(W_in token_1, ..., W_in token_t)        F^_t = W_out m_t
///
/// Without learning while reading, one example is all that is known of a landscape: the last. (To
/// answer F^ = 0 has a squared error of about 1 in the units here.) `--check` checks the gradients
/// and stops.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "support/threads.hpp"
#include "ttt/inner/first_order.hpp"
#include "ttt/inner/stages/norms.hpp"
#include "ttt/layers/ttt_linear.hpp"
#include "ttt/nn/regression_loss.hpp"
#include "ttt/train/adamw.hpp"
#include "ttt/train/gradient_clip.hpp"
#include "ttt/train/schedule.hpp"

using ttt::Index, ttt::Matrix, ttt::Vector;

/// 1. As a list of stages, f(x) = x + LN(W_2 LN(silu(W_1 x + b_1)) + b_2): an alias.
using NormedMLP = ttt::Stack<ttt::Affine<2>, ttt::SiLU, ttt::LayerNormStage, ttt::Affine<>>;

/// 2. As code. A force is the slope of a potential, so let the model be the slope of one:
///   z(x) = W_1' silu(W_1 x + b_1) - W_2' silu(W_2 x + b_2)
///        = d/dx sum_i [S((W_1 x + b_1)_i) - S((W_2 x + b_2)_i)]          where S' = silu
/// Each W stands at two places, which no list of stages can say. T is the kind of matrix: of
/// numbers, or of pairs (value, tangent).
struct Potential {
  using Output = ttt::LayerNormResidual;  // f(x) = x + LN(z(x)), as in the published models
  static constexpr std::size_t weight_count = 2;
  static ttt::WeightShape weight_shape(std::size_t, Index f) { return {2 * f, f, true}; }

  template <class T>
  using Weights = ttt::ModelWeights<T, weight_count>;
  template <class T>
  struct Saved {  // what `predict` leaves for `gradient`
    T x;
    std::array<T, 2> z, a;
  };

  template <class T>
  static T predict(const Weights<T>& w, const T& x, Saved<T>& saved) {
    saved.x = x;
    for (std::size_t l = 0; l < 2; ++l) {
      saved.z[l] = ttt::add_column(w.W[l] * x, w.b[l]);
      saved.a[l] = ttt::activation<ttt::SiLU>(saved.z[l]);
    }
    return w.W[0].transpose() * saved.a[0] - w.W[1].transpose() * saved.a[1];
  }

  /// dw and dx from dy, the gradient at the result.
  template <class T>
  static void gradient(const Weights<T>& w, const Saved<T>& saved, const T& dy, Weights<T>& dw,
                       T& dx) {
    const std::array<T, 2> signed_dy = {dy, -dy};
    std::array<T, 2> dz;
    for (std::size_t l = 0; l < 2; ++l) {
      const T da = w.W[l] * signed_dy[l];
      dz[l] = ttt::activation_derivative<ttt::SiLU>(saved.z[l]).cwiseProduct(da);
      dw.W[l] = dz[l] * saved.x.transpose() + saved.a[l] * signed_dy[l].transpose();
      dw.b[l] = ttt::sum_columns(dz[l]);
    }
    dx = w.W[0].transpose() * dz[0] + w.W[1].transpose() * dz[1];
  }
};

// The check of gradients.

/// loss = 1/2 sum (y - target)^2 of a layer that reads the sequence x, both [D, T].
template <class Layer>
struct Probe {
  Layer layer;
  Matrix<double> x, target;

  static auto fields(auto& self) {
    return std::tuple(ttt::field("", self.layer), ttt::field("the tokens x", self.x),
                      ttt::without_decay(ttt::field("the targets", self.target)));
  }

  double loss() const {
    auto state = layer.initial_state();
    Matrix<double> y(x.rows(), x.cols());
    layer.forward(x, state, y);
    return 0.5 * (y - target).squaredNorm();
  }

  /// Its gradient in everything above.
  Probe gradient() const {
    Probe grad = ttt::zeros_like(*this);
    auto workspace = layer.workspace(x.cols());
    typename Layer::Cache cache;
    auto state = layer.initial_state();
    Matrix<double> y(x.rows(), x.cols());
    layer.forward(x, state, y, workspace, cache);
    auto d_state = ttt::zeros_like(state);
    layer.backward(y - target, cache, d_state, grad.x, grad.layer.parameters(), workspace);
    layer.backward_initial_state(d_state, grad.layer.parameters());
    grad.target = target - y;
    return grad;
  }
};

/// Along one random direction u for each tensor p: the slope u . dLoss/dp against
/// (loss(p + e u) - loss(p - e u)) / 2e. Prints both; whether all agree.
template <class Model>
bool check_gradients(const char* name) {
  using Layer = ttt::TTTLayer<double, Model>;
  constexpr Index D = 12, T = 10;
  constexpr double e = 1e-5, tolerance = 1e-6;
  ttt::Random random(1);
  Probe<Layer> probe{Layer({.width = D, .heads = 2, .mini_batch = 4}), Matrix<double>(D, T),
                     Matrix<double>(D, T)};
  ttt::for_each_tensor([&](const auto&, auto& p) { random.fill_normal(p, 0.5); }, probe);
  const Probe<Layer> grad = probe.gradient();

  std::printf(
      "%s: dLoss along a random direction\n"
      "  %-26s %16s %16s %11s\n",
      name, "tensor", "analytic", "by differences", "difference");
  bool all_agree = true;
  ttt::for_each_tensor(
      [&](const ttt::TensorInfo& info, auto& p, const auto& dp) {
        auto u = p, kept = p;
        random.fill_normal(u, 1);
        p = kept + e * u;
        const double above = probe.loss();
        p = kept - e * u;
        const double below = probe.loss();
        p = kept;
        const double analytic = u.cwiseProduct(dp).sum(), slope = (above - below) / (2 * e);
        const double difference = std::abs(analytic - slope) / std::abs(slope);
        const bool agrees = difference < tolerance;
        std::printf("  %-26s %16.9f %16.9f %11.0e%s\n", info.name.c_str(), analytic, slope,
                    difference, agrees ? "" : "  WRONG");
        all_agree = all_agree && agrees;
      },
      probe, grad);
  std::printf("\n");
  return all_agree;
}

// The task.

constexpr Index hidden = 32, heads = 2, length = 96, batch = 8;
constexpr int steps = 400;

/// U(x) = sum_j depth_j exp(-|x - centre_j|^2 / 2 width^2), scaled so that F has variance 1.
struct Landscape {
  static constexpr Index wells = 6;
  static constexpr double width = 0.6;
  Matrix<double> centres = Matrix<double>(2, wells);
  Vector<double> depths = Vector<double>(wells);

  explicit Landscape(ttt::Random& random) {
    random.fill_uniform(centres, -1, 1);
    random.fill_normal(depths, 0.85);
  }
  Vector<double> force(const Vector<double>& x) const {
    Vector<double> F = Vector<double>::Zero(2);
    for (Index j = 0; j < wells; ++j) {
      const Vector<double> d = x - centres.col(j);
      F += depths[j] / (width * width) * std::exp(-d.squaredNorm() / (2 * width * width)) * d;
    }
    return F;
  }
};

/// `batch` sequences side by side.
struct Batch {
  Matrix<float> tokens = Matrix<float>::Zero(6, batch* length);  // x_t, x_{t-1}, F(x_{t-1})
  Matrix<float> forces = Matrix<float>(2, batch* length);        // F(x_t)

  explicit Batch(ttt::Random& random) {
    for (Index i = 0; i < batch; ++i) {
      const Landscape landscape(random);
      for (Index t = i * length; t < (i + 1) * length; ++t) {
        Vector<double> x(2);
        random.fill_uniform(x, -1, 1);
        tokens.col(t).head(2) = x.cast<float>();
        forces.col(t) = landscape.force(x).cast<float>();
        if (t == i * length) continue;
        tokens.col(t).segment(2, 2) = tokens.col(t - 1).head(2);
        tokens.col(t).tail(2) = forces.col(t - 1);
      }
    }
  }
};

template <class Model>
struct Network {
  using Layer = ttt::TTTLayer<float, Model>;
  Matrix<float> W_in;  // [hidden, 6]
  Layer layer;
  Matrix<float> W_out;  // [2, hidden]

  static auto fields(auto& self) {
    return std::tuple(ttt::field("W_in", self.W_in), ttt::field("layer", self.layer),
                      ttt::field("W_out", self.W_out));
  }

  static Network make(ttt::Random& random) {
    Network net{Matrix<float>(hidden, 6),
                Layer({.width = hidden, .heads = heads, .mini_batch = 1}, random),
                Matrix<float>(2, hidden)};
    random.fill_normal(net.W_in, 0.5);
    random.fill_normal(net.W_out, 0.1);
    auto& p = net.layer.parameters();  // larger than for a deep language model
    for (auto* W : {&p.q_proj, &p.k_proj, &p.v_proj, &p.o_proj}) random.fill_normal(*W, 0.2);
    for (auto& W : p.W_0.W) random.fill_normal(W, 0.2);
    return net;
  }
};

/// What a forward leaves behind for the backward.
template <class Model>
struct Trace {
  using Layer = typename Network<Model>::Layer;
  Matrix<float> h, m;  // [hidden, batch * length]
  std::vector<typename Layer::State> states;
  typename Layer::Cache cache;
};

/// One state a sequence, by pointer as the layer takes them.
template <class State>
std::vector<State*> pointers(std::vector<State>& states) {
  std::vector<State*> result;
  for (State& state : states) result.push_back(&state);
  return result;
}

const std::vector<Index> lengths(batch, length);

/// Predicted forces [2, batch * length].
template <class Model>
Matrix<float> forward(const Network<Model>& net, const Matrix<float>& tokens, Trace<Model>& trace,
                      const ttt::RunOptions& options) {
  auto workspace = net.layer.workspace(tokens.cols());
  trace.h = net.W_in * tokens;
  trace.m.resize(hidden, tokens.cols());
  trace.states.assign(batch, net.layer.initial_state());
  net.layer.forward_batch(trace.h, lengths, pointers(trace.states), trace.m, workspace,
                          &trace.cache, options);
  return net.W_out * trace.m;
}

/// Adds the gradient in everything that is trained into `grad`.
template <class Model>
void backward(const Network<Model>& net, const Matrix<float>& tokens, const Matrix<float>& dy,
              const Trace<Model>& trace, Network<Model>& grad) {
  auto workspace = net.layer.workspace(tokens.cols());
  grad.W_out += dy * trace.m.transpose();
  const Matrix<float> dm = net.W_out.transpose() * dy;
  Matrix<float> dh(hidden, tokens.cols());
  auto d_states = trace.states;
  for (auto& d_state : d_states) ttt::set_zero(d_state);  // nothing reads the states afterwards
  net.layer.backward_batch(dm, trace.cache, pointers(d_states), dh, grad.layer.parameters(),
                           workspace);
  for (const auto& d_state : d_states)
    net.layer.backward_initial_state(d_state, grad.layer.parameters());
  grad.W_in += dh * tokens.transpose();
}

template <class Model>
Network<Model> train(const char* name, const ttt::RunOptions& options = {}) {
  ttt::Random random(1);
  Network<Model> net = Network<Model>::make(random), grad = ttt::zeros_like(net);
  ttt::AdamW<Network<Model>> optimizer(net, {.weight_decay = 0});
  const ttt::ScheduleConfig schedule{
      .peak = 5e-3, .final_rate = 1e-4, .warmup_steps = steps / 20, .total_steps = steps};
  const ttt::SquaredLoss<float> loss;
  Trace<Model> trace;
  double sum = 0;
  std::printf("%-30s", name);
  for (int step = 1; step <= steps; ++step) {
    const Batch data(random);
    const Matrix<float> y = forward(net, data.tokens, trace, options);
    sum += loss.mean(y, data.forces);  // of two numbers: half their squared error, summed
    Matrix<float> dy(2, y.cols());
    loss.backward(y, data.forces, 1.0 / static_cast<double>(y.cols()), dy);
    ttt::set_zero(grad);
    backward(net, data.tokens, dy, trace, grad);
    ttt::clip_gradient(grad, 1.0);
    optimizer.step(net, grad, ttt::learning_rate(step, schedule));
    if (step % (steps / 5) > 0) continue;
    std::printf(" %7.3f", sum / (steps / 5));
    std::fflush(stdout);
    sum = 0;
  }
  std::printf("\n");
  return net;
}

/// Prints the squared error by position over landscapes that no training saw, mean of the two
/// components, and returns that of the last column.
template <class Model>
double print_errors(const char* name, const Network<Model>& net,
                    const ttt::RunOptions& options = {}) {
  constexpr int batches = 40;
  constexpr std::array<Index, 5> borders = {0, 1, 8, 32, length};
  ttt::Random random(2);
  std::array<double, 4> error = {};
  Trace<Model> trace;
  for (int i = 0; i < batches; ++i) {
    const Batch data(random);
    const Matrix<float> e = forward(net, data.tokens, trace, options) - data.forces;
    for (Index sequence = 0; sequence < batch; ++sequence)
      for (std::size_t part = 0; part < error.size(); ++part) {
        const Index begin = sequence * length + borders[part];
        const Index size = borders[part + 1] - borders[part];
        error[part] += e.middleCols(begin, size).array().square().mean() / (batches * batch);
      }
  }
  std::printf("%-30s", name);
  for (const double part : error) std::printf(" %9.3f", part);
  std::printf("\n");
  return error.back();
}

int main(int count, char** arguments) {
  ttt::examples::wait_briefly(arguments);
  const bool stack_is_right = check_gradients<NormedMLP>("1. The list of stages");
  const bool code_is_right = check_gradients<Potential>("2. Own code");
  if (!stack_is_right || !code_is_right) return 1;
  if (count > 1 && std::strcmp(arguments[1], "--check") == 0) return 0;

  const ttt::RunOptions frozen{.inner_rate_scale = 0};
  std::printf("Training: squared error, mean over each fifth of %d steps\n", steps);
  const auto linear = train<ttt::LinearModel>("TTT-Linear");
  const auto stack = train<NormedMLP>("the list of stages");
  const auto potential = train<Potential>("own code");
  const auto plain = train<Potential>("own code, inner rate 0", frozen);

  std::printf("\nTest: squared error at token           1       2-8      9-32     33-96\n");
  const double unlearned = print_errors("own code, inner rate 0 always", plain, frozen);
  print_errors("own code, inner rate 0 in test", potential, frozen);
  const double linear_error = print_errors("TTT-Linear", linear);
  const double stack_error = print_errors("the list of stages", stack);
  const double code_error = print_errors("own code", potential);

  std::printf(
      "\nTo the right a sequence has been read for longer. With the inner rate 0 that does not\n"
      "help: the last example is all there is. Of the error in the first row, at tokens 33-96\n"
      "TTT-Linear leaves %.0f %%, the list of stages %.0f %%, own code %.0f %%.\n",
      100 * linear_error / unlearned, 100 * stack_error / unlearned, 100 * code_error / unlearned);
}
