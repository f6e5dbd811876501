#include "support/text.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "ttt/core/check.hpp"

namespace ttt::examples {

namespace fs = std::filesystem;

namespace {

constexpr double held_out_fraction = 0.05;

Document read_document(const fs::path& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream contents;
  if (file && file.peek() != std::ifstream::traits_type::eof()) contents << file.rdbuf();
  if (!file.is_open() || file.bad() || contents.bad()) {
    const char* reason = errno != 0 ? std::strerror(errno) : "reading failed";
    raise<std::runtime_error>(concat("cannot read the text '", path.string(), "': ", reason));
  }
  Document document{path.string(), std::move(contents).str()};
  if (document.bytes.empty())
    raise<std::runtime_error>(concat("the text '", path.string(), "' is empty"));
  return document;
}

std::vector<fs::path> texts_in_folder(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".txt" && entry->is_regular_file())
      files.push_back(entry->path());
  }
  if (error)
    raise<std::runtime_error>(
        concat("cannot read the folder '", folder.string(), "': ", error.message()));
  if (files.empty())
    raise<std::runtime_error>(concat("the folder '", folder.string(), "' has no *.txt file"));
  std::sort(files.begin(), files.end());
  return files;
}

bool contains(const std::vector<Document>& documents, const Document& document) {
  return std::any_of(documents.begin(), documents.end(),
                     [&](const Document& other) { return other.bytes == document.bytes; });
}

Document piece(const Document& whole, std::size_t begin, std::size_t end) {
  return {concat(whole.name, " [", begin, ", ", end, ")"), whole.bytes.substr(begin, end - begin)};
}

/// Moves whole documents to `part`, each time the one that brings its bytes nearest to `target`,
/// until none brings them nearer; at least one, and at least `leave` documents stay.
void take_nearest(std::vector<Document>& documents, std::size_t leave, double target,
                  std::vector<Document>& part) {
  double distance = target;
  while (documents.size() > leave) {
    const double taken = static_cast<double>(total_bytes(part));
    auto distance_with = [&](const Document& document) {
      return std::abs(taken + static_cast<double>(document.bytes.size()) - target);
    };
    const auto best = std::min_element(
        documents.begin(), documents.end(),
        [&](const Document& a, const Document& b) { return distance_with(a) < distance_with(b); });
    if (!part.empty() && distance_with(*best) >= distance) return;
    distance = distance_with(*best);
    part.push_back(std::move(*best));
    documents.erase(best);
  }
}

void require_window(const char* name, const std::vector<Document>& documents,
                    std::int64_t longest_context) {
  std::size_t longest = 0;
  for (const Document& document : documents) longest = std::max(longest, document.bytes.size());
  require(!documents.empty(), "no text is left for ", name,
          ": give more text, or name texts for each part");
  require(static_cast<std::int64_t>(longest) > longest_context, "the longest ", name, " text has ",
          longest, " bytes, but a context of ", longest_context, " needs ", longest_context + 1,
          ": give a longer text or a shorter context");
}

}  // namespace

std::vector<std::string_view> views_of(const std::vector<Document>& documents) {
  std::vector<std::string_view> views;
  for (const Document& document : documents) views.emplace_back(document.bytes);
  return views;
}

std::vector<std::int32_t> tokens_of(std::string_view bytes) {
  std::vector<std::int32_t> tokens;
  for (const char byte : bytes) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

std::int64_t total_bytes(const std::vector<Document>& documents) {
  std::int64_t total = 0;
  for (const Document& document : documents) total += std::ssize(document.bytes);
  return total;
}

std::vector<Document> read_documents(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (fs::is_directory(path, error)) {
      for (const fs::path& file : texts_in_folder(path)) files.push_back(file);
    } else {
      files.push_back(path);
    }
  }
  std::vector<Document> documents;
  for (const fs::path& file : files) {
    Document document = read_document(file);
    if (!contains(documents, document)) documents.push_back(std::move(document));
  }
  return documents;
}

void split_documents(std::vector<Document> documents, TextParts& parts) {
  std::erase_if(documents, [&](const Document& document) {
    return contains(parts.validation, document) || contains(parts.test, document);
  });
  std::vector<std::vector<Document>*> missing;
  if (parts.test.empty()) missing.push_back(&parts.test);
  if (parts.validation.empty()) missing.push_back(&parts.validation);

  const double target = held_out_fraction * static_cast<double>(total_bytes(documents));
  while (!missing.empty() && documents.size() >= 2) {
    // Each part that is still missing needs a document, and so does training; where there are
    // only two documents, the remaining part is cut from the training text below.
    const std::size_t leave = std::min(missing.size(), documents.size() - 1);
    take_nearest(documents, leave, documents.size() == 2 ? 0 : target, *missing.front());
    missing.erase(missing.begin());
  }
  if (!missing.empty() && documents.size() == 1) {
    const Document whole = std::move(documents.front());
    std::size_t end = whole.bytes.size();
    const auto share = static_cast<std::size_t>(held_out_fraction * static_cast<double>(end));
    for (auto* part : missing) {
      part->push_back(piece(whole, end - share, end));
      end -= share;
    }
    documents.front() = piece(whole, 0, end);
  }
  parts.train = std::move(documents);
}

TextParts read_text(const TextOptions& options) {
  require(!options.text.empty(), "no text is given: name a file or a folder of *.txt files");
  TextParts parts;
  parts.validation = read_documents(options.validation_text);
  parts.test = read_documents(options.test_text);
  for (const Document& document : parts.validation) {
    require(!contains(parts.test, document), "the text '", document.name,
            "' is named for both validation and test");
  }
  split_documents(read_documents(options.text), parts);
  require_window("training", parts.train, options.longest_context);
  require_window("validation", parts.validation, options.longest_context);
  require_window("test", parts.test, options.longest_context);
  return parts;
}

}  // namespace ttt::examples
