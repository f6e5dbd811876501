/// @file
/// Safetensors files: 8 bytes N (little-endian), N bytes of JSON (see safetensors_header.hpp), then
/// the tensors. A file is checked as a whole before anything of it is used, and no memory is set
/// aside by a size that was not checked. Errors are `std::runtime_error`, one sentence that begins
/// with the path.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"
#include "ttt/io/file.hpp"
#include "ttt/io/safetensors_header.hpp"

namespace ttt {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

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

/// A file open for reading. Copies share it; threads may read from it at the same time.
class SafetensorsFile {
 public:
  /// Opens and checks a file; throws `std::runtime_error` where it breaks the format.
  explicit SafetensorsFile(const std::filesystem::path& path)
      : file_(std::make_shared<const InputFile>(path)) {
    read_header();
  }

  std::string path() const { return file_->path().string(); }
  const Metadata& metadata() const { return header_.metadata; }

  /// All tensors by name.
  const std::map<std::string, SafetensorsEntry>& entries() const { return header_.entries; }
  bool contains(const std::string& name) const { return header_.entries.contains(name); }

  /// Throws `std::runtime_error` where there is no tensor of that name.
  const SafetensorsEntry& entry(const std::string& name) const {
    const auto found = header_.entries.find(name);
    if (found == header_.entries.end())
      raise<std::runtime_error>(path() + " has no tensor '" + name + "'");
    return found->second;
  }
  const std::string& dtype(const std::string& name) const { return entry(name).dtype; }
  const std::vector<Index>& shape(const std::string& name) const { return entry(name).shape; }

  /// A tensor as it stands in the file.
  std::vector<std::byte> bytes(const std::string& name) const {
    const SafetensorsEntry& tensor = entry(name);
    std::vector<std::byte> result(static_cast<std::size_t>(tensor.end - tensor.begin));
    file_->read(offset(tensor, 0), result);
    return result;
  }

  /// Converts a tensor into `values`, which must have its number of elements: F64, F32, F16 and
  /// BF16 into floating point; I64, I32 and U8 into integers that can hold each value.
  template <class T>
  void read(const std::string& name, std::span<T> values) const {
    const SafetensorsEntry& tensor = entry(name);
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
  void read_header() {
    const std::uint64_t size = file_->size();
    const detail::SafetensorsParser prelude(path(), 0);
    if (size < 8) prelude.fail("it has ", size, " bytes, a file has at least 8");
    std::uint64_t length = 0;
    file_->read(0, std::as_writable_bytes(std::span(&length, 1)));
    if (length > max_safetensors_header)
      prelude.fail("its header has ", length, " bytes, at most ", max_safetensors_header,
                   " are allowed");
    if (length > size - 8)
      prelude.fail("its header has ", length, " bytes, the file ends after ", size - 8, " of them");
    std::string text(length, '\0');
    file_->read(8, std::as_writable_bytes(std::span(text)));
    data_begin_ = 8 + length;
    const auto data_size = static_cast<Index>(size - data_begin_);
    header_ = detail::SafetensorsParser(path(), data_size).parse(text);
  }

  std::uint64_t offset(const SafetensorsEntry& tensor, Index bytes) const {
    return data_begin_ + static_cast<std::uint64_t>(tensor.begin + bytes);
  }

  template <class From, class To>
  void convert(const std::string& name, const SafetensorsEntry& tensor,
               std::span<To> values) const {
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
  SafetensorsHeader header_;
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

/// Writes a file in one step (see `AtomicFile`): the same tensors and metadata give the same bytes,
/// those that the format's own implementation writes.
/// Tensors stand in the given order, those of wide elements first, so that each is aligned.
/// Throws `std::invalid_argument` for a name used twice or bytes that do not fit a shape, and
/// `std::runtime_error` where the file cannot be written.
inline void write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors,
                              const Metadata& metadata = {}) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return dtype_size(a.dtype) > dtype_size(b.dtype);
  });
  auto header = nlohmann::ordered_json::object();
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
