#include "support/text.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>

namespace ttt::examples {
namespace {

namespace fs = std::filesystem;

/// A folder of its own for each test, removed afterwards.
class Texts : public ::testing::Test {
 protected:
  Texts() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(::testing::TempDir()) / ("ttt_texts_" + std::string(test->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Texts() override { fs::remove_all(folder_); }

  /// A text of `size` bytes that differs from those of other names.
  fs::path write(const std::string& name, std::size_t size) const {
    std::string bytes;
    while (bytes.size() < size) bytes += name + std::to_string(bytes.size()) + ' ';
    bytes.resize(size);
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }

  static std::string error_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path folder_;
};

std::set<std::string> names(const std::vector<Document>& documents) {
  std::set<std::string> result;
  for (const Document& document : documents)
    result.insert(fs::path(document.name).filename().string());
  return result;
}

TEST_F(Texts, OneFileIsCutContiguously) {
  const fs::path file = write("one.txt", 10000);
  const TextParts parts = read_text({{file}, {}, {}, 100});
  ASSERT_EQ(parts.train.size(), 1u);
  EXPECT_EQ(parts.train[0].bytes.size(), 9000u);
  EXPECT_EQ(parts.validation.at(0).bytes.size(), 500u);
  EXPECT_EQ(parts.test.at(0).bytes.size(), 500u);
  const std::string joined = parts.train[0].bytes + parts.validation[0].bytes + parts.test[0].bytes;
  EXPECT_EQ(joined, read_documents({file})[0].bytes);
}

TEST_F(Texts, SeveralFilesAreDividedWhole) {
  std::set<std::string> all;
  for (int i = 0; i < 40; ++i) {
    const std::string name = "text" + std::to_string(i) + ".txt";
    write(name, 1000 + static_cast<std::size_t>(i * 37 % 11) * 100);
    all.insert(name);
  }
  const TextParts parts = read_text({{folder_}, {}, {}, 100});
  const double total = static_cast<double>(total_bytes(parts.train) +
                                           total_bytes(parts.validation) + total_bytes(parts.test));
  EXPECT_NEAR(static_cast<double>(total_bytes(parts.test)) / total, 0.05, 0.01);
  EXPECT_NEAR(static_cast<double>(total_bytes(parts.validation)) / total, 0.05, 0.01);

  std::set<std::string> seen = names(parts.train);
  for (const auto* part : {&parts.validation, &parts.test}) {
    for (const std::string& name : names(*part))
      EXPECT_TRUE(seen.insert(name).second) << name << " is in two parts";
  }
  EXPECT_EQ(seen, all);
  EXPECT_EQ(names(read_text({{folder_}, {}, {}, 100}).test), names(parts.test));
}

TEST_F(Texts, EveryPartHasAFileWhereThereAreThree) {
  write("a.txt", 5000);
  write("b.txt", 5000);
  write("c.txt", 5000);
  const TextParts parts = read_text({{folder_}, {}, {}, 10});
  EXPECT_EQ(parts.train.size(), 1u);
  EXPECT_EQ(parts.validation.size(), 1u);
  EXPECT_EQ(parts.test.size(), 1u);
}

TEST_F(Texts, OfTwoFilesTheSmallerIsTheTest) {
  write("large.txt", 10000);
  write("small.txt", 800);
  const TextParts parts = read_text({{folder_}, {}, {}, 10});
  EXPECT_EQ(names(parts.test), std::set<std::string>{"small.txt"});
  EXPECT_EQ(total_bytes(parts.validation), 500);
  EXPECT_EQ(total_bytes(parts.train), 9500);
}

TEST_F(Texts, NamedTextsWinAndAreNotTrainedOn) {
  for (const char* name : {"a.txt", "b.txt", "c.txt", "d.txt"}) write(name, 2000);
  const TextParts parts =
      read_text({{folder_}, {folder_ / "a.txt"}, {folder_ / "b.txt", folder_ / "c.txt"}, 10});
  EXPECT_EQ(names(parts.train), std::set<std::string>{"d.txt"});
  EXPECT_EQ(names(parts.validation), std::set<std::string>{"a.txt"});
  EXPECT_EQ(names(parts.test), (std::set<std::string>{"b.txt", "c.txt"}));

  const TextParts test_only = read_text({{folder_ / "d.txt"}, {}, {folder_ / "a.txt"}, 10});
  EXPECT_EQ(total_bytes(test_only.train), 1900);
  EXPECT_EQ(total_bytes(test_only.validation), 100);
  EXPECT_EQ(total_bytes(test_only.test), 2000);
}

TEST_F(Texts, ACopyIsNotReadTwice) {
  const fs::path file = write("a.txt", 1000);
  fs::copy_file(file, folder_ / "copy.txt");
  EXPECT_EQ(read_documents({folder_, file}).size(), 1u);
}

TEST_F(Texts, AFolderMeansItsTextsSorted) {
  write("b.txt", 10);
  write("a.txt", 10);
  write("notes.md", 10);
  const std::vector<Document> documents = read_documents({folder_});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].name, (folder_ / "a.txt").string());
  EXPECT_EQ(documents[1].name, (folder_ / "b.txt").string());
}

TEST_F(Texts, ErrorsSayWhatIsWrong) {
  const std::string folder = folder_.string();
  EXPECT_EQ(error_of([&] { read_documents({folder_}); }),
            "the folder '" + folder + "' has no *.txt file");
  EXPECT_EQ(error_of([&] { read_documents({folder_ / "no.txt"}); }),
            "cannot read the text '" + folder + "/no.txt': No such file or directory");
  const fs::path empty = write("empty.txt", 0);
  EXPECT_EQ(error_of([&] { read_documents({empty}); }),
            "the text '" + folder + "/empty.txt' is empty");
  EXPECT_EQ(error_of([&] { read_text({}); }),
            "no text is given: name a file or a folder of *.txt files");
  const fs::path file = write("a.txt", 1000);
  EXPECT_EQ(error_of([&] {
              read_text({{file}, {}, {}, 50});
            }),
            "the longest validation text has 50 bytes, but a context of 50 needs 51: give a longer "
            "text or a shorter context");
  EXPECT_EQ(error_of([&] { read_text({{file}, {}, {}, 49}); }), "no error");
  EXPECT_EQ(error_of([&] {
              read_text({{file}, {file}, {file}, 10});
            }),
            "the text '" + folder + "/a.txt' is named for both validation and test");
  EXPECT_EQ(error_of([&] {
              read_text({{file}, {}, {file}, 10});
            }),
            "no text is left for training: give more text, or name texts for each part");
}

}  // namespace
}  // namespace ttt::examples
