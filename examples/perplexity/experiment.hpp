/// @file
/// The experiment: counts, trains and evaluates every run, and keeps the results on disk up to
/// date after each of them.
#pragma once

#include <fstream>
#include <optional>

#include "perplexity/evaluation.hpp"
#include "perplexity/plan.hpp"
#include "perplexity/report.hpp"

namespace ttt::examples {

class Experiment {
 public:
  /// Reads the texts and opens the output folder. Throws `std::exception` with one sentence.
  Experiment(const Options& options, Machine machine);

  /// Throws `Interrupted` on request, with all files written that there are results for.
  void run();

 private:
  void compare();
  void count();
  std::vector<Run> planned_runs();
  void train_and_evaluate(const Run& run);
  void evaluate_checkpoint();
  void evaluate_model(const Model& model, ResultRow row);
  void evaluate_frozen(const Model& model, const ResultRow& row,
                       const std::vector<std::string_view>& windows,
                       const LossByWindow& as_trained);
  void evaluate_beyond(const Model& model, const ResultRow& row,
                       const std::vector<std::string_view>& windows);
  void add_frozen(const ResultRow& row, double scale, const LossByWindow& loss);
  void add_row(const ResultRow& row);
  void write_files() const;
  bool holds_back() const;
  void print_summary() const;
  std::filesystem::path model_folder(const std::string& layer, std::int64_t context,
                                     std::uint64_t seed) const;

  Options options_;
  std::optional<LoadedModel> checkpoint_;
  TextParts text_;
  std::ofstream metrics_;
  ResultPrinter printer_;
  std::size_t rows_before_ = 0;  // of results.csv, when a run is resumed
  Report report_;
};

}  // namespace ttt::examples
