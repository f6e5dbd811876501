#include "perplexity/study.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "perplexity/evaluation.hpp"
#include "support/csv.hpp"
#include "support/format.hpp"
#include "ttt/train/trainer.hpp"

namespace ttt::examples {
namespace {

constexpr int most_rounds = 5;  // after the grid
const std::vector<double> grid = {2e-3, 4e-3, 8e-3};

using Trials = std::vector<RateTrial>;

/// Sorted by rate.
Trials sorted(Trials trials) {
  std::sort(trials.begin(), trials.end(),
            [](const RateTrial& a, const RateTrial& b) { return a.rate < b.rate; });
  return trials;
}

std::size_t best_of(const Trials& trials) {
  const auto best =
      std::min_element(trials.begin(), trials.end(),
                       [](const RateTrial& a, const RateTrial& b) { return a.nats < b.nats; });
  return static_cast<std::size_t>(best - trials.begin());
}

class Study {
 public:
  Study(const Options& options, const TextParts& text, std::ostream& out)
      : options_(options), text_(text), out_(out), context_(options.contexts.front()) {
    std::filesystem::create_directories(options.out);
    metrics_.open(options.out / "study.jsonl", options.resume ? std::ios::app : std::ios::trunc);
  }

  void run() {
    std::vector<Run> runs;
    for (const std::string& name : options_.layers) runs.push_back(trial_run(name, grid[1]));
    bytes_ = plan_training(runs, options_, text_.train, options_.out / "study-plan.json");
    for (const double rate : grid)
      for (const std::string& name : options_.layers) try_rate(name, rate);
    for (int round = 0; round < most_rounds && !all_inside(); ++round)
      for (const std::string& name : options_.layers) try_rate(name, next_rate(trials_[name]));
    out_ << '\n';
    for (const std::string& name : options_.layers) {
      const Trials trials = sorted(trials_[name]);
      out_ << pad_right(name, 18) << "learning rate " << brief(trials[best_of(trials)].rate)
           << (best_is_inside(trials) ? "" : "  (at the edge of what was tried)") << '\n';
    }
  }

 private:
  Run trial_run(const std::string& name, double rate) const {
    const auto folder = options_.out / (name + "-" + brief(rate));
    return {layer_kind(name),
            context_,
            options_.seeds.front(),
            rate,
            folder,
            planned_steps(options_, context_, bytes_)};
  }

  void try_rate(const std::string& name, double rate) {
    RateTrial trial{rate, std::numeric_limits<double>::infinity(), 0};
    try {
      const TrainedModel trained = train(trial_run(name, rate), options_, text_.train, metrics_);
      const auto windows = test_windows(text_.validation, context_, options_.test_bytes);
      const MeanLoss loss = evaluate(trained.model, windows, 1, false).all;
      trial.nats = loss.nats;
      trial.standard_error = loss.standard_error;
    } catch (const NonFinite& error) {  // a rate can be too high
      out_ << name << ", learning rate " << brief(rate) << ": " << error.what() << '\n';
    }
    trials_[name].push_back(trial);
    out_ << pad_right(name, 18) << "learning rate " << pad_right(brief(rate), 10)
         << fixed(bits_from_nats(trial.nats), 4) << " bits per byte of validation text"
         << std::endl;
    write();
  }

  bool all_inside() const {
    return std::all_of(trials_.begin(), trials_.end(),
                       [](const auto& entry) { return best_is_inside(entry.second); });
  }

  void write() const {
    CsvTable table(
        {"layer", "train_context", "learning_rate", "nats_per_byte", "stderr", "chosen"});
    for (const std::string& name : options_.layers) {
      const auto found = trials_.find(name);
      if (found == trials_.end()) continue;
      const Trials trials = sorted(found->second);
      for (std::size_t i = 0; i < trials.size(); ++i)
        table.add(name, context_, trials[i].rate, trials[i].nats, trials[i].standard_error,
                  i == best_of(trials) ? 1 : 0);
    }
    table.write(options_.out / "study.csv");
  }

  const Options& options_;
  const TextParts& text_;
  std::ostream& out_;
  std::int64_t context_, bytes_ = 0;
  std::ofstream metrics_;
  std::map<std::string, Trials> trials_;
};

}  // namespace

bool best_is_inside(const std::vector<RateTrial>& trials) {
  const Trials all = sorted(trials);
  const std::size_t best = best_of(all);
  return best > 0 && best + 1 < all.size();
}

double next_rate(const std::vector<RateTrial>& trials) {
  const Trials all = sorted(trials);
  const std::size_t best = best_of(all);
  if (best == 0) return all.front().rate / 2;
  if (best + 1 == all.size()) return all.back().rate * 2;
  const bool up = all[best + 1].nats < all[best - 1].nats;
  return std::sqrt(all[best].rate * all[up ? best + 1 : best - 1].rate);
}

void study_learning_rates(const Options& options, const TextParts& text, std::ostream& out) {
  Study(options, text, out).run();
}

}  // namespace ttt::examples
