/// @file
/// The experiment: counts, trains and evaluates every run, and keeps the results on disk up to
/// date after each of them.
#pragma once

#include <fstream>
#include <optional>

#include "perplexity/evaluation.hpp"
#include "perplexity/report.hpp"
#include "perplexity/training.hpp"

namespace ttt::examples {

class Experiment {
 public:
  /// Reads the texts and opens the output folder. Throws `std::exception` with one sentence.
  Experiment(const Options& options, Machine machine);

  void run();

 private:
  void count();
  void train_and_evaluate(const LayerKind& kind, std::int64_t context, std::uint64_t seed);
  void evaluate_checkpoint();
  void evaluate_model(const Model& model, ResultRow row);
  void add_row(const ResultRow& row);
  void write_files() const;
  std::string model_folder(const LayerKind& kind, std::int64_t context, std::uint64_t seed) const;

  Options options_;
  std::optional<LoadedModel> checkpoint_;
  TextParts text_;
  std::ofstream metrics_;
  ResultPrinter printer_;
  Report report_;
};

}  // namespace ttt::examples
