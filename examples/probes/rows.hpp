/// @file
/// The rows of the table: each is a configuration of one model, and what it is compared with.
#pragma once

#include <string>
#include <vector>

#include "probes/model.hpp"

namespace ttt::examples::probes {

/// Sizes that all rows share.
struct Sizes {
  Index width = 64, depth = 2, heads = 4;
  Index context = 256;  // T
};

struct Row {
  std::string group = {}, name = {}, changes = {};
  std::string compared_with = {};  // the name of another row; empty: none
  Layer layer = Layer::published;
  TTTConfig config = {};
  bool block_convolution = true;  // before the mixer of every block
  double paper_perplexity = 0;    // NaN where the paper has no such row
};

/// All rows, each after the one that it is compared with.
std::vector<Row> all_rows(const Sizes& sizes);

/// Those whose "group: name" has `part` in it, and those that they are compared with.
/// Throws `std::invalid_argument` where there is none.
std::vector<Row> select_rows(const std::vector<Row>& rows, const std::string& part);

Model::Config model_config(const Row& row, const Sizes& sizes);

}  // namespace ttt::examples::probes
