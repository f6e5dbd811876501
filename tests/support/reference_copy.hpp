/// @file
/// A reference file in memory, so that a test can change one value of it and write the copy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ttt/io/safetensors.hpp"

namespace ttt::testing {

struct ReferenceCopy {
  struct Tensor {
    std::string dtype;
    std::vector<Index> shape;
    std::vector<std::byte> bytes;

    template <class T>
    std::span<T> values() {
      return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
    }
  };
  Metadata metadata;
  std::map<std::string, Tensor> tensors;

  explicit ReferenceCopy(const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    metadata = file.metadata();
    for (const auto& [name, entry] : file.entries())
      tensors[name] = {entry.dtype, entry.shape, file.bytes(name)};
  }

  void write(const std::filesystem::path& path) const {
    std::vector<TensorView> views;
    for (const auto& [name, tensor] : tensors)
      views.push_back({name, tensor.dtype, tensor.shape, tensor.bytes});
    write_safetensors(path, views, metadata);
  }
};

/// The element of the largest absolute value.
inline double& largest(std::span<double> values) {
  return *std::max_element(values.begin(), values.end(),
                           [](double a, double b) { return std::abs(a) < std::abs(b); });
}

}  // namespace ttt::testing
