// A file is replaced as a whole or not at all. Tests may run as root, who may write everywhere, so
// a full disk is played by the limit on the size of files.
#include "ttt/io/file.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "support/temporary_folder.hpp"

namespace ttt {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

/// While it lives, files cannot grow beyond `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limited = old_;
    limited.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limited);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

TEST(AtomicFileTest, ReplacesAFileAndLeavesNothingBesideIt) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "first");
  write_text_file(folder / "text", "second, longer");
  EXPECT_EQ(read_bytes(folder / "text"), "second, longer");
  EXPECT_EQ(folder.size(), 1u);
}

TEST(AtomicFileTest, ShowsTheOldFileUntilItIsCommitted) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "old");
  AtomicFile file(folder / "text");
  file.write("new");
  EXPECT_EQ(read_bytes(folder / "text"), "old");
  EXPECT_EQ(folder.size(), 2u);
  file.commit();
  EXPECT_EQ(read_bytes(folder / "text"), "new");
  EXPECT_EQ(folder.size(), 1u);
}

TEST(AtomicFileTest, WithoutCommitChangesNothing) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "old");
  { AtomicFile(folder / "text").write("new"); }
  EXPECT_EQ(read_bytes(folder / "text"), "old");
  EXPECT_EQ(folder.size(), 1u);
}

TEST(AtomicFileTest, KeepsTheOldFileWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = message_of([&] { write_text_file(folder / "text", std::string(5000, 'x')); });
  }
  EXPECT_EQ(message, "cannot write " + (folder / "text").string() + ": File too large");
  EXPECT_EQ(read_bytes(folder / "text"), "old");
  EXPECT_EQ(folder.size(), 1u);
}

TEST(AtomicFileTest, SaysWhyItCannotWrite) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "old");
  const auto attempt = [](const std::filesystem::path& path) {
    return message_of([&] { write_text_file(path, "new"); });
  };
  EXPECT_EQ(attempt(folder / "text/below"),
            "cannot write " + (folder / "text/below").string() + ": Not a directory");
  EXPECT_EQ(attempt(folder / "absent/text"),
            "cannot write " + (folder / "absent/text").string() + ": No such file or directory");
  EXPECT_EQ(attempt(folder / "."),
            "cannot write " + (folder / ".").string() + ": not a regular file");
  EXPECT_EQ(attempt("/dev/null"), "cannot write /dev/null: not a regular file");
  EXPECT_EQ(read_bytes(folder / "text"), "old");
  EXPECT_EQ(folder.size(), 1u);
}

TEST(InputFileTest, ReadsAtAnyOffsetAndSaysWhyItCannot) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", "0123456789");
  const InputFile file(folder / "text");
  std::string part(3, ' ');
  file.read(4, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(part, "456");
  EXPECT_EQ(message_of([&] { file.read(8, std::as_writable_bytes(std::span(part))); }),
            (folder / "text").string() + " became shorter while being read");
  EXPECT_EQ(message_of([&] { InputFile(folder / "absent"); }),
            "cannot read " + (folder / "absent").string() + ": No such file or directory");
  EXPECT_EQ(message_of([&] { InputFile(folder / "."); }),
            "cannot read " + (folder / ".").string() + ": not a regular file");
}

TEST(InputFileTest, KeepsReadingTheFileItOpenedWhenAnotherTakesItsName) {
  const TemporaryFolder folder;
  write_text_file(folder / "text", "old");
  const InputFile file(folder / "text");
  write_text_file(folder / "text", "new");
  std::string bytes(3, ' ');
  file.read(0, std::as_writable_bytes(std::span(bytes)));
  EXPECT_EQ(bytes, "old");
}

}  // namespace
}  // namespace ttt
