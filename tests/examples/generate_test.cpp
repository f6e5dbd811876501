// The program `generate` from outside: the same bytes for the same seed, states that go on where
// they were saved, and the score of a text.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <numbers>
#include <regex>

#include "perplexity/models.hpp"
#include "support/temporary_folder.hpp"

namespace ttt::examples {
namespace {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

constexpr const char* line = "It is a truth universally acknowledged, that a single man ";

/// A checkpoint that nothing was taught, and the program run on it.
class Generate {
 public:
  Generate() : model_(model_config(layer_kind("ttt-linear"), tiny()), Random(7)) {
    std::filesystem::create_directory(folder_ / "model");
    save_checkpoint(folder_ / "model", model_);
    write_bytes(folder_ / "text", line);
  }

  /// Returns the exit code.
  int run(const std::string& options, const std::string& checkpoint = "model") const {
    const std::string command = std::string(TTT_GENERATE_PROGRAM) + " --threads 1 --checkpoint " +
                                path(checkpoint) + " " + options + " >" + path("output") + " 2>" +
                                path("errors");
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string written(const std::string& options) const {
    EXPECT_EQ(run(options), 0) << errors();
    return output();
  }
  double score(const std::string& options) const {
    const std::string text = written("--score " + path("text") + " " + options);
    std::smatch match;
    EXPECT_TRUE(std::regex_match(text, match, std::regex("(.*) bits per byte over \\d+ bytes\n")))
        << text;
    return match.empty() ? 0 : std::stod(match[1]);
  }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string output() const { return read_bytes(folder_ / "output"); }
  std::string errors() const { return read_bytes(folder_ / "errors"); }
  const Model& model() const { return model_; }

 private:
  static Options tiny() {
    Options options;
    options.width = 16;
    options.depth = 2;
    options.heads = 2;
    return options;
  }

  TemporaryFolder folder_;
  Model model_;
};

TEST(GenerateTest, TheSeedDecidesTheBytes) {
  const Generate generate;
  const std::string once = generate.written("--prompt 'To be' --bytes 60 --seed 3");
  EXPECT_EQ(once.size(), 60u);
  EXPECT_EQ(generate.written("--prompt 'To be' --bytes 60 --seed 3"), once);
  EXPECT_NE(generate.written("--prompt 'To be' --bytes 60 --seed 4"), once);
}

TEST(GenerateTest, GoesOnFromASavedState) {
  const Generate generate;
  const std::string whole = generate.written("--prompt 'To be' --bytes 60 --seed 3");
  const std::string state = generate.path("state");
  const std::string first =
      generate.written("--prompt 'To be' --bytes 25 --seed 3 --save-state " + state);
  EXPECT_EQ(first + generate.written("--load-state " + state + " --bytes 35"), whole);
  // A state belongs to the weights that made it.
  EXPECT_EQ(generate.run("--load-state " + state + " --bytes 1 --weights int8"), 1);
  EXPECT_NE(generate.errors().find("state"), std::string::npos) << generate.errors();
}

TEST(GenerateTest, ScoresAText) {
  const Generate generate;
  std::vector<std::int32_t> ids;
  for (const char* c = line; *c; ++c) ids.push_back(static_cast<unsigned char>(*c));
  const Model& model = generate.model();
  const auto bits = [&](std::size_t first) {
    auto state = model.initial_state();
    auto workspace = model.workspace(1);
    double nats = 0;
    Vector<float> logits(model.vocabulary());
    for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
      model.step(ids[t], state, logits, workspace);
      const Vector<double> l = logits.cast<double>();
      if (t + 1 >= first) nats += std::log((l.array() - l[ids[t + 1]]).exp().sum());
    }
    return nats / std::numbers::ln2 / static_cast<double>(ids.size() - first);
  };
  EXPECT_NEAR(generate.score(""), bits(1), 1e-5);
  const double packed = generate.score("--weights int8");
  EXPECT_NEAR(packed, bits(1), 0.1);
  EXPECT_NE(packed, generate.score("--weights bf16"));
  // What was read before counts as read, and not in the mean.
  write_bytes(generate.path("text"), line + 2);
  EXPECT_NEAR(generate.score("--prompt It"), bits(2), 1e-5);
}

TEST(GenerateTest, SaysWhatIsWrong) {
  const Generate generate;
  EXPECT_EQ(generate.run("--prompt x", "nothing"), 1);
  EXPECT_NE(generate.errors().find("nothing"), std::string::npos) << generate.errors();
  EXPECT_EQ(generate.run(""), 2);
  EXPECT_EQ(generate.run("--prompt x --weights int3"), 2);
  EXPECT_EQ(generate.run("--prompt x --temperature -1"), 2);
  EXPECT_EQ(generate.run("--score " + generate.path("absent")), 1);
  EXPECT_NE(generate.errors().find("absent"), std::string::npos) << generate.errors();
  for (const char* name : {"a.txt", "b.txt"}) write_bytes(generate.path(name), name);
  EXPECT_EQ(generate.run("--score " + generate.path(".")), 1);
  EXPECT_NE(generate.errors().find("2 texts, expected one file"), std::string::npos)
      << generate.errors();
  write_bytes(generate.path("text"), "x");
  EXPECT_EQ(generate.run("--score " + generate.path("text")), 1);
}

}  // namespace
}  // namespace ttt::examples
