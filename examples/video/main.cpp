// A first video program: shapes move, and a layer learns their motion while it watches.
//
// The hidden state of a TTT layer is a small model f with weights W, trained on what the layer
// reads. Here f is a convolution and a token is a frame:
//
//   f(x; W) = W * x + b                     W: 5 x 5 pixels, the fast weights
//   W_t = W_{t-1} - eta grad 1/2 |f(k_t; W) - v_t|^2,   z_t = f(q_t; W_t)
//
// With the frame before as key k_t and this frame as value v_t, the inner loop learns to continue
// the clip, and the answer to this frame as query q_t is the next one. In each clip all moves by
// one displacement, which nobody tells: W has to become a peak there, anew in every clip.
// The outer loop is ordinary training on many clips: what is key and what is query, the inner
// learning rate, W_0 and the maps around the inner model, by gradients through every inner step.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <optional>

#include "support/clock.hpp"
#include "support/csv.hpp"
#include "support/progress.hpp"
#include "support/threads.hpp"
#include "video/kernel.hpp"
#include "video/models.hpp"
#include "video/picture.hpp"
#include "video/predictor.hpp"

namespace ttt::examples {
namespace {

constexpr Index clips_a_step = 16, length = 12, printed_clips = 4, drawn_clips = 3;
constexpr Index known = 4;  // errors "after a few frames": 4 or more have been read

struct Options {
  Index steps = 1000, test_clips = 400;
  std::uint64_t seed = 1;
  int threads = 0;
  std::filesystem::path out = "out";
  bool longer = false, quick = false;
};

/// How one way to predict did on the clips of the test.
struct Result {
  std::string name;
  Index parameters = 0, training_clips = 0;
  double seconds = 0;
  Matrix<float> predictions;   // [pixels, clips * length]
  std::vector<double> errors;  // [length]: mean squared error of a pixel after t + 1 frames

  Result(std::string title, const Clips& test, Matrix<float> predicted)
      : name(std::move(title)), predictions(std::move(predicted)) {
    for (Index t = 0; t < length; ++t) {
      double sum = 0;
      for (Index i = 0; i < test.count(); ++i) {
        const Index column = test.column(i, t);
        sum += (predictions.col(column) - test.targets.col(column)).squaredNorm();
      }
      errors.push_back(sum / static_cast<double>(test.count() * pixels));
    }
  }

  double late_error() const {
    double sum = 0;
    for (Index t = known - 1; t < length; ++t) sum += errors[static_cast<std::size_t>(t)];
    return sum / (length - known + 1);
  }
};

/// The fast kernels of TTT-Conv as maps of motion: [t][clip] when t + 1 frames have been read.
using Maps = std::vector<std::vector<Matrix<float>>>;

class Experiment {
 public:
  explicit Experiment(const Options& options) : options_(options), test_(test_clips(options)) {}

  void run() {
    std::filesystem::create_directories(options_.out);
    introduce();
    add_yardsticks();
    train_conv();
    train_rival("TTT-MLP", make_mlp_model, 1e-2);
    train_rival("Mamba", make_mamba_model, 1e-2);
    print_table();
    print_errors_by_frame();
    print_maps();
    write_files();
    require(!options_.quick || learned(), "TTT-Conv did no better with learning than without");
  }

 private:
  /// Seeds: three numbers for each --seed, so that no two streams of random numbers are equal.
  static Random random(const Options& options, std::uint64_t purpose) {
    return Random(3 * options.seed + purpose);
  }
  static Clips test_clips(const Options& options) {
    Random test_random = random(options, 0);
    return Clips(options.test_clips, length, test_random);
  }

  void introduce() const {
    std::printf(
        "Clips of %td frames of %td x %td pixels: shapes on a torus, all moved by one "
        "displacement\n"
        "a frame, drawn from {-2..2}^2 without (0, 0) for each clip. Task: from the frames so "
        "far,\n"
        "the next. Trained on %td clips, tested on %td others.\n\n"
        "TTT-Conv is one TTT layer whose fast weights are a kernel of 5 x 5 pixels. It is given\n"
        "three maps that begin as the identity (queries, values, output), and two convolutions "
        "over\n"
        "time that begin as the mean of the last two frames. It learns from there which frame is\n"
        "the key and which the query, the inner rate, W_0, and all maps on.\n\n",
        length, side, side, options_.steps * clips_a_step, options_.test_clips);
    std::fflush(stdout);
  }

  void add_yardsticks() {
    results_.emplace_back("copy the last frame", test_, test_.frames);
    Matrix<float> shifted(pixels, test_.frames.cols());
    for (Index i = 0; i < test_.count(); ++i)
      for (Index t = 0; t < length; ++t)
        shifted.col(test_.column(i, t)) = moved_without_return(
            test_.frames.col(test_.column(i, t)), test_.displacements[static_cast<std::size_t>(i)]);
    results_.emplace_back("move it truly, 0 where new", test_, std::move(shifted));
  }

