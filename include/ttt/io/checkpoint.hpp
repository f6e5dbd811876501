/// @file
/// Parameters and states in safetensors files, through `fields()` alone: names and shapes are those
/// of `TensorInfo`, so a file has the layout that PyTorch and Hugging Face give it.
/// Loading is strict. All tensors that are missing, unexpected or of another shape are listed in
/// one `std::runtime_error`, and on any error nothing of the struct has changed.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ttt/core/fields.hpp"
#include "ttt/io/safetensors.hpp"
#include "ttt/io/tensor_names.hpp"

namespace ttt {

/// The tensors of a struct with `fields()`; `prefix` is put before each name. Views: the struct
/// must outlive them.
template <class T>
std::vector<TensorView> tensors_of(const T& value, const std::string& prefix = {},
                                   TensorNames names = TensorNames::ttt) {
  std::vector<TensorView> tensors;
  for_each_tensor(
      [&](const TensorInfo& info, const auto& tensor) {
        using S = typename std::remove_cvref_t<decltype(tensor)>::Scalar;
        const std::span<const S> values(tensor.data(), static_cast<std::size_t>(tensor.size()));
        tensors.push_back(
            tensor_view(prefix + checkpoint_name(names, info.name), info.shape, values));
      },
      value);
  return tensors;
}

/// Writes all tensors of `parameters`, in one step: an old file stays until the new one is
/// complete. (Hugging Face's loader asks for the metadata `format`.)
template <class Parameters>
void save_parameters(const std::filesystem::path& path, const Parameters& parameters,
                     const Metadata& metadata = {{"format", "pt"}},
                     TensorNames names = TensorNames::ttt) {
  write_safetensors(path, tensors_of(parameters, {}, names), metadata);
}

/// Where a file may differ from the struct that it is loaded into.
struct LoadOptions {
  /// Stands in the file before each name; tensors without it are passed over.
  std::string prefix = {};
  /// Names in the file that may be absent (the struct keeps its values) or that the struct may
  /// lack: "lm_head.weight" where the head is tied. "grad.*" means all names that begin with
  /// "grad.".
  std::vector<std::string> optional = {};
  /// Whose names the file has.
  TensorNames names = TensorNames::ttt;

  /// The name in the file of the tensor that the struct calls `name`.
  std::string file_name(const std::string& name) const {
    return prefix + checkpoint_name(names, name);
  }

  bool is_optional(std::string_view name) const {
    // Old versions of transformers stored a table that follows from the configuration.
    if (names == TensorNames::llama && name.ends_with(".rotary_emb.inv_freq")) return true;
    return std::any_of(optional.begin(), optional.end(), [&](const std::string& pattern) {
      return pattern.ends_with('*') ? name.starts_with(pattern.substr(0, pattern.size() - 1))
                                    : name == pattern;
    });
  }
};

namespace detail {

/// Compares what a struct expects with what a file has.
class TensorList {
 public:
  TensorList(const SafetensorsFile& file, const LoadOptions& options)
      : file_(file), options_(options) {}

  /// The struct has tensor `name` (prefix included).
  void expect(const std::string& name, const std::vector<Index>& shape, bool integer = false) {
    expected_.insert(name);
    if (!file_.contains(name)) {
      if (!options_.is_optional(name)) add("missing ", name, " ", shape_text(shape));
      return;
    }
    const auto& entry = file_.entry(name);
    const bool right_type = integer ? entry.dtype == "I64"
                                    : entry.dtype == "F64" || entry.dtype == "F32" ||
                                          entry.dtype == "F16" || entry.dtype == "BF16";
    if (entry.shape != shape || !right_type)
      add("misshapen ", name, " ", entry.dtype, " ", shape_text(entry.shape), ", expected ",
          integer ? "I64 " : "floating-point ", shape_text(shape));
  }

  /// Throws `std::runtime_error` that lists all differences, if there are any.
  void check(const char* what) {
    for (const auto& [name, entry] : file_.entries())
      if (name.starts_with(options_.prefix) && !expected_.contains(name) &&
          !options_.is_optional(name))
        add("unexpected ", name, " ", shape_text(entry.shape));
    if (!problems_.empty())
      raise<std::runtime_error>(concat(file_.path(), " does not fit the ", what, ": ", problems_));
  }

 private:
  template <class... Parts>
  void add(const Parts&... parts) {
    problems_ += concat(problems_.empty() ? "" : "; ", parts...);
  }

  const SafetensorsFile& file_;
  const LoadOptions& options_;
  std::set<std::string> expected_;
  std::string problems_;
};

template <class Tensor>
void read_tensor(const SafetensorsFile& file, const std::string& name, Tensor& tensor) {
  using S = typename Tensor::Scalar;
  file.read(name, std::span<S>(tensor.data(), static_cast<std::size_t>(tensor.size())));
}

}  // namespace detail

/// Reads every tensor of `parameters` from a file of F64, F32, F16 or BF16, converting.
/// Needs room for a second copy of the parameters while it runs.
template <class Parameters>
void load_parameters(const SafetensorsFile& file, Parameters& parameters,
                     const LoadOptions& options = {}) {
  detail::TensorList list(file, options);
  for_each_tensor([&](const TensorInfo& info,
                      const auto&) { list.expect(options.file_name(info.name), info.shape); },
                  parameters);
  list.check("parameters");

  Parameters loaded = parameters;
  for_each_tensor(
      [&](const TensorInfo& info, auto& tensor) {
        const std::string name = options.file_name(info.name);
        if (file.contains(name)) detail::read_tensor(file, name, tensor);
      },
      loaded);
  parameters = std::move(loaded);
}

template <class Parameters>
void load_parameters(const std::filesystem::path& path, Parameters& parameters,
                     const LoadOptions& options = {}) {
  load_parameters(SafetensorsFile(path), parameters, options);
}

}  // namespace ttt
