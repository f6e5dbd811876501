// plot.py draws every picture from the CSV files that perplexity writes, and says in one sentence
// what is missing.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "perplexity/results.hpp"
#include "support/temporary_folder.hpp"

namespace ttt::examples {
namespace {

namespace fs = std::filesystem;
using ttt::testing::TemporaryFolder;

const std::string script = (fs::path(TTT_GOLDEN_DIR) / "../../examples/plot.py").string();

struct Outcome {
  int exit_code;
  std::string text;  // standard output and standard error
};

Outcome python(const std::string& arguments) {
  std::FILE* pipe =
      popen(("MPLCONFIGDIR=\"$TMPDIR\" python3 -B " + arguments + " 2>&1").c_str(), "r");
  Outcome outcome{-1, ""};
  for (char part[256]; std::fgets(part, sizeof part, pipe);) outcome.text += part;
  const int status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

bool has_python() { return python("-c 'import csv, argparse'").exit_code == 0; }
bool has_matplotlib() { return python("-c 'import matplotlib.pyplot'").exit_code == 0; }

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// One of every table, as perplexity writes it, with a value that is not known.
void write_tables(const fs::path& folder) {
  ResultRow model, longer, count;
  model.layer = longer.layer = "ttt-linear";
  model.train_context = 128;
  longer.train_context = 256;
  model.nats_per_byte = longer.nats_per_byte = 1.5;
  count.layer = "count-4";
  count.train_context = 128;
  count.nats_per_byte = 1.6;
  write_results(folder / "results.csv", {count, model, longer});
  const std::vector<PositionRow> positions = {{"ttt-linear", 128, 1, 8, 16, 1.5, 0.1, 10},
                                              {"ttt-linear", 128, 1, 16, 128, 1.4, 0.1, 10},
                                              {"lstm", 128, 1, 16, 128, not_known, 0.1, 10}};
  write_positions(folder / "by_position.csv", positions);
  write_positions(folder / "extrapolation.csv", positions);
  write_frozen(folder / "frozen.csv", {{"ttt-linear", 128, 1, 0, 16, 32, 1.5, 0.1},
                                       {"ttt-linear", 128, 1, 1, 16, 32, 1.4, 0.1}});
  write_curves(folder / "curves.csv", {{"lstm", 128, 1, 1, 1000, 1, 1e9, 2, 0.1, 1},
                                       {"lstm", 128, 1, 2, 2000, 2, 2e9, 1.9, 0.1, 1}});
  write_inner_losses(folder / "inner_loss.csv",
                     {{"ttt-linear", 128, 0, 0, 16, 32, 1, 0.9, 0.8, 0.7}});
  write_latency(folder / "latency.csv",
                {{"lstm", 256, 1, 1000, 0.001, 64}, {"lstm", 256, 8, 1000, 0.001, 64}});
}

TEST(Plot, CompilesAndExplainsItself) {
  if (!has_python()) GTEST_SKIP() << "python3 is not installed";
  EXPECT_EQ(
      python("-c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' '" + script + "'").text,
      "");
  const Outcome help = python("'" + script + "' --help");
  EXPECT_EQ(help.exit_code, 0);
  for (const char* part : {"usage:", "DIR/plots", "extrapolation.csv", "matplotlib"})
    EXPECT_TRUE(has(help.text, part)) << part;
  EXPECT_EQ(python("'" + script + "'").exit_code, 2);
}

TEST(Plot, SaysWhatIsMissing) {
  if (!has_python()) GTEST_SKIP() << "python3 is not installed";
  const TemporaryFolder temporary;
  const fs::path folder = temporary / "run";
  fs::create_directories(folder);
  const Outcome empty = python("'" + script + "' '" + folder.string() + "'");
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_TRUE(has(empty.text, "expected results.csv")) << empty.text;
  write_tables(folder);
  // A name that cannot be imported stands for a matplotlib that is not there.
  const Outcome without = python(
      "-c 'import runpy, sys; sys.modules[\"matplotlib\"] = None; sys.argv = sys.argv[1:]; "
      "runpy.run_path(sys.argv[0], run_name=\"__main__\")' '" +
      script + "' '" + folder.string() + "'");
  EXPECT_EQ(without.exit_code, 1);
  EXPECT_EQ(without.text,
            "plot.py: matplotlib is missing: pip install matplotlib, or apt-get install "
            "python3-matplotlib\n");
}

TEST(Plot, DrawsEveryPicture) {
  if (!has_python() || !has_matplotlib()) GTEST_SKIP() << "matplotlib is not installed";
  const TemporaryFolder temporary;
  const fs::path folder = temporary / "run";
  fs::create_directories(folder);
  write_tables(folder);
  const Outcome outcome = python("'" + script + "' '" + folder.string() + "'");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  const char* const names[] = {"results",
                               "training-128-bytes",
                               "training-128-seconds",
                               "training-128-flops",
                               "by_position-128",
                               "extrapolation-128",
                               "frozen-ttt-linear-128",
                               "inner_loss-ttt-linear-128-0",
                               "decode-batch-1",
                               "decode-batch-8",
                               "prefill-batch-1",
                               "prefill-batch-8"};
  for (const std::string name : names)
    for (const char* kind : {".png", ".svg"})
      EXPECT_TRUE(fs::exists(folder / "plots" / (name + kind))) << name << kind;
  const auto files = std::distance(fs::directory_iterator(folder / "plots"), {});
  EXPECT_EQ(files, 2 * std::ssize(names));
}

}  // namespace
}  // namespace ttt::examples
