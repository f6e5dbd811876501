/// @file
/// The safetensors format: 8 bytes N (little-endian), N bytes of JSON, then the data,
///
///     {"__metadata__": {"key": "text"},
///      "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
///
/// with row-major tensors that follow each other without gaps. A file is checked as a whole before
/// anything of it is used, and no memory is set aside by a size that was not checked.
/// Errors are `std::runtime_error`, one sentence that begins with the path.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"
#include "ttt/io/file.hpp"

namespace ttt {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

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

/// The dtype of a C++ type.
template <class T>
constexpr const char* dtype_name() {
  if constexpr (std::same_as<T, double>)
    return "F64";
  else if constexpr (std::same_as<T, float>)
    return "F32";
  else if constexpr (std::same_as<T, Eigen::half>)
    return "F16";
  else if constexpr (std::same_as<T, Eigen::bfloat16>)
    return "BF16";
  else if constexpr (std::signed_integral<T> && sizeof(T) == 8)
    return "I64";
  else if constexpr (std::signed_integral<T> && sizeof(T) == 4)
    return "I32";
  else {
    static_assert(std::same_as<T, std::uint8_t>, "this type has no dtype in a safetensors file");
    return "U8";
  }
}

/// "[2, 3]"
inline std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ']';
}

/// Elements of a row-major tensor; nothing where the product does not fit an `Index`.
inline std::optional<Index> element_count(const std::vector<Index>& shape) {
  Index count = 1;
  for (const Index size : shape) {
    if (count != 0 && size > std::numeric_limits<Index>::max() / count) return std::nullopt;
    count *= size;
  }
  return count;
}

/// A file open for reading. Copies share it; threads may read from it at the same time.
class SafetensorsFile {
 public:
  struct Entry {
    std::string dtype;
    std::vector<Index> shape;  // row-major
    Index count = 0;           // elements
    Index begin = 0, end = 0;  // bytes, from the beginning of the data
  };

  /// Opens and checks a file; throws `std::runtime_error` where it breaks the format.
  explicit SafetensorsFile(const std::filesystem::path& path)
      : file_(std::make_shared<const InputFile>(path)) {
    const nlohmann::json root = parse(read_header());
    for (const auto& [name, value] : root.items()) {
      if (name == "__metadata__") {
        read_metadata(value);
      } else {
        entries_.emplace(name, read_entry(name, value));
      }
    }
    check_layout();
  }

  std::string path() const { return file_->path().string(); }
  const Metadata& metadata() const { return metadata_; }

  /// All tensors by name.
  const std::map<std::string, Entry>& entries() const { return entries_; }
  bool contains(const std::string& name) const { return entries_.contains(name); }

