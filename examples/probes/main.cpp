// What each part of a TTT layer contributes: trains a small language model of bytes once for each
// row of a table, all alike but for what the row changes, and prints what each needs to tell a
// text that it never saw. The first rows are those of Table 1 of the paper (Sun et al. 2024, arXiv
// 2407.04620), which lead from linear attention to TTT-Linear; the others change one thing of
// TTT-Linear. See --help, and rows.cpp for the rows.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <limits>
#include <map>

#include "probes/training.hpp"
#include "support/csv.hpp"
#include "support/format.hpp"
#include "support/interrupt.hpp"
#include "support/text.hpp"
#include "support/threads.hpp"

namespace ttt::examples::probes {
namespace {

constexpr const char* description =
    "What each part of a TTT layer contributes: trains a small language model of bytes once for\n"
    "each row of a table, with the same bytes and the same random seed, and tests it on text that\n"
    "it never saw. Rows: Table 1 of the paper (arXiv 2407.04620) step by step, from linear\n"
    "attention to TTT-Linear, and probes, each of which changes one thing of TTT-Linear: inner\n"
    "steps, gradient ascent, queries as keys, mini-batch, W_0, LayerNorm, residual, rates,\n"
    "convolutions, gate, rotation, momentum, forgetting.\n"
    "\n"
    "--out writes DIR/probes.csv: group, row, changes, parameters, bits_per_byte (of the test\n"
    "text; empty where the row diverged), compared_with (a row), difference (in bits per byte,\n"
    "below 0: better than that row), tokens_per_second (of training), diverged_at_step,\n"
    "paper_perplexity (of tokens, at 125 million parameters).\n"
    "Exit code: 0 done, 1 bad input (with --quick also a row that is no better than guessing),\n"
    "2 bad command line, 130 after Ctrl-C.";

struct Options {
  std::vector<std::filesystem::path> text;
  Index tokens = 600000, test_bytes = 100000;
  std::uint64_t seed = 1;
  double learning_rate = Budget().learning_rate;
  int threads = 0;
  std::string only, out;
  bool quick = false;
};

/// Words drawn at random from a few: enough to see a loss fall.
std::string made_up_text(Index bytes) {
  Random random(1);
  std::vector<std::string> words(50);
  for (std::string& word : words)
    for (Index length = 2 + random.below(6); length > 0; --length)
      word += static_cast<char>('a' + random.below(26));
  std::string text;
  while (std::ssize(text) < bytes)
    text += words[static_cast<std::size_t>(random.below(std::ssize(words)))] + ' ';
  return text;
}

/// A tenth is held out. (Nothing is chosen by a validation text, so there is none.)
TextParts read(const Options& options, Index context) {
  TextParts parts;
  if (options.quick && options.text.empty()) {
    const std::string text = made_up_text(12000);
    parts.train.push_back({"made up", text.substr(0, 10000)});
    parts.test.push_back({"made up", text.substr(10000)});
  } else {
    TextOptions text;
    text.text = options.text;
    text.longest_context = context;
    parts = read_text(text);
    for (Document& document : parts.validation) parts.test.push_back(std::move(document));
  }
  return parts;
}

/// Consecutive windows of the test text, `context` + 1 bytes each; bytes of `bytes` predictions.
std::vector<std::string_view> test_windows(const TextParts& parts, Index context, Index bytes) {
  std::vector<std::string_view> windows;
  for (const std::string_view text : views_of(parts.test))
    for (Index begin = 0; begin + context < std::ssize(text); begin += context)
      if (std::ssize(windows) * context < bytes)
        windows.push_back(
            text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(context + 1)));
  return windows;
}

void print_cells(const std::string& name, const std::string& changes, const std::string& parameters,
                 const std::string& bits, const std::string& difference,
                 const std::string& compared_with, const std::string& speed,
                 const std::string& paper) {
  std::printf(
      "%s %s %s %s %s  %s %s %s\n", pad_right(name, 18).c_str(), pad_right(changes, 46).c_str(),
      pad_left(parameters, 10).c_str(), pad_left(bits, 9).c_str(), pad_left(difference, 10).c_str(),
      pad_right(compared_with, 18).c_str(), pad_left(speed, 8).c_str(), pad_left(paper, 6).c_str());
  std::fflush(stdout);
}

void print_heading(const std::string& group) {
  std::printf("\n%s\n", group.c_str());
  print_cells("row", "what it changes", "parameters", "bits/byte", "difference", "from", "tokens/s",
              "paper");
}

std::string signed_number(double value) { return (value > 0 ? "+" : "") + fixed(value, 3); }

class Table {
 public:
  explicit Table(std::string out) : out_(std::move(out)) {}