  template <class Model>
  double train(Predictor<Model>& predictor, const std::string& name, Index steps) const {
    Random clip_random = random(options_, 1);
    Progress progress(std::cerr, progress_on_stderr(name, steps));
    const double start = seconds_now();
    for (Index step = 1; step <= steps; ++step) {
      const double error = predictor.train(Clips(clips_a_step, length, clip_random));
      require(std::isfinite(error), name, ": the error of step ", step, " is not finite");
      progress.update(step, step * clips_a_step * length, std::nan(""));
    }
    return seconds_now() - start;
  }

  static ScheduleConfig schedule(double peak, Index steps) {
    return {
        .peak = peak, .final_rate = peak / 50, .warmup_steps = steps / 20, .total_steps = steps};
  }

  template <class Model>
  void describe(Result& result, const Predictor<Model>& predictor, Index steps, double seconds) {
    result.parameters = count_elements(predictor.model().parameters());
    result.training_clips = steps * clips_a_step;
    result.seconds = seconds;
  }

  void train_conv() {
    Random model_random = random(options_, 2);
    Predictor<ConvLayer> predictor(make_conv_layer(model_random), schedule(5e-3, options_.steps));
    const double seconds = train(predictor, "TTT-Conv", options_.steps);
    const auto remember = [&](Index, const std::vector<ConvLayer::State>& states) {
      maps_.emplace_back();
      for (const auto& state : states) maps_.back().push_back(motion_map(state.weights.W[0]));
    };
    const auto forget = [](Index, const auto&) {};
    conv_ = results_.size();
    results_.emplace_back("TTT-Conv", test_, predictor.watch(test_, {}, remember));
    describe(results_.back(), predictor, options_.steps, seconds);
    results_.emplace_back("TTT-Conv, not learning in test", test_,
                          predictor.watch(test_, {.inner_rate_scale = 0}, forget));
  }

  /// Trains with as many clips as TTT-Conv has; with --longer once more, with four times as many.
  template <class Make>
  void train_rival(const std::string& name, const Make& make, double peak) {
    rivals_.push_back(results_.size());
    for (const Index times : {1, 4}) {
      if (times > 1 && !options_.longer) continue;
      const Index steps = times * options_.steps;
      const std::string title = name + (times > 1 ? ", 4 times the clips" : "");
      Random model_random = random(options_, 2);
      auto model = make(model_random);
      Predictor<decltype(model)> predictor(std::move(model), schedule(peak, steps));
      const double seconds = train(predictor, title, steps);
      const auto forget = [](Index, const auto&) {};
      results_.emplace_back(title, test_, predictor.watch(test_, {}, forget));
      describe(results_.back(), predictor, steps, seconds);
    }
  }

  /// Whether learning while watching pays at all.
  bool learned() const {
    return results_[conv_].late_error() < 0.9 * results_[conv_ + 1].late_error();
  }

  void print_table() const {
    const double copied = results_.front().late_error();
    std::printf(
        "Squared error of the next frame, mean over answers after %td or more frames (a frame has\n"
        "the variance 1), and relative to copying the last frame:\n\n"
        "%-30s %10s %8s %9s %8s %9s\n",
        known, "", "parameters", "clips", "training", "error", "relative");
    for (const Result& result : results_) {
      const bool trained = result.parameters > 0;
      std::printf("%s %10s %8s %9s %8.3f %7.1f %%\n", pad_right(result.name, 30).c_str(),
                  trained ? std::to_string(result.parameters).c_str() : "",
                  trained ? std::to_string(result.training_clips).c_str() : "",
                  trained ? duration(result.seconds).c_str() : "", result.late_error(),
                  100 * result.late_error() / copied);
    }
  }

  double share_of_right_peaks(Index t) const {
    const auto& maps = maps_[static_cast<std::size_t>(t)];
    Index right = 0;
    for (std::size_t i = 0; i < maps.size(); ++i) right += peak(maps[i]) == test_.displacements[i];
    return static_cast<double>(right) / static_cast<double>(maps.size());
  }

  void print_errors_by_frame() const {
    std::printf("\nThe same by the number of frames read:\n\n%-30s", "");
    for (Index t = 0; t < length; ++t) std::printf(" %4td", t + 1);
    std::printf("\n");
    for (const Result& result : results_) {
      std::printf("%-30s", result.name.c_str());
      for (const double error : result.errors) std::printf(" %4.2f", error);
      std::printf("\n");
    }
    std::printf("%-30s", "kernel's peak at the truth, %");
    for (Index t = 0; t < length; ++t) std::printf(" %4.0f", 100 * share_of_right_peaks(t));
    std::printf("\n");
  }