  /// Throws `std::runtime_error` where there is no tensor of that name.
  const Entry& entry(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end())
      raise<std::runtime_error>(path() + " has no tensor '" + name + "'");
    return found->second;
  }
  const std::string& dtype(const std::string& name) const { return entry(name).dtype; }
  const std::vector<Index>& shape(const std::string& name) const { return entry(name).shape; }

  /// A tensor as it stands in the file.
  std::vector<std::byte> bytes(const std::string& name) const {
    const Entry& tensor = entry(name);
    std::vector<std::byte> result(static_cast<std::size_t>(tensor.end - tensor.begin));
    file_->read(offset(tensor, 0), result);
    return result;
  }

  /// Converts a tensor into `values`, which must have its number of elements: F64, F32, F16 and
  /// BF16 into floating point; I64, I32 and U8 into integers that can hold each value.
  template <class T>
  void read(const std::string& name, std::span<T> values) const {
    const Entry& tensor = entry(name);
    require(static_cast<Index>(values.size()) == tensor.count, path(), ": tensor '", name, "' has ",
            tensor.count, " elements, expected ", values.size());
    if constexpr (std::integral<T>) {
      if (tensor.dtype == "I64") return convert<std::int64_t>(name, tensor, values);
      if (tensor.dtype == "I32") return convert<std::int32_t>(name, tensor, values);
      if (tensor.dtype == "U8") return convert<std::uint8_t>(name, tensor, values);
    } else {
      if (tensor.dtype == "F64") return convert<double>(name, tensor, values);
      if (tensor.dtype == "F32") return convert<float>(name, tensor, values);
      if (tensor.dtype == "F16") return convert<Eigen::half>(name, tensor, values);
      if (tensor.dtype == "BF16") return convert<Eigen::bfloat16>(name, tensor, values);
    }
    raise<std::runtime_error>(
        concat(path(), ": tensor '", name, "' has dtype ", tensor.dtype, ", expected ",
               std::integral<T> ? "I64, I32 or U8" : "F64, F32, F16 or BF16"));
  }

  template <class T>
  std::vector<T> read(const std::string& name) const {
    std::vector<T> values(static_cast<std::size_t>(entry(name).count));
    read(name, std::span<T>(values));
    return values;
  }

  /// The same bytes as a column-major matrix: the file's `[..., n]` is n x (product of the others),
  /// its `[n]` is n x 1.
  template <class S>
  Matrix<S> matrix(const std::string& name) const {
    std::vector<Index> outer = entry(name).shape;
    const Index rows = outer.empty() ? 1 : outer.back();
    if (!outer.empty()) outer.pop_back();
    Matrix<S> result(rows, element_count(outer).value());
    read(name, std::span<S>(result.data(), static_cast<std::size_t>(result.size())));
    return result;
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    raise<std::runtime_error>(concat(path(), " is not a valid safetensors file: ", parts...));
  }

  std::string read_header() {
    const std::uint64_t size = file_->size();
    if (size < 8) fail("it has ", size, " bytes, a file has at least 8");
    std::uint64_t length = 0;
    file_->read(0, std::as_writable_bytes(std::span(&length, 1)));
    if (length > max_safetensors_header)
      fail("its header has ", length, " bytes, at most ", max_safetensors_header, " are allowed");
    if (length > size - 8)
      fail("its header has ", length, " bytes, the file ends after ", size - 8, " of them");
    std::string header(length, '\0');
    file_->read(8, std::as_writable_bytes(std::span(header)));
    data_begin_ = 8 + length;
    data_size_ = static_cast<Index>(size - data_begin_);
    return header;
  }

  /// The library's parser keeps the last of two equal keys, takes a zero byte for the end of the
  /// text and skips a byte order mark: the format allows none of these.
  nlohmann::json parse(const std::string& header) const {
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
    nlohmann::json root = nlohmann::json::parse(header, check, false);
    if (root.is_discarded() || header.find('\0') != header.npos) fail("its header is not JSON");
    if (!root.is_object() || header[0] != '{') fail("its header is not a JSON object");
    return root;
  }

  void read_metadata(const nlohmann::json& value) {
    if (!value.is_object()) fail("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ holds '", key, "' that is not a string");
      metadata_.emplace(key, text.get<std::string>());
    }
  }

  Entry read_entry(const std::string& name, const nlohmann::json& value) const {
    if (!value.is_object()) fail("tensor '", name, "' is not an object");
    for (const char* key : {"dtype", "shape", "data_offsets"})
      if (!value.contains(key)) fail("tensor '", name, "' has no ", key);
    if (!value["dtype"].is_string()) fail("tensor '", name, "' has a dtype that is not a string");
    Entry entry;
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
  void check_layout() const {
    std::vector<std::pair<const Entry*, std::string_view>> order;
    for (const auto& [name, entry] : entries_) order.emplace_back(&entry, name);
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

  std::uint64_t offset(const Entry& tensor, Index bytes) const {
    return data_begin_ + static_cast<std::uint64_t>(tensor.begin + bytes);
  }

  template <class From, class To>
  void convert(const std::string& name, const Entry& tensor, std::span<To> values) const {
    if constexpr (std::same_as<From, To>) {
      file_->read(offset(tensor, 0), std::as_writable_bytes(values));
    } else {
      std::vector<From> buffer(std::min<std::size_t>(values.size(), 1 << 14));
      for (std::size_t done = 0; done < values.size(); done += buffer.size()) {
        const std::span part(buffer.data(), std::min(buffer.size(), values.size() - done));
        file_->read(offset(tensor, static_cast<Index>(done * sizeof(From))),
                    std::as_writable_bytes(part));
        for (std::size_t i = 0; i < part.size(); ++i)
          values[done + i] = convert_value<To>(name, part[i]);
      }
    }
  }

  template <class To, class From>
  To convert_value(const std::string& name, From value) const {
    if constexpr (std::integral<To>) {
      if (!std::in_range<To>(value))
        raise<std::runtime_error>(
            concat(path(), ": tensor '", name, "' holds ", +value, ", which is out of range"));
      return static_cast<To>(value);
    } else if constexpr (std::floating_point<From>) {
      return static_cast<To>(value);
    } else {
      return static_cast<To>(static_cast<float>(value));
    }
  }

  std::shared_ptr<const InputFile> file_;
  std::uint64_t data_begin_ = 0;
  Index data_size_ = 0;
  Metadata metadata_;
  std::map<std::string, Entry> entries_;
};

/// A tensor to write; does not own its bytes.
struct TensorView {
  std::string name;
  std::string dtype;
  std::vector<Index> shape;  // row-major
  std::span<const std::byte> bytes;
};

template <class T>
TensorView tensor_view(std::string name, std::vector<Index> shape, std::span<const T> values) {
  return {std::move(name), dtype_name<T>(), std::move(shape), std::as_bytes(values)};
}

/// Writes a file in one step (see `AtomicFile`): the same tensors and metadata give the same bytes.
/// Tensors stand in the given order, those of wide elements first, so that each is aligned.
/// Throws `std::invalid_argument` for a name used twice or bytes that do not fit a shape, and
/// `std::runtime_error` where the file cannot be written.
inline void write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors,
                              const Metadata& metadata = {}) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return dtype_size(a.dtype) > dtype_size(b.dtype);
  });
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t position = 0;
  for (const TensorView& tensor : tensors) {
    require(tensor.name != "__metadata__" && !header.contains(tensor.name), path.string(),
            ": two tensors have the name '", tensor.name, "', or it is reserved");
    const Index size = static_cast<Index>(tensor.bytes.size());
    const Index element = dtype_size(tensor.dtype);
    require(element > 0 && size % element == 0 && element_count(tensor.shape) == size / element,
            path.string(), ": tensor '", tensor.name, "' has ", size, " bytes, which do not fit ",
            tensor.dtype, " ", shape_text(tensor.shape));
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {position, position + tensor.bytes.size()}}};
    position += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  require(length <= max_safetensors_header, path.string(), ": the header has ", length,
          " bytes, at most ", max_safetensors_header, " are allowed");

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const TensorView& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace ttt
