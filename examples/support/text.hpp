/// @file
/// Texts from files and folders, and their division into training, validation and test.
/// One file is cut contiguously 90/5/5. Several files are divided by whole files, so that no work
/// is read in training and tested at once. Texts named for validation or test are never trained on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::examples {

struct Document {
  std::string name;  // the file's path as given; with a byte range where a file is cut
  std::string bytes;
};

struct TextParts {
  std::vector<Document> train, validation, test;
};

struct TextOptions {
  std::vector<std::filesystem::path> text;             // files, or folders: their *.txt
  std::vector<std::filesystem::path> validation_text;  // empty: taken from `text`
  std::vector<std::filesystem::path> test_text;        // empty: taken from `text`
  std::int64_t longest_context = 1;  // bytes; a window holds one more, the last target
};

/// Reads files, and for a folder its `*.txt` in the order of their names. A document with the
/// same bytes as an earlier one is left out.
/// Throws `std::runtime_error` for a missing, unreadable or empty file and a folder without texts.
std::vector<Document> read_documents(const std::vector<std::filesystem::path>& paths);

/// Divides `documents` where validation and test are not given:
/// - three or more: whole files, for each held-out part those whose bytes come nearest to 5 %;
/// - two: the smaller one is the test text, the last 5 % of the other one the validation text;
/// - one: its first 90 %, next 5 % and last 5 %.
/// `parts` brings the parts that are given already and takes the others; documents equal to a
/// given one are not trained on.
void split_documents(std::vector<Document> documents, TextParts& parts);

/// Reads and divides. Throws `std::invalid_argument` where there is no text, and where a part has
/// no document of at least `longest_context + 1` bytes.
TextParts read_text(const TextOptions& options);

/// The bytes of each document, which must outlive the views.
std::vector<std::string_view> views_of(const std::vector<Document>& documents);

/// What a model of bytes reads: each byte is a token.
std::vector<std::int32_t> tokens_of(std::string_view bytes);

/// Bytes in all documents of a part.
std::int64_t total_bytes(const std::vector<Document>& documents);

}  // namespace ttt::examples