  void add(const Row& row, const Result& result) {
    if (row.group != group_) print_heading(group_ = row.group);
    const double bits = bits_from_nats(result.nats);
    const auto other = bits_.find(row.compared_with);
    require(bits_.emplace(row.name, bits).second, "two rows are named '", row.name, "'");
    require(other != bits_.end() || row.compared_with.empty(), "row '", row.name,
            "' is compared with '", row.compared_with, "', which does not come before it");
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double difference = other == bits_.end() ? nan : bits - other->second;
    print_cells(row.name, row.changes, compact(static_cast<double>(result.parameters), 4),
                result.diverged_at ? "diverged" : fixed(bits, 3), signed_number(difference),
                row.compared_with.empty() ? "-" : row.compared_with,
                compact(result.tokens_per_second), fixed(row.paper_perplexity, 2));
    csv_.add(row.group, row.name, row.changes, result.parameters, bits, row.compared_with,
             difference, result.tokens_per_second,
             result.diverged_at ? std::to_string(*result.diverged_at) : "", row.paper_perplexity);
    if (!out_.empty()) csv_.write(std::filesystem::path(out_) / "probes.csv");
  }

  /// Whether every row beats guessing, 8 bits per byte.
  bool all_learned() const {
    return std::all_of(bits_.begin(), bits_.end(), [](const auto& row) { return row.second < 8; });
  }

 private:
  std::string out_, group_;
  std::map<std::string, double> bits_;
  CsvTable csv_{{"group", "row", "changes", "parameters", "bits_per_byte", "compared_with",
                 "difference", "tokens_per_second", "diverged_at_step", "paper_perplexity"}};
};

/// Exit code.
int run_all(const Options& options) {
  Sizes sizes;
  Budget budget{options.tokens, 1024, options.learning_rate, options.seed};
  if (options.quick) {
    sizes = {.width = 16, .depth = 1, .heads = 2, .context = 32};
    budget.tokens = 1024;
    budget.batch_tokens = 128;
  }
  const auto rows = select_rows(all_rows(sizes), options.only);
  const TextParts parts = read(options, sizes.context);
  const Texts texts{views_of(parts.train), test_windows(parts, sizes.context, options.test_bytes)};
  if (!options.out.empty()) std::filesystem::create_directories(options.out);

  std::printf(
      "%td blocks of width %td, %td heads of f = %td, T = %td; %s bytes of training, %s of test\n",
      sizes.depth, sizes.width, sizes.heads, sizes.width / sizes.heads, sizes.context,
      compact(static_cast<double>(budget.tokens)).c_str(),
      compact(static_cast<double>(std::ssize(texts.test) * sizes.context)).c_str());
  Table table(options.out);
  for (std::size_t i = 0; i < rows.size(); ++i)
    table.add(rows[i], run(rows[i], sizes, budget, texts,
                           concat(i + 1, "/", rows.size(), " ", rows[i].name)));
  std::printf(
      "\nbits/byte: of the test text. difference: below 0 is better than the row in `from`.\n"
      "paper: perplexity of Table 1 (125 million parameters, the Pile, context 2048).\n"
      "TTT-Linear here: b = 16, f(k) = k + LN(W k + b). How large the luck of a run is, other\n"
      "seeds tell (--seed).\n");
  return options.quick && !table.all_learned() ? 1 : 0;
}

std::optional<int> parse(int argc, char** argv, Options& o) {
  CLI::App app(description, "probes");
  app.add_option("text", o.text,
                 "Texts: files, or folders (their *.txt). A tenth is held out for the test: of "
                 "several files whole ones, of one its end");
  app.add_option("--tokens", o.tokens, "Bytes that each row is trained on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--test-bytes", o.test_bytes, "Bytes of the test, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--learning-rate", o.learning_rate, "Peak of the outer learning rate, of all rows")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Of the first weights and of the order of the text")
      ->capture_default_str();
  app.add_option("--threads", o.threads, "Threads; 0: one for each core")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--only", o.only,
                 "Rows that have this in \"GROUP: ROW\", and those that they are compared with");
  app.add_option("--out", o.out, "Folder for probes.csv, written anew after each row");
  app.add_flag("--quick", o.quick,
               "A much smaller model for a few steps, to see that all works; without a text it "
               "makes one up");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!o.text.empty() || o.quick) return {};
  std::cerr << "probes: no text, expected files or folders of plain text, a few hundred kB or more "
               "(or --quick)\n";
  return 2;
}

}  // namespace
}  // namespace ttt::examples::probes

int main(int argc, char** argv) {
  using namespace ttt::examples;
  wait_briefly(argv);
  probes::Options options;
  if (const auto exit_code = probes::parse(argc, argv, options)) return *exit_code;
  catch_interrupts();
  try {
    use_threads(options.threads);
    return probes::run_all(options);
  } catch (const Interrupted&) {
    std::cerr << "\nprobes: interrupted\n";
    return 130;
  } catch (const std::exception& error) {
    std::cerr << "\nprobes: " << error.what() << '\n';
    return 1;
  }
}
