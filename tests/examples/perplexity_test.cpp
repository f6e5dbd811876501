// The program `perplexity` from outside: its files, what --resume and Ctrl-C promise, and that the
// number of threads changes no bit.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "support/temporary_folder.hpp"
#include "ttt/core/random.hpp"

namespace ttt::examples {
namespace {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

const std::string all_layers =
    "ttt-linear,ttt-mlp,ttt-linear-t,ttt-mlp-t,mamba,attention,window-attention,lstm,"
    "linear-attention,hybrid";
const std::string tiny =
    " --width 16 --depth 2 --heads 2 --context 64 --batch-tokens 128 --window 24";

/// Words from a small vocabulary, so that there is something to learn.
std::string text_of(std::size_t size) {
  const std::vector<std::string> words = {"to ", "be ", "or ", "not ", "that ", "is\n"};
  Random random(3);
  std::string text;
  while (text.size() < size) text += words[static_cast<std::size_t>(random.below(6))];
  return text;
}

/// An output folder and a text; runs the program there.
class Bench {
 public:
  Bench() { write_bytes(folder_ / "text", text_of(20000)); }

  std::string command(const std::string& options, const std::string& out,
                      const std::string& sizes = tiny) const {
    return std::string(TTT_PERPLEXITY_PROGRAM) + " --text " + (folder_ / "text").string() + sizes +
           " --out " + (folder_ / out).string() + " " + options;
  }

