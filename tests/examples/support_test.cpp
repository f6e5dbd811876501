#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "support/format.hpp"
#include "support/html.hpp"
#include "support/machine.hpp"
#include "support/progress.hpp"

namespace ttt::examples {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST(Format, NumbersForPeople) {
  EXPECT_EQ(fixed(2.34567, 3), "2.346");
  EXPECT_EQ(fixed(nan, 3), "-");
  EXPECT_EQ(brief(0.00200), "0.002");
  EXPECT_EQ(compact(999), "999");
  EXPECT_EQ(compact(999.7), "1k");
  EXPECT_EQ(compact(1234567), "1.23M");
  EXPECT_EQ(compact(1.3e13), "13T");
  EXPECT_EQ(byte_size(512), "512 B");
  EXPECT_EQ(byte_size(98304), "98.3 kB");
  EXPECT_EQ(byte_size(4512345), "4.51 MB");
  EXPECT_EQ(byte_size(nan), "-");
}

TEST(Format, Durations) {
  EXPECT_EQ(duration(0.25), "250 ms");
  EXPECT_EQ(duration(42), "42 s");
  EXPECT_EQ(duration(59.7), "1 min 00 s");
  EXPECT_EQ(duration(200), "3 min 20 s");
  EXPECT_EQ(duration(7500), "2 h 05 min");
  EXPECT_EQ(duration(nan), "-");
}

TEST(Format, PaddingCountsCharactersNotBytes) {
  EXPECT_EQ(pad_left("±", 3), "  ±");
  EXPECT_EQ(pad_right("±", 3), "±  ");
  EXPECT_EQ(pad_left("longer", 3), "longer");
}

TEST(Html, EscapesWhatHasAMeaning) {
  EXPECT_EQ(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  EXPECT_EQ(escape("naïve — 你好 😀\n\t"), "naïve — 你好 😀\n\t");
}

TEST(Html, BytesThatAreNotTextBecomeReplacements) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(escape("a\xFFz"), "a" + r + "z");
  EXPECT_EQ(escape(std::string("\0", 1)), r);
  EXPECT_EQ(escape("\x1b[0m"), r + "[0m");
  EXPECT_EQ(escape("\xC3"), r);                          // cut off
  EXPECT_EQ(escape("\xC3<"), r + "&lt;");                // a broken character swallows nothing
  EXPECT_EQ(escape("\xC0\xBC"), r + r);                  // an overlong "<"
  EXPECT_EQ(escape("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(escape("\xF4\x90\x80\x80"), r + r + r + r);  // beyond Unicode
}

TEST(Html, TableEscapesItsCells) {
  const std::string table = html_table({"name", "n"}, {{"<x>", "1"}});
  EXPECT_NE(table.find("<th class=\"text\">name</th><th>n</th>"), std::string::npos);
  EXPECT_NE(table.find("<td class=\"text\">&lt;x&gt;</td><td>1</td>"), std::string::npos);
}

TEST(Machine, QuotesTheCommandForAShell) {
  EXPECT_EQ(shell_quote("--text=a/b.txt"), "--text=a/b.txt");
  EXPECT_EQ(shell_quote("two words"), "'two words'");
  EXPECT_EQ(shell_quote("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_quote(""), "''");
  EXPECT_EQ(shell_quote("$HOME"), "'$HOME'");
  const char* words[] = {"perplexity", "--text", "a b"};
  EXPECT_EQ(command_line(3, words), "perplexity --text 'a b'");
}

TEST(Machine, NamesProcessorAndEigen) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "ttt_cpuinfo";
  std::ofstream(path) << "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nmodel name\t: other\n";
  EXPECT_EQ(cpu_name(path.string()), "Some CPU @ 2.0GHz");
  std::filesystem::remove(path);
  EXPECT_EQ(cpu_name("/no/such/file"), "unknown");

  const std::string eigen = eigen_version();
  EXPECT_EQ(std::count(eigen.begin(), eigen.end(), '.'), 2);
  EXPECT_EQ(std::stoi(eigen) >= 5, EIGEN_VERSION_AT_LEAST(5, 0, 0)) << eigen;
  EXPECT_GE(std::stoi(eigen), 3);
}

TEST(Machine, FactsAreComplete) {
  const char* words[] = {"perplexity"};
  for (const auto& [name, value] : machine_facts(this_machine(2, 1, words)))
    EXPECT_FALSE(value.empty()) << name;
}

/// A progress line with a clock that the test moves.
struct ProgressTest : ::testing::Test {
  Progress::Options options(bool terminal) {
    return {"layer", 100, 0, terminal, 80, [this] { return now; }};
  }
  double now = 5;
  std::ostringstream out;
};

TEST_F(ProgressTest, SaysHowFastAndHowLong) {
  Progress progress(out, options(false));
  now += 20;
  progress.update(10, 40000, std::log(2.0) * 2.5);
  EXPECT_EQ(out.str(), "layer  10/100  2.500 bits/byte  2k tokens/s  20 s, 3 min 00 s left\n");
}

TEST_F(ProgressTest, AResumedRunCountsOnlyItsOwnSteps) {
  Progress::Options resumed = options(false);
  resumed.first_step = 50;
  Progress progress(out, resumed);
  now += 10;
  progress.update(60, 1000, nan);
  EXPECT_EQ(out.str(), "layer  60/100  100 tokens/s  10 s, 40 s left\n");
}

TEST_F(ProgressTest, ALogGetsALineEveryTenSecondsAndTheLastOne) {
  Progress progress(out, options(false));
  for (int step = 1; step <= 100; ++step) {
    now += 0.25;
    progress.update(step, step, 1);
  }
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;  // at 0.25, 10.25, 20.25, 25 s
  EXPECT_NE(text.find("100/100"), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST_F(ProgressTest, ATerminalHasOneLineThatFits) {
  {
    Progress::Options narrow = options(true);
    narrow.columns = 30;
    Progress progress(out, narrow);
    for (int step = 1; step <= 10; ++step) {
      now += 1;
      progress.update(step, step, 1);
    }
    const std::string text = out.str();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 10);
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
    const std::size_t last = text.rfind('\r');
    EXPECT_LE(text.find("\x1b[K", last) - last - 1, 29u);
  }
  EXPECT_EQ(out.str().back(), '\n');
}

}  // namespace
}  // namespace ttt::examples
