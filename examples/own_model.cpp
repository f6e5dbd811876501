/// @file
/// A TTT layer inside your own network: here, one that predicts the next sample of a sensor.
///
/// Each sequence is the vibration of another machine: a resonance at a frequency w of its own, kept
/// going by noise e_t,
///
///   x_{t+1} = a x_t - r^2 x_{t-1} + e_t        a = 2 r cos(w),  r = 0.98,  variance of x is 1
///
/// The best prediction of x_{t+1} is a x_t - r^2 x_{t-1}, but nobody tells the network a: it
/// differs from machine to machine and can only be learned from the samples read so far. That is
/// what the inner loop of a TTT layer does: it fits a small model to the sequence while it reads.
/// The outer loop below teaches it, on many machines, how to learn.
///
///   h_t = tanh(W_in (x_t, x_{t-1}) + b_in)     own code, plain Eigen
///   m_t = TTT-Linear(h_1, ..., h_t)            the layer
///   y_t = W_out (h_t + m_t) + b_out            own code; y_t predicts x_{t+1}
///   L   = mean of 1/2 (y_t - x_{t+1})^2
///
/// All machines of the test are new to the network. For comparison, the same network is trained
/// and tested with the inner learning rate scaled by 0: what reads the sequence then does not
/// learn.
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "ttt/layers/ttt_linear.hpp"
#include "ttt/nn/regression_loss.hpp"
#include "ttt/train/adamw.hpp"
#include "ttt/train/gradient_clip.hpp"
#include "ttt/train/schedule.hpp"

using ttt::Index, ttt::Matrix, ttt::Vector;
using Layer = ttt::TTTLinear<float>;

constexpr Index hidden = 32, length = 128;
constexpr int steps = 400, batch = 8;
constexpr double r = 0.98;

struct Machine {
  double a, noise;                 // noise: standard deviation of e_t
  std::array<double, 2> now = {};  // x_t, x_{t-1}

  explicit Machine(ttt::Random& random) : a(2 * r * std::cos(random.uniform(0.2, 2.6))) {
    const double s = 1 + r * r;
    noise = std::sqrt((1 - r * r) * (s * s - a * a) / s);  // gives x the variance 1
    record(200, random);                                   // until it has forgotten its start
  }

  std::vector<float> record(Index samples, ttt::Random& random) {
    std::vector<float> x(static_cast<std::size_t>(samples));
    for (float& sample : x) {
      now = {a * now[0] - r * r * now[1] + noise * random.normal(), now[0]};
      sample = static_cast<float>(now[0]);
    }
    return x;
  }
};

/// A recording as the network sees it. A column of `x` is a token.
struct Sequence {
  Matrix<float> x;        // [2, T]: x_t and x_{t-1}
  Matrix<float> targets;  // [1, T]: x_{t+1}

  explicit Sequence(const std::vector<float>& samples) {
    const Index T = std::ssize(samples) - 2;
    const auto row = [&](Index from) {  // Eigen reads your memory where it is
      return Eigen::Map<const Eigen::RowVectorXf>(samples.data() + from, T);
    };
    x.resize(2, T);
    x << row(1), row(0);
    targets = row(2);
  }
};

/// All that is trained, named once in `fields`. Its gradient, and what AdamW keeps, is another
/// Network.
struct Network {
  Matrix<float> W_in;  // [hidden, 2]
  Vector<float> b_in;  // [hidden]
  Layer layer;
  Matrix<float> W_out;  // [1, hidden]
  Vector<float> b_out;  // [1]

  static auto fields(auto& self) {
    using ttt::field;
    return std::tuple(field("W_in", self.W_in), field("b_in", self.b_in),
                      field("layer", self.layer), field("W_out", self.W_out),
                      field("b_out", self.b_out));
  }
};

Network make_network(ttt::Random& random) {
  Network net{.W_in = Matrix<float>(hidden, 2),
              .b_in = Vector<float>::Zero(hidden),
              .layer = Layer({.width = hidden, .heads = 2, .mini_batch = 4}, random),
              .W_out = Matrix<float>(1, hidden),
              .b_out = Vector<float>::Zero(1)};
  random.fill_normal(net.W_in, 1);
  random.fill_normal(net.W_out, 0.1);
  return net;
}

/// What a forward leaves behind for the backward.
struct Trace {
  Matrix<float> x, h, u;  // [2, T], [hidden, T], [hidden, T]: u = h + m
  Layer::State state;
  Layer::Cache cache;
};

