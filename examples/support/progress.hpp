/// @file
/// A progress line: one line that is rewritten on a terminal, a plain line every ten seconds
/// elsewhere (a log file). Step, loss in bits per byte, tokens a second, time passed and left.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <utility>

#include "support/format.hpp"

namespace ttt::examples {

class Progress {
 public:
  struct Options {
    std::string label;            // what runs: "ttt-linear, context 1024"
    std::int64_t steps = 0;       // in all
    std::int64_t first_step = 0;  // done before, by a run that is now resumed
    bool terminal = false;
    std::size_t columns = 80;            // of the terminal; a longer line would not be rewritten
    std::function<double()> clock = {};  // seconds; a steady clock unless given
  };

  Progress(std::ostream& out, Options options) : out_(&out), options_(std::move(options)) {
    if (!options_.clock) {
      options_.clock = [] {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        return std::chrono::duration<double>(now).count();
      };
    }
    start_ = options_.clock();
  }

  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `step` steps are done, by which this run has read `tokens` tokens; `loss` is in nats per
  /// byte, NaN where there is none. Writes only where the last line is old enough, and at the end.
  void update(std::int64_t step, std::int64_t tokens, double loss) {
    const double now = options_.clock();
    const bool last = step >= options_.steps;
    const double interval = options_.terminal ? 0.2 : 10;
    if (!last && now - written_ < interval) return;
    written_ = now;
    write(line(step, tokens, loss, now - start_));
  }

  /// Ends the rewritten line, so that what follows starts on a line of its own.
  void finish() {
    if (line_open_) *out_ << '\n' << std::flush;
    line_open_ = false;
  }

 private:
  std::string line(std::int64_t step, std::int64_t tokens, double loss, double seconds) const {
    const auto done = static_cast<double>(step - options_.first_step);
    const auto left = static_cast<double>(options_.steps - step);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::string text =
        options_.label + "  " + std::to_string(step) + "/" + std::to_string(options_.steps);
    if (!std::isnan(loss)) text += "  " + fixed(bits_from_nats(loss), 3) + " bits/byte";
    text += "  " + compact(seconds > 0 ? static_cast<double>(tokens) / seconds : nan) + " tokens/s";
    text += "  " + duration(seconds);
    if (left > 0) text += ", " + duration(done > 0 ? seconds / done * left : nan) + " left";
    return text;
  }

  void write(std::string text) {
    if (!options_.terminal) {
      *out_ << text << '\n' << std::flush;
      return;
    }
    const std::size_t room = options_.columns > 1 ? options_.columns - 1 : 1;
    if (text.size() > room) text.resize(room);
    *out_ << '\r' << text << "\x1b[K" << std::flush;  // the escape erases the rest of the line
    line_open_ = true;
  }

  std::ostream* out_;
  Options options_;
  double start_ = 0;
  double written_ = -std::numeric_limits<double>::infinity();
  bool line_open_ = false;
};

/// Options for a progress line on standard error.
inline Progress::Options progress_on_stderr(std::string label, std::int64_t steps,
                                            std::int64_t first_step = 0) {
  Progress::Options options{std::move(label),           steps, first_step,
                            isatty(STDERR_FILENO) == 1, 80,    {}};
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    options.columns = size.ws_col;
  return options;
}

}  // namespace ttt::examples
