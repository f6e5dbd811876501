/// @file
/// The header of a safetensors file,
///
///     {"__metadata__": {"key": "text"},
///      "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
///
/// read and checked as a whole: a header that passes describes row-major tensors that follow each
/// other without gaps and fill the data. Errors are `std::runtime_error`, one sentence that begins
/// with the file's path.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"

namespace ttt {

/// Text stored beside the tensors.
using Metadata = std::map<std::string, std::string>;

/// Longest header that a file may have, as in the format's own implementation.
inline constexpr std::uint64_t max_safetensors_header = 100'000'000;

/// Bytes of an element; 0 for a dtype that is unknown here.
inline Index dtype_size(std::string_view dtype) {
  for (const char* name : {"F64", "I64", "U64", "C64"})
    if (dtype == name) return 8;
  for (const char* name : {"F32", "I32", "U32"})
    if (dtype == name) return 4;
  for (const char* name : {"F16", "BF16", "I16", "U16"})
    if (dtype == name) return 2;
  for (const char* name : {"I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"})
    if (dtype == name) return 1;
  return 0;
}

/// "[2, 3]"
inline std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ']';
}

/// Elements of a tensor; nothing where a size is negative or the product does not fit an `Index`.
inline std::optional<Index> element_count(const std::vector<Index>& shape) {
  Index count = 1;
  for (const Index size : shape) {
    if (size < 0 || (count != 0 && size > std::numeric_limits<Index>::max() / count))
      return std::nullopt;
    count *= size;
  }
  return count;
}

/// Where a tensor stands, and as what.
struct SafetensorsEntry {
  std::string dtype;
  std::vector<Index> shape;  // row-major
  Index count = 0;           // elements
  Index begin = 0, end = 0;  // bytes, from the beginning of the data
};

struct SafetensorsHeader {
  Metadata metadata;
  std::map<std::string, SafetensorsEntry> entries;
};

namespace detail {

/// Reads one header; `data_size` bytes follow it in the file at `path`.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string path, Index data_size)
      : path_(std::move(path)), data_size_(data_size) {}

  SafetensorsHeader parse(const std::string& text) const {
    SafetensorsHeader header;
    const nlohmann::json root = parse_json(text);
    for (const auto& [name, value] : root.items()) {
      if (name == "__metadata__") {
        header.metadata = read_metadata(value);
      } else {
        header.entries.emplace(name, read_entry(name, value));
      }
    }
    check_layout(header);
    return header;
  }

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    raise<std::runtime_error>(concat(path_, " is not a valid safetensors file: ", parts...));
  }

 private:
  /// The library's parser keeps the last of two equal keys, takes a zero byte for the end of the
  /// text and skips a byte order mark: the format allows none of these.
  nlohmann::json parse_json(const std::string& text) const {
    std::vector<std::set<std::string>> keys(3);  // of the objects that are open
    const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
      using Event = nlohmann::json::parse_event_t;
      const auto level = static_cast<std::size_t>(depth);
      if (event == Event::object_start || event == Event::array_start) {
        if (level >= keys.size()) fail("its header is nested too deep");
        keys[level].clear();
      } else if (event == Event::key) {
        const auto& key = value.get_ref<const std::string&>();
        if (!keys[level - 1].insert(key).second) fail("its header has the name '", key, "' twice");
      }
      return true;
    };
    nlohmann::json root = nlohmann::json::parse(text, check, false);
    if (root.is_discarded() || text.find('\0') != text.npos) fail("its header is not JSON");
    if (!root.is_object() || text[0] != '{') fail("its header is not a JSON object");
    return root;
  }

  Metadata read_metadata(const nlohmann::json& value) const {
    Metadata metadata;
    if (!value.is_object()) fail("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ holds '", key, "' that is not a string");
      metadata.emplace(key, text.get<std::string>());
    }
    return metadata;
  }

  SafetensorsEntry read_entry(const std::string& name, const nlohmann::json& value) const {
    if (!value.is_object()) fail("tensor '", name, "' is not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"})
      if (!value.contains(key)) fail("tensor '", name, "' has no ", key);
    if (!value["dtype"].is_string()) fail("tensor '", name, "' has a dtype that is not a string");
    SafetensorsEntry entry;
    entry.dtype = value["dtype"].get<std::string>();
    const Index element = dtype_size(entry.dtype);
    if (element == 0) fail("tensor '", name, "' has the unknown dtype '", entry.dtype, "'");

    entry.shape = natural_numbers(name, "shape", value["shape"]);
    const auto count = element_count(entry.shape);
    if (!count || *count > std::numeric_limits<Index>::max() / element)
      fail("tensor '", name, "' has the shape ", shape_text(entry.shape), ", which overflows");
    entry.count = *count;

    const auto offsets = natural_numbers(name, "data_offsets", value["data_offsets"]);
    if (offsets.size() != 2) fail("tensor '", name, "' has ", offsets.size(), " data_offsets");
    entry.begin = offsets[0], entry.end = offsets[1];
    if (entry.begin > entry.end) fail("tensor '", name, "' ends before it begins");
    if (entry.end > data_size_)
      fail("tensor '", name, "' ends at byte ", entry.end, " of the data, the file has ",
           data_size_);
    if (entry.end - entry.begin != *count * element)
      fail("tensor '", name, "' takes ", entry.end - entry.begin, " bytes, ", entry.dtype, " ",
           shape_text(entry.shape), " needs ", *count * element);
    return entry;
  }

  std::vector<Index> natural_numbers(const std::string& name, const char* key,
                                     const nlohmann::json& value) const {
    if (!value.is_array()) fail("tensor '", name, "' has a ", key, " that is not a list");
    std::vector<Index> numbers;
    for (const auto& item : value) {
      if (!item.is_number_unsigned() || !std::in_range<Index>(item.get<std::uint64_t>()))
        fail("tensor '", name, "' has ", item.dump(), " in its ", key,
             ", expected an integer from 0 to 2^63 - 1");
      numbers.push_back(item.get<Index>());
    }
    return numbers;
  }

  /// The tensors fill the data, each byte belongs to one of them.
  void check_layout(const SafetensorsHeader& header) const {
    std::vector<std::pair<const SafetensorsEntry*, std::string_view>> order;
    for (const auto& [name, entry] : header.entries) order.emplace_back(&entry, name);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
    });
    Index position = 0;
    for (const auto& [entry, name] : order) {
      if (entry->begin < position) fail("tensor '", name, "' overlaps the one before it");
      if (entry->begin > position)
        fail("there is a gap of ", entry->begin - position, " bytes before tensor '", name, "'");
      position = entry->end;
    }
    if (position < data_size_) fail(data_size_ - position, " bytes follow the last tensor");
  }

  std::string path_;
  Index data_size_;
};

}  // namespace detail

}  // namespace ttt