  void print_maps() const {
    const auto first = [](const auto& all) {
      const auto count = std::min<std::ptrdiff_t>(printed_clips, std::ssize(all));
      return std::remove_cvref_t<decltype(all)>(all.begin(), all.begin() + count);
    };
    const auto displacements = first(test_.displacements);
    std::printf(
        "\nThe fast kernel of TTT-Conv in clips of the test, drawn so that an entry's place is "
        "the\n"
        "motion it stands for (no motion: the middle); brackets mark the true one.\n");
    for (const Index t : {Index(1), length - 1}) {
      std::printf("\nAfter %td frames:\n%s", t + 1,
                  draw_maps(first(maps_[static_cast<std::size_t>(t)]), displacements).c_str());
    }
    for (const Displacement& d : displacements)
      std::printf("   %s",
                  pad_right(concat("down ", d.down, " right ", d.right), 3 * diameter).c_str());
    std::printf("\n\nThe kernel's peak lies at the true displacement in %.1f %% of %td clips.\n",
                100 * share_of_right_peaks(length - 1), test_.count());
  }

  void write_files() const {
    CsvTable table({"model", "parameters", "training_clips", "training_seconds", "frames_read",
                    "squared_error"});
    for (const Result& result : results_)
      for (std::size_t t = 0; t < result.errors.size(); ++t)
        table.add(result.name, result.parameters, result.training_clips, result.seconds, t + 1,
                  result.errors[t]);
    table.write(options_.out / "video.csv");
    write_file_atomically(options_.out / "video.svg", picture());
    std::printf("\nWrote %s and video.csv beside it.\n", (options_.out / "video.svg").c_str());
  }

  std::string picture() const {
    std::vector<std::string> titles = {concat("frame ", length - 1), concat("frame ", length),
                                       concat("frame ", length + 1, ", true"), "TTT-Conv"};
    std::vector<std::size_t> shown = {conv_};
    for (const std::size_t rival : rivals_) {
      titles.push_back(results_[rival].name);
      shown.push_back(rival);
    }
    std::vector<ClipPicture> clips;
    for (Index i = 0; i < std::min(drawn_clips, test_.count()); ++i) {
      const Index last = test_.column(i, length - 1);
      ClipPicture clip{
          {test_.frames.col(last - 1), test_.frames.col(last), test_.targets.col(last)},
          maps_.back()[static_cast<std::size_t>(i)],
          test_.displacements[static_cast<std::size_t>(i)]};
      for (const std::size_t model : shown)
        clip.frames.push_back(results_[model].predictions.col(last));
      clips.push_back(std::move(clip));
    }
    Chart chart{.title = "Error of the next frame",
                .x_title = "frames read",
                .y_title = "mean squared error of a pixel"};
    for (const Result& result : results_) {
      Series series{.name = result.name, .x = {}, .y = result.errors};
      for (Index t = 0; t < length; ++t) series.x.push_back(static_cast<double>(t + 1));
      chart.series.push_back(std::move(series));
    }
    return draw_picture(titles, clips, chart);
  }

  Options options_;
  Clips test_;
  std::vector<Result> results_;
  std::size_t conv_ = 0;             // in results_
  std::vector<std::size_t> rivals_;  // with as many clips as TTT-Conv
  Maps maps_;
};

/// Exit code to leave with at once, if there is one.
std::optional<int> parse(int argc, char** argv, Options& options) {
  CLI::App app(
      "Shapes move, and a TTT layer whose fast weights are a small convolution kernel learns "
      "their\n"
      "motion while it watches. Beside it: copying the last frame, TTT-MLP and Mamba. Prints "
      "errors\n"
      "and kernels, writes video.svg and video.csv into the folder --out.\n"
      "Exit code: 0 done, 1 where something failed, 2 bad command line.",
      "video");
  app.add_option("--steps", options.steps, "Training steps of 16 clips")
      ->check(CLI::Range(Index(1), Index(1'000'000)))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the clips and of what is random in the models")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads; 0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--out", options.out, "Folder for the picture and the table")
      ->capture_default_str();
  app.add_flag("--longer", options.longer,
               "Train TTT-MLP and Mamba once more, with four times the clips");
  app.add_flag("--quick", options.quick,
               "A few seconds: 20 steps unless --steps says otherwise, and 40 test clips; exit "
               "code 1\nwhere TTT-Conv learned nothing");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.quick) {
    options.test_clips = 40;
    if (app.count("--steps") == 0) options.steps = 20;
  }
  return std::nullopt;
}

}  // namespace
}  // namespace ttt::examples

int main(int argc, char** argv) {
  using namespace ttt::examples;
  wait_briefly(argv);
  Options options;
  if (const auto exit_code = parse(argc, argv, options)) return *exit_code;
  try {
    use_threads(options.threads);
    Experiment(options).run();
  } catch (const std::exception& error) {
    std::cerr << "video: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
