/// @file
/// Layers under one budget: the training loss of each at the same number of bytes, of
/// floating-point operations, or of seconds. The budget is the largest that all of them reached.
/// At a budget B a run's loss is the mean of its logged points in (0.9 B, B], at least the last
/// four up to B; its standard error comes from their spread, which holds what is left of the trend.
#pragma once

#include <string>
#include <vector>

#include "perplexity/results.hpp"

namespace ttt::examples {

/// One row a layer, for each training context and each equality, the lowest loss first; seeds are
/// averaged. Contexts with a single layer, and equalities that were not counted, have no rows.
std::vector<ComparisonRow> compare_training(const std::vector<TrainingPoint>& curves);

/// Who leads under which equality, and who is within two standard errors of the leader (a tie; the
/// two errors taken as independent). Empty without rows.
std::string comparison_sentence(const std::vector<ComparisonRow>& rows);

/// The whole ranking under each equality, and which layers were caught in the middle of their
/// schedules: one paragraph each.
std::vector<std::string> comparison_paragraphs(const std::vector<ComparisonRow>& rows);

/// "12.3 MB", "4.5 TFLOP", "3 min 20 s".
std::string budget_text(const ComparisonRow& row);

}  // namespace ttt::examples
