#include "perplexity/results.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "support/csv.hpp"
#include "support/format.hpp"

namespace ttt::examples {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

fs::path scratch(const std::string& name) {
  return fs::path(::testing::TempDir()) / ("ttt_results_" + name);
}

ResultRow example_row() {
  return {"ttt-linear", "mamba", 1024, 3, 0.002, 1234567, 50000, 12.5, 1e12, 98304, 1.5, 0.01};
}

TEST(Csv, QuotesWhatNeedsQuotes) {
  EXPECT_EQ(csv_cell("plain text"), "plain text");
  EXPECT_EQ(csv_cell("a,b"), "\"a,b\"");
  EXPECT_EQ(csv_cell("say \"no\""), "\"say \"\"no\"\"\"");
  EXPECT_EQ(csv_cell("two\nlines"), "\"two\nlines\"");
  EXPECT_EQ(csv_cell(""), "");
}

TEST(Csv, NumbersReadBackExactly) {
  for (const double value : {0.1, 1.0 / 3, 1e300, -2.5e-300, 12345678901234567.0})
    EXPECT_EQ(std::stod(csv_cell(value)), value);
  EXPECT_EQ(csv_cell(0.002), "0.002");
  EXPECT_EQ(csv_cell(std::int64_t{-7}), "-7");
  EXPECT_EQ(csv_cell(not_known), "");
}

TEST(Csv, RowsAreAsLongAsTheHeader) {
  CsvTable table({"a", "b"});
  table.add(1, "x");
  EXPECT_EQ(table.text(), "a,b\n1,x\n");
  EXPECT_THROW(table.add(1), std::invalid_argument);
  EXPECT_THROW(table.add(1, 2, 3), std::invalid_argument);
}

TEST(Csv, ReplacesAtomicallyAndLeavesNothingBeside) {
  const fs::path path = scratch("replace.csv");
  write_file_atomically(path, "old");
  write_file_atomically(path, "new");
  EXPECT_EQ(contents(path), "new");
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
  fs::remove(path);
}

TEST(Csv, FailureIsOneSentenceAndKeepsTheOldFile) {
  try {
    write_file_atomically("/no/such/folder/x.csv", "text");
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "cannot write '/no/such/folder/x.csv': No such file or directory");
  }
  const fs::path folder = scratch("folder");
  fs::create_directories(folder / "inside");
  EXPECT_THROW(write_file_atomically(folder, "text"), std::runtime_error);
  EXPECT_TRUE(fs::exists(folder / "inside"));
  EXPECT_FALSE(fs::exists(folder.string() + ".partial"));
  fs::remove_all(folder);
}

TEST(Results, ColumnsAreTheContract) {
  const fs::path path = scratch("columns.csv");
  ResultRow count;
  count.layer = "count-2";
  count.backbone = "none";
  write_results(path, {example_row(), count});
  std::istringstream lines(contents(path));
  std::string header, first, second, rest;
  std::getline(lines, header);
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(header,
            "layer,backbone,train_context,seed,learning_rate,parameters,train_tokens,train_seconds,"
            "train_flops,state_bytes,nats_per_byte,stderr,bits_per_byte,perplexity_per_byte");
  EXPECT_EQ(first.substr(0, 74),
            "ttt-linear,mamba,1024,3,0.002,1234567,50000,12.5,1e+12,98304,1.5,0.01,2.16");
  EXPECT_EQ(second, "count-2,none,0,0,,0,0,,,0,,,,");
  EXPECT_FALSE(std::getline(lines, rest));

  write_positions(path, {{"lstm", 256, 1, 16, 32, 1.25, 0.5, 900}});
  EXPECT_EQ(contents(path),
            "layer,train_context,seed,position_begin,position_end,nats_per_byte,stderr,count\n"
            "lstm,256,1,16,32,1.25,0.5,900\n");
  write_frozen(path, {{"ttt-mlp", 256, 1, 0.5, 16, 32, 1.25, 0.5}});
  EXPECT_EQ(contents(path),
            "layer,train_context,seed,inner_rate_scale,position_begin,position_end,nats_per_byte,"
            "stderr\nttt-mlp,256,1,0.5,16,32,1.25,0.5\n");
  write_latency(path, {{"lstm", 256, 2, 1000, 0.001, 64}});
  EXPECT_EQ(contents(path),
            "layer,context,batch,prefill_tokens_per_second,decode_seconds_per_token,state_bytes\n"
            "lstm,256,2,1000,0.001,64\n");
  write_curves(path, {{"lstm", 256, 1, 10, 81920, 2.5, 64, 1.5, 0.25, 0.75}});
  EXPECT_EQ(contents(path),
            "layer,train_context,seed,step,tokens,seconds,flops,nats_per_byte,learning_rate,"
            "gradient_norm\nlstm,256,1,10,81920,2.5,64,1.5,0.25,0.75\n");
  write_comparison(path, {{"lstm", 256, "seconds", 12.5, 0.5, 1.5, 0.25}});
  EXPECT_EQ(contents(path),
            "layer,train_context,equality,budget,share_of_training,nats_per_byte,stderr\n"
            "lstm,256,seconds,12.5,0.5,1.5,0.25\n");
  write_inner_losses(path, {{"ttt-mlp", 256, 1, 2, 16, 32, 0.5, 0.25, 0.125, 0.0625}});
  EXPECT_EQ(contents(path),
            "layer,train_context,block,head,position_begin,position_end,initial,mini_batch_start,"
            "before,after\nttt-mlp,256,1,2,16,32,0.5,0.25,0.125,0.0625\n");
  fs::remove(path);
}

TEST(Results, UnitsFollowFromNats) {
  ResultRow row;
  row.nats_per_byte = std::log(8.0);
  EXPECT_DOUBLE_EQ(row.bits_per_byte(), 3);
  EXPECT_DOUBLE_EQ(row.perplexity_per_byte(), 8);
  EXPECT_TRUE(is_count_layer("count-3"));
  EXPECT_FALSE(is_count_layer("ttt-linear"));
}

TEST(Results, TheConsoleTableAppearsRowByRow) {
  std::ostringstream out;
  ResultPrinter printer(out);
  printer.print(example_row());
  const std::string first = out.str();
  EXPECT_NE(first.find("2.1640 ± 0.0144"), std::string::npos) << first;
  EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 2);  // header and row
  ResultRow count;
  count.layer = "count-4";
  count.nats_per_byte = 1.6;
  printer.print(count);
  EXPECT_EQ(out.str().substr(0, first.size()), first);

  std::istringstream lines(out.str());
  std::set<std::size_t> widths;
  for (std::string line; std::getline(lines, line);) widths.insert(display_width(line));
  EXPECT_EQ(widths.size(), 1u) << "lines are not aligned:\n" << out.str();
}

}  // namespace
}  // namespace ttt::examples