  int run(const std::string& options, const std::string& out) const {
    const int status = std::system(
        (command(options, out) + " >" + (folder_ / "output").string() + " 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string read(const std::string& file) const { return read_bytes(folder_ / file); }
  std::string output() const { return read("output"); }
  std::filesystem::path path(const std::string& file) const { return folder_ / file; }

 private:
  TemporaryFolder folder_;
};

/// Rows of a CSV file without quoted cells, by the names of its columns.
std::vector<std::map<std::string, std::string>> rows_of(const std::string& csv) {
  const auto cells = [](const std::string& line) {
    std::vector<std::string> result;
    std::istringstream stream(line + ",");
    for (std::string cell; std::getline(stream, cell, ',');) result.push_back(cell);
    return result;
  };
  std::istringstream stream(csv);
  std::string line;
  std::getline(stream, line);
  const auto names = cells(line);
  std::vector<std::map<std::string, std::string>> rows;
  while (std::getline(stream, line)) {
    const auto values = cells(line);
    EXPECT_EQ(values.size(), names.size()) << line;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (i == 0) rows.emplace_back();
      rows.back()[names[i]] = values[i];
    }
  }
  return rows;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

TEST(PerplexityProgramTest, ComparesAllLayersAndWritesItsFiles) {
  const Bench bench;
  ASSERT_EQ(bench.run("--layers " + all_layers + " --steps 8 --no-latency", "out"), 0)
      << bench.output();
  const auto columns = [&](const std::string& file) { return first_line(bench.read(file)); };
  EXPECT_EQ(columns("out/results.csv"),
            "layer,backbone,train_context,seed,learning_rate,parameters,train_tokens,train_seconds,"
            "train_flops,state_bytes,nats_per_byte,stderr,bits_per_byte,perplexity_per_byte");
  EXPECT_EQ(columns("out/by_position.csv"),
            "layer,train_context,seed,position_begin,position_end,nats_per_byte,stderr,count");
  EXPECT_EQ(columns("out/extrapolation.csv"), columns("out/by_position.csv"));
  EXPECT_EQ(columns("out/frozen.csv"),
            "layer,train_context,seed,inner_rate_scale,position_begin,position_end,nats_per_byte,"
            "stderr");
  EXPECT_EQ(columns("out/latency.csv"),
            "layer,context,batch,prefill_tokens_per_second,decode_seconds_per_token,state_bytes");
  EXPECT_EQ(columns("out/comparison.csv"),
            "layer,train_context,equality,budget,share_of_training,nats_per_byte,stderr");
  EXPECT_NE(bench.read("out/report.html").find("</html>"), std::string::npos);

  std::map<std::string, std::string> flops;  // at the end of the training curves
  for (const auto& point : rows_of(bench.read("out/curves.csv")))
    flops[point.at("layer")] = point.at("flops");
  std::set<std::string> layers;
  std::set<double> parameters;
  for (const auto& row : rows_of(bench.read("out/results.csv"))) {
    layers.insert(row.at("layer"));
    EXPECT_LT(std::stod(row.at("bits_per_byte")), 8) << row.at("layer");
    if (row.at("backbone") == "count") continue;
    parameters.insert(std::stod(row.at("parameters")));
    EXPECT_EQ(row.at("train_tokens"), "1024") << row.at("layer");
    EXPECT_EQ(row.at("train_flops"), flops[row.at("layer")]) << row.at("layer");
    const auto folder = "out/" + row.at("layer") + "-64";
    EXPECT_TRUE(nlohmann::json::accept(bench.read(folder + "/config.json")));
    EXPECT_GT(bench.read(folder + "/model.safetensors").size(), 1000u);
  }
  EXPECT_EQ(layers.size(), 4 + 10u);
  EXPECT_LT(*parameters.rbegin() / *parameters.begin(), 1.02);
}

TEST(PerplexityProgramTest, CheckpointsAreEvaluatedByThemselves) {
  const Bench bench;
  ASSERT_EQ(bench.run("--layers " + all_layers + " --steps 4 --no-latency", "out"), 0)
      << bench.output();
  for (const auto& row : rows_of(bench.read("out/results.csv"))) {
    if (row.at("backbone") == "count") continue;
    const auto checkpoint = bench.path("out/" + row.at("layer") + "-64").string();
    ASSERT_EQ(bench.run("--no-latency --checkpoint " + checkpoint, "again"), 0) << bench.output();
    const auto again = rows_of(bench.read("again/results.csv"));
    ASSERT_EQ(again.size(), 1u);
    EXPECT_EQ(again[0].at("layer"), row.at("layer"));
    EXPECT_EQ(again[0].at("nats_per_byte"), row.at("nats_per_byte")) << row.at("layer");
    EXPECT_EQ(again[0].at("parameters"), row.at("parameters"));
  }
}

TEST(PerplexityProgramTest, NumberOfThreadsChangesNoBitOfACheckpoint) {
  const Bench bench;
  const std::string job = "--train-only --steps 3 --layers " + all_layers;
  ASSERT_EQ(bench.run(job + " --threads 1", "1"), 0) << bench.output();
  ASSERT_EQ(bench.run(job + " --threads 2", "2"), 0) << bench.output();
  ASSERT_EQ(bench.run(job + " --threads 3", "3"), 0) << bench.output();
  std::istringstream names(all_layers);
  for (std::string layer; std::getline(names, layer, ',');) {
    const std::string file = "/" + layer + "-64/model.safetensors";
    EXPECT_FALSE(bench.read("1" + file).empty());
    EXPECT_TRUE(bench.read("2" + file) == bench.read("1" + file)) << layer;
    EXPECT_TRUE(bench.read("3" + file) == bench.read("1" + file)) << layer;
  }
}

TEST(PerplexityProgramTest, AfterCtrlCResumeGoesOnAsIfNothingHadHappened) {
  const Bench bench;
  const std::string job =
      "--layers lstm,ttt-linear --steps 400 --no-latency --test-bytes 640 --threads 1";
  ASSERT_EQ(bench.run(job, "whole"), 0) << bench.output();

  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string line = "exec " + bench.command(job, "cut") + " >/dev/null 2>&1";
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  const auto metrics = bench.path("cut/metrics.jsonl");
  for (int i = 0; i < 3000 && read_bytes(metrics).find("\"step\"") == std::string::npos; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_NE(bench.read("cut/report.html").find("</html>"), std::string::npos);

  ASSERT_EQ(bench.run(job + " --resume", "cut"), 0) << bench.output();
  for (const std::string layer : {"lstm", "ttt-linear"})
    EXPECT_TRUE(bench.read("cut/" + layer + "-64/model.safetensors") ==
                bench.read("whole/" + layer + "-64/model.safetensors"))
        << layer;
  EXPECT_EQ(rows_of(bench.read("cut/curves.csv")).size(),
            rows_of(bench.read("whole/curves.csv")).size());
}

TEST(PerplexityProgramTest, ResumeKeepsResultsUntilTheyAreThereAgain) {
  const Bench bench;
  const std::string job = "--steps 4 --no-latency --test-bytes 640 --layers ";
  ASSERT_EQ(bench.run(job + "lstm,attention", "out"), 0) << bench.output();
  const std::string results = bench.read("out/results.csv");
  write_bytes(bench.path("out/attention-64/training.safetensors"), "damaged");
  EXPECT_EQ(bench.run(job + "lstm,attention --resume", "out"), 1);
  EXPECT_EQ(bench.read("out/results.csv"), results);
  ASSERT_EQ(bench.run(job + "lstm --resume", "out"), 0) << bench.output();
  EXPECT_EQ(rows_of(bench.read("out/results.csv")).size(), rows_of(results).size() - 1);
}

/// Largest resident memory, in bytes, of a run of the program, which must succeed.
std::int64_t peak_memory(const Bench& bench, const std::string& options, const std::string& out) {
  const std::string sizes =
      " --width 64 --depth 2 --heads 2 --context 256 --batch-tokens 16384 --threads 1";
  const std::string line = "exec " + bench.command(options, out, sizes) + " >/dev/null 2>&1";
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << options;
  return usage.ru_maxrss * std::int64_t{1024};
}

TEST(PerplexityProgramTest, MemoryStaysBelowItsLimit) {
  const Bench bench;
  EXPECT_EQ(bench.run("--layers lstm --steps 2 --no-latency --memory 1MB", "out"), 1);
  EXPECT_NE(bench.output().find("--memory is "), std::string::npos) << bench.output();

  const std::string job = "--layers ttt-mlp,mamba --steps 2 --no-latency";
  constexpr std::int64_t limit = 120 << 20;
  EXPECT_GT(peak_memory(bench, job, "free"), 2 * limit);
  EXPECT_LE(peak_memory(bench, job + " --memory 120MB", "limited"), limit);
}

TEST(PerplexityProgramTest, AStudyTriesTheSameNumberOfRatesForEachLayer) {
  const Bench bench;
  ASSERT_EQ(bench.run("--layers lstm,attention --steps 3 --study learning-rate", "out"), 0)
      << bench.output();
  std::map<std::string, int> trials, chosen;
  for (const auto& row : rows_of(bench.read("out/study.csv"))) {
    ++trials[row.at("layer")];
    chosen[row.at("layer")] += row.at("chosen") == "1";
  }
  EXPECT_GE(trials["lstm"], 3);
  EXPECT_EQ(trials["lstm"], trials["attention"]);
  EXPECT_EQ(chosen["lstm"], 1);
  EXPECT_EQ(chosen["attention"], 1);
}

TEST(PerplexityProgramTest, BadCommandLinesEndWithTwo) {
  const Bench bench;
  EXPECT_EQ(bench.run("--layers poem", "out"), 2);
  EXPECT_EQ(bench.run("--study everything", "out"), 2);
  EXPECT_EQ(bench.run("--memory much", "out"), 2);
  EXPECT_EQ(bench.run("--minutes 1 --steps 2", "out"), 2);
  EXPECT_FALSE(std::filesystem::exists(bench.path("out")));
}

}  // namespace
}  // namespace ttt::examples
