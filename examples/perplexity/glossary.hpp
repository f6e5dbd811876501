/// @file
/// The parts of a report that explain: what its words mean, and what its numbers do not show.
#pragma once

#include <string>
#include <vector>

#include "perplexity/results.hpp"

namespace ttt::examples {

/// The words of a report, as HTML; of layers those that appear in it.
std::string glossary_html(const std::vector<std::string>& layers);

/// What cannot be concluded from these results. Empty where no model was trained.
std::string limits_text(const std::vector<ResultRow>& results);

}  // namespace ttt::examples
