/// @file
/// Files (POSIX): one that is read at any offset, by any number of threads, and one that is written
/// beside its place and moved there when it is complete, so that a reader, a full disk or a power
/// cut meets either the old file or the new one, never a part.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "ttt/core/check.hpp"

namespace ttt {

namespace detail {

/// Throws `std::runtime_error`: "cannot <verb> <path>: <reason>".
[[noreturn]] inline void raise_file_error(const char* verb, const std::filesystem::path& path,
                                          int error) {
  raise<std::runtime_error>(
      concat("cannot ", verb, " ", path.string(), ": ", std::generic_category().message(error)));
}

}  // namespace detail

/// A regular file open for reading. Stays readable when another file takes its name.
class InputFile {
 public:
  /// Throws `std::runtime_error` where `path` cannot be opened or is no regular file.
  explicit InputFile(const std::filesystem::path& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor_ < 0) detail::raise_file_error("read", path_, errno);
    struct stat status {};
    const bool known = ::fstat(descriptor_, &status) == 0;
    if (!known || !S_ISREG(status.st_mode)) {
      ::close(descriptor_);
      raise<std::runtime_error>(concat("cannot read ", path_.string(), ": not a regular file"));
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() { ::close(descriptor_); }

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  /// Fills `bytes` from `offset` on; throws `std::runtime_error` where the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t count =
          ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::raise_file_error("read", path_, errno);
      if (count == 0)
        raise<std::runtime_error>(path_.string() + " became shorter while being read");
      offset += static_cast<std::uint64_t>(count);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

/// Writes to a temporary file in the directory of `path`; `commit` flushes it to the disk and gives
/// it its name. Without `commit`, or when that fails, what stood at `path` stays and the temporary
/// file is removed. Every function throws `std::runtime_error` where the system refuses.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path) : path_(path) {
    std::error_code ignored;
    const auto status = std::filesystem::status(path_, ignored);
    // Renaming over a device or a pipe would replace it for everyone.
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
      raise<std::runtime_error>(concat("cannot write ", path_.string(), ": not a regular file"));
    static std::atomic<unsigned> counter = 0;
    temporary_ = path_;
    temporary_ += concat(".", ::getpid(), "-", counter++, ".partial");
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) detail::raise_file_error("write", path_, errno);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::raise_file_error("write", path_, errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  void commit() {
    if (::fsync(descriptor_) != 0) detail::raise_file_error("write", path_, errno);
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0) detail::raise_file_error("write", path_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      detail::raise_file_error("write", path_, errno);
    temporary_.clear();
    flush_directory();
  }

 private:
  /// A new name is on the disk only when its directory is. File systems that cannot do that lose
  /// at most the new file to a power cut, so a refusal is no error.
  void flush_directory() const {
    const auto directory = path_.has_parent_path() ? path_.parent_path() : ".";
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
  }

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

/// Replaces the file at `path` by one that holds `text`, in one step.
inline void write_text_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace ttt