/// Predictions y [1, T] for a whole sequence.
Matrix<float> forward(const Network& net, const Matrix<float>& x, Trace& trace,
                      const ttt::RunOptions& options) {
  auto workspace = net.layer.workspace(x.cols());  // scratch; a longer program would keep it
  trace.x = x;
  trace.h = ((net.W_in * x).colwise() + net.b_in).array().tanh();
  trace.u.resize(hidden, x.cols());
  trace.state = net.layer.initial_state();
  net.layer.forward(trace.h, trace.state, trace.u, workspace, trace.cache, options);
  trace.u += trace.h;
  return (net.W_out * trace.u).colwise() + net.b_out;
}

/// Given dy = dLoss/dy, adds dLoss/d(everything that is trained) into `grad`.
void backward(const Network& net, const Matrix<float>& dy, const Trace& trace, Network& grad) {
  auto workspace = net.layer.workspace(dy.cols());
  grad.W_out += dy * trace.u.transpose();
  grad.b_out += dy.rowwise().sum();
  const Matrix<float> du = net.W_out.transpose() * dy;

  Matrix<float> dh(hidden, dy.cols());
  Layer::State d_state = ttt::zeros_like(trace.state);  // nothing reads the state after the end
  net.layer.backward(du, trace.cache, d_state, dh, grad.layer.parameters(), workspace);
  net.layer.backward_initial_state(d_state, grad.layer.parameters());  // W_0 is learned, too
  dh += du;

  dh.array() *= 1 - trace.h.array().square();  // through tanh
  grad.W_in += dh * trace.x.transpose();
  grad.b_in += dh.rowwise().sum();
}

Network train(const ttt::RunOptions& options) {
  ttt::Random random(1);
  Network net = make_network(random), grad = ttt::zeros_like(net);
  ttt::AdamW<Network> optimizer(net, {.weight_decay = 0});
  const ttt::ScheduleConfig schedule{
      .peak = 3e-3, .final_rate = 1e-4, .warmup_steps = steps / 20, .total_steps = steps};
  const ttt::SquaredLoss<float> loss;
  Trace trace;
  double sum = 0;
  for (int step = 1; step <= steps; ++step) {
    ttt::set_zero(grad);
    for (int i = 0; i < batch; ++i) {
      const Sequence sequence(Machine(random).record(length + 2, random));
      const Matrix<float> y = forward(net, sequence.x, trace, options);
      sum += loss.mean(y, sequence.targets);
      Matrix<float> dy(1, length);
      loss.backward(y, sequence.targets, 1.0 / (batch * length), dy);
      backward(net, dy, trace, grad);
    }
    ttt::clip_gradient(grad, 1.0);
    optimizer.step(net, grad, ttt::learning_rate(step, schedule));
    if (step % (steps / 5) > 0) continue;
    std::printf("  step %3d  squared error %.3f\n", step, 2 * sum / (batch * steps / 5));
    sum = 0;
  }
  return net;
}

/// Mean squared error over 200 new machines, in three parts of the sequence. `predict(sequence,
/// machine)` gives y [1, T].
template <class Predict>
void print_errors(const char* name, const Predict& predict) {
  constexpr int machines = 200;
  constexpr std::array<Index, 4> borders = {0, 16, 64, length};
  ttt::Random random(2);
  std::array<double, 3> error = {};
  for (int i = 0; i < machines; ++i) {
    Machine machine(random);
    const Sequence sequence(machine.record(length + 2, random));
    const Matrix<float> e = predict(sequence, machine) - sequence.targets;
    for (std::size_t part = 0; part < error.size(); ++part) {
      const Index begin = borders[part], size = borders[part + 1] - begin;
      error[part] += e.middleCols(begin, size).array().square().mean() / machines;
    }
  }
  std::printf("%-44s %8.3f %8.3f %8.3f\n", name, error[0], error[1], error[2]);
}

int main() {
  const ttt::RunOptions learning, frozen{.inner_rate_scale = 0};
  std::printf("Training with the inner loop\n");
  const Network net = train(learning);
  std::printf("Training the same network without it\n");
  const Network plain = train(frozen);

  const auto with = [](const Network& network, const ttt::RunOptions& options) {
    return [&network, options](const Sequence& sequence, const Machine&) {
      Trace trace;
      return forward(network, sequence.x, trace, options);
    };
  };
  std::printf("\nSquared error on new machines, at samples      1-16    17-64   65-128\n");
  print_errors("the last sample again", [](const Sequence& sequence, const Machine&) {
    return Matrix<float>(sequence.x.row(0));
  });
  print_errors("trained with the inner loop, tested without", with(net, frozen));
  print_errors("trained and tested without the inner loop", with(plain, frozen));
  print_errors("trained and tested with the inner loop", with(net, learning));
  print_errors("who knows the machine", [](const Sequence& sequence, const Machine& machine) {
    return Matrix<float>(static_cast<float>(machine.a) * sequence.x.row(0) -
                         static_cast<float>(r * r) * sequence.x.row(1));
  });
}
