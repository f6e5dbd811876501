#include "probes/rows.hpp"

#include <limits>
#include <set>

namespace ttt::examples::probes {
namespace {

constexpr double not_in_paper = std::numeric_limits<double>::quiet_NaN();
/// What a learned rate starts from, sigma(0): a constant one stays there.
constexpr double half = 0.5;

const char* const table = "Table 1, row by row";
const char* const probes = "Probes: one change to TTT-Linear";
const char* const reference = "TTT-Linear";

TTTConfig transformer_backbone(const Sizes& sizes) {
  return {.width = sizes.width, .heads = sizes.heads};
}

TTTConfig mamba_backbone(const Sizes& sizes) {
  TTTConfig config = transformer_backbone(sizes);
  config.share_qk = config.gate = true;
  return config;
}

/// Each row keeps the changes of those above it.
void add_table(const Sizes& sizes, std::vector<Row>& rows) {
  Row row{.group = table,
          .config = transformer_backbone(sizes),
          .block_convolution = false,
          .paper_perplexity = not_in_paper};
  const auto add = [&](const char* name, const char* changes, double paper_perplexity) {
    row.compared_with = rows.empty() ? "" : rows.back().name;
    row.name = name;
    row.changes = changes;
    row.paper_perplexity = paper_perplexity;
    rows.push_back(row);
  };
  row.layer = Layer::normalized_attention;
  add("with normalizer", "linear attention, features elu + 1: no TTT", 15.91);
  row.layer = Layer::linear_attention;
  row.config.base_learning_rate = half;
  row.config.mini_batch = sizes.context;
  row.config.learned_initial_weights = false;
  add("linear attention", "without normalizer: f(k) = W k, W_0 = 0, b = T", 15.23);
  row.config.learned_initial_weights = true;
  add("+ learned W_0", "W_0 is trained", 15.27);
  row.layer = Layer::constant;
  add("+ LN, residual", "f(k) = k + LN(W k + b)", 14.05);
  row.config.mini_batch = 16;
  add("+ mini-batch", "b = 16", 12.35);
  row.layer = Layer::published;
  row.config.base_learning_rate = 1;
  add("+ learned rate", "eta = tau sigma(a.x + c) / f", 11.99);
  row.config = mamba_backbone(sizes);
  row.block_convolution = true;
  add(reference, "+ Mamba backbone: convolutions, gate", 11.09);
}

void add_probes(const Sizes& sizes, std::vector<Row>& rows) {
  const auto add = [&](const char* name, const char* changes, const auto& change,
                       const char* compared_with = reference) {
    Row row{.group = probes,
            .name = name,
            .changes = changes,
            .compared_with = compared_with,
            .config = mamba_backbone(sizes),
            .paper_perplexity = not_in_paper};
    change(row);
    rows.push_back(row);
  };
  const auto layer = [](Layer kind) { return [kind](Row& row) { row.layer = kind; }; };
  const auto mini_batch = [](Index b) { return [b](Row& row) { row.config.mini_batch = b; }; };
  const auto base_rate = [](double rate) {
    return [rate](Row& row) { row.config.base_learning_rate = rate; };
  };

  add("0 inner steps", "inner rate 0: W stays W_0", base_rate(0));
  add("b = 4", "gradients at the weights of up to 4 tokens ago", mini_batch(4));
  add("b = 64", "... 64 tokens ago", mini_batch(64));
  add("b = T", "... all at W_0", mini_batch(sizes.context));
  add("gradient ascent", "inner rate times -1", base_rate(-1));
  add("queries as keys", "k = q", [](Row& row) { row.config.queries_as_keys = true; });
  add("W_0 = 0", "not trained", [](Row& row) { row.config.learned_initial_weights = false; });
  add("no LN", "f(k) = k + W k + b", layer(Layer::no_layer_norm));
  add("no residual", "f(k) = LN(W k + b)", layer(Layer::no_residual));
  add("constant rate", "eta = 1 / 2f", [](Row& row) {
    row.layer = Layer::constant;
    row.config.base_learning_rate = half;
  });
  add("no convolutions", "projections of their own for q and k",
      [](Row& row) { row.config.share_qk = row.block_convolution = false; });
  add("no gate", "output W_o' LN(z)", [](Row& row) { row.config.gate = false; });
  add("no rotation", "q, k without positions", [](Row& row) { row.config.rotary = false; });
  const char* const no_factors = "no token factors";
  add(no_factors, "tau = 1, not 1 / place in the mini-batch", layer(Layer::no_token_factors));
  add("momentum", "S = mu_t S - grad, W = W + S", layer(Layer::momentum), no_factors);
  add("forgetting", "W = (1 - alpha_t) W - grad", layer(Layer::forgetting), no_factors);

  // Last, since they take the most time.
  const char* const one_step = "b = 1, 1 inner step";
  add(one_step, "a step after every token", mini_batch(1));
  add("2 inner steps", "on each token", layer(Layer::two_steps), one_step);
  add("4 inner steps", "on each token", layer(Layer::four_steps), one_step);
  add("8 inner steps", "on each token", layer(Layer::eight_steps), one_step);
}

void set(TTTConfig& mixer, const TTTConfig& row) { mixer = row; }
void set(LinearAttentionConfig& mixer, const TTTConfig& row) {
  mixer = {.width = row.width, .heads = row.heads};
}

}  // namespace

std::vector<Row> all_rows(const Sizes& sizes) {
  std::vector<Row> rows;
  add_table(sizes, rows);
  add_probes(sizes, rows);
  return rows;
}

std::vector<Row> select_rows(const std::vector<Row>& rows, const std::string& part) {
  std::set<std::string> names;
  for (const Row& row : rows)
    if ((row.group + ": " + row.name).find(part) != std::string::npos)
      names.insert({row.name, row.compared_with});
  std::vector<Row> selected;
  for (const Row& row : rows)
    if (names.contains(row.name)) selected.push_back(row);
  std::string all;
  for (const Row& row : rows) all += (all.empty() ? "" : "; ") + row.name;
  require(!selected.empty(), "no row has '", part, "' in its name, expected a part of: ", all);
  return selected;
}

Model::Config model_config(const Row& row, const Sizes& sizes) {
  Model::Config config;
  config.trunk.depth = sizes.depth;
  config.trunk.block = {
      .width = sizes.width, .intermediate = 2 * sizes.width, .pre_conv = row.block_convolution};
  std::apply([&](auto&... mixer) { (set(mixer, row.config), ...); }, config.trunk.mixers);
  config.trunk.layer_types.assign(static_cast<std::size_t>(sizes.depth),
                                  static_cast<std::size_t>(row.layer));
  return config;
}

}  // namespace ttt::examples::probes
