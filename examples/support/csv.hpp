/// @file
/// Tables as RFC 4180 CSV: cells with a comma, quote or line break are quoted, quotes doubled.
/// Lines end in "\n", which spreadsheets and line-oriented tools both read. Numbers are the
/// shortest text that reads back to the same value; a value that does not exist is an empty cell.
#pragma once

#include <cerrno>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/core/check.hpp"

namespace ttt::examples {

inline std::string csv_cell(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

template <class Number>
requires std::integral<Number> || std::floating_point<Number> std::string csv_cell(Number value) {
  if constexpr (std::floating_point<Number>) {
    if (std::isnan(value)) return "";
  }
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

/// Writes `contents` beside `path` and renames it into place: a reader, or a program that is
/// killed, sees the old file or the new one, never half of it.
/// Throws `std::runtime_error` in one sentence that names the file and the reason.
inline void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  std::filesystem::path beside = path;
  beside += ".partial";
  errno = 0;
  std::ofstream file(beside, std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  file.close();
  std::error_code error;
  if (!file) {
    const std::string reason = errno != 0 ? std::strerror(errno) : "the write failed";
    std::filesystem::remove(beside, error);
    raise<std::runtime_error>(concat("cannot write '", path.string(), "': ", reason));
  }
  std::filesystem::rename(beside, path, error);
  if (error) {
    const std::string reason = error.message();
    std::filesystem::remove(beside, error);
    raise<std::runtime_error>(concat("cannot write '", path.string(), "': ", reason));
  }
}

/// A table with a fixed header: every row has as many cells as the header.
class CsvTable {
 public:
  explicit CsvTable(const std::vector<std::string_view>& header) : columns_(header.size()) {
    for (std::size_t i = 0; i < header.size(); ++i)
      text_ += (i > 0 ? "," : "") + csv_cell(header[i]);
    text_ += '\n';
  }

  /// Adds one row: strings and numbers. Throws `std::invalid_argument` on a wrong count of cells.
  template <class... Cells>
  void add(const Cells&... cells) {
    require(sizeof...(cells) == columns_, "CsvTable.add: ", sizeof...(cells), " cells, expected ",
            columns_);
    const char* separator = "";
    ((text_ += separator + csv_cell(cells), separator = ","), ...);
    text_ += '\n';
  }

  const std::string& text() const { return text_; }

  void write(const std::filesystem::path& path) const { write_file_atomically(path, text_); }

 private:
  std::size_t columns_;
  std::string text_;
};

}  // namespace ttt::examples
