/// @file
/// Streaming: the state of a sequence is a value that you hold.
///
/// A layer is a function of a token x_t [D] and a state S,
///
///   y_t, S_t = step(x_t, S_{t-1})
///
/// and keeps nothing itself. For TTT-Linear, S holds the weights W that the inner loop has learned
/// (one f x f matrix per head, f = D / H), and what it has gathered of the unfinished mini-batch of
/// b tokens. Its size does not depend on how long the stream is. From this follows all that is
/// shown here:
///   - tokens one by one give what the whole sequence gives at once
///   - a state can be saved, loaded and continued; a copy of it is a fork of the stream
///   - several streams share one layer, each with a state of its own
///   - a step allocates no memory and takes the same time at any length of the stream
///
/// In a build without NDEBUG, Eigen watches the allocations: with the macro below, any between
/// set_is_malloc_allowed(false) and (true) stops the program.
#define EIGEN_RUNTIME_NO_MALLOC
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "ttt/io/state.hpp"
#include "ttt/layers/ttt_linear.hpp"

using ttt::Index, ttt::Matrix, ttt::Vector;
using Layer = ttt::TTTLinear<float>;

constexpr Index D = 64, tokens = 1000;

double difference(const Matrix<float>& a, const Matrix<float>& b) {
  return static_cast<double>((a - b).cwiseAbs().maxCoeff());
}

/// x one token at a time; `state` is where the stream is, before and after.
Matrix<float> step_through(const Layer& layer, const Matrix<float>& x, Layer::State& state) {
  Layer::Workspace workspace = layer.workspace(1);  // scratch memory, one per thread
  Matrix<float> y(D, x.cols());
  Eigen::internal::set_is_malloc_allowed(false);
  for (Index t = 0; t < x.cols(); ++t) layer.step(x.col(t), state, y.col(t), workspace);
  Eigen::internal::set_is_malloc_allowed(true);
  return y;
}

/// Half of the stream, a file, and the other half from what the file says.
Matrix<float> pause_and_resume(const Layer& layer, const Matrix<float>& x) {
  const auto file = std::filesystem::temp_directory_path() / "ttt_streaming_example.state";
  Matrix<float> y(D, tokens);
  {
    Layer::State state = layer.initial_state();
    y.leftCols(tokens / 2) = step_through(layer, x.leftCols(tokens / 2), state);
    ttt::save_state(file, state, "streaming example");
  }
  Layer::State state = layer.initial_state();  // gives the shapes; the values come from the file
  ttt::load_state(file, state, "streaming example");
  y.rightCols(tokens / 2) = step_through(layer, x.rightCols(tokens / 2), state);
  std::filesystem::remove(file);
  return y;
}

/// Four streams move on together, a column of x and y each; the projections run as one product.
Matrix<float> step_four(const Layer& layer, const Matrix<float>& x) {
  std::vector<Layer::State> states(4, layer.initial_state());
  Layer::Workspace workspace = layer.workspace(4);
  Matrix<float> y(D, x.cols());
  for (Index t = 0; t < x.cols(); t += 4)
    ttt::step_batch(layer, x.middleCols(t, 4), std::span(states), y.middleCols(t, 4), workspace);
  return y;
}

/// The same four, each on its own.
Matrix<float> step_each(const Layer& layer, const Matrix<float>& x) {
  Layer::Workspace workspace = layer.workspace(1);
  Matrix<float> y(D, x.cols());
  for (Index stream = 0; stream < 4; ++stream) {
    Layer::State state = layer.initial_state();
    for (Index t = stream; t < x.cols(); t += 4) layer.step(x.col(t), state, y.col(t), workspace);
  }
  return y;
}

/// The quickest of ten runs of 100 steps each: other programs can only make a run slower.
double microseconds_per_step(const Layer& layer, const Matrix<float>& x, Layer::State& state) {
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 10; ++run) {
    const auto start = std::chrono::steady_clock::now();
    step_through(layer, x.leftCols(100), state);
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count() / 100);
  }
  return best;
}

int main() {
  ttt::Random random(1);
  const Layer layer({.width = D, .heads = 4, .mini_batch = 16, .share_qk = true, .gate = true},
                    random);
  Matrix<float> x(D, tokens);
  random.fill_normal(x, 1);

  // All at once, and one by one.
  Layer::State state = layer.initial_state(), stepped = state;
  Matrix<float> y(D, tokens);
  Layer::Workspace workspace = layer.workspace(tokens);
  layer.forward(x, state, y, workspace);
  const Matrix<float> y_stepped = step_through(layer, x, stepped);
  std::printf("%td tokens one by one, and all at once: outputs differ by at most %.1e\n", tokens,
              difference(y, y_stepped));
  std::printf("(the largest is %.3f; these are the same sums in another order).\n",
              difference(y, 0 * y));
#ifdef NDEBUG
  std::printf("Allocations were not watched: build without NDEBUG (preset dev) for that.\n\n");
#else
  std::printf("No step allocated memory: Eigen would have stopped the program.\n\n");
#endif

  std::printf("Saved after %td tokens, loaded and continued: outputs differ by %g.\n", tokens / 2,
              difference(y_stepped, pause_and_resume(layer, x)));

  // A copy of the state is a fork: it reads something else, which the stream does not notice.
  Layer::State fork = stepped, witness = stepped;
  const Matrix<float> y_fork = step_through(layer, -x, fork);
  const Matrix<float> y_stream = step_through(layer, x, stepped);
  std::printf("A fork that read other tokens differs by %.3f, the stream that it left by %g.\n",
              difference(y_fork, y_stream), difference(y_stream, step_through(layer, x, witness)));
  std::printf("Four streams that step together differ by %.1e from each alone.\n\n",
              difference(step_four(layer, x), step_each(layer, x)));

  std::printf("The state is %td numbers, at any length of the stream.\n",
              ttt::count_elements(stepped));
  Layer::State running = layer.initial_state();
  double times[11];
  for (double& time : times) time = microseconds_per_step(layer, x, running);
  std::printf("A step takes %.1f microseconds in the first %td tokens, %.1f after %td.\n", times[0],
              tokens, times[10], 10 * tokens);
}
