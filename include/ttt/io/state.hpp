/// @file
/// A stream's state in a file: all that `fields()` lists, tensors and plain numbers, bit by bit, so
/// that a stream that was saved and loaded goes on exactly as if it had never stopped. Optimisers
/// save theirs in the same way. The file names the model it belongs to by a fingerprint, any text
/// made from the model's configuration.
/// Integers are stored as I64 and numbers with a fraction as F64, both of shape [].
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <type_traits>
#include <utility>

#include "ttt/io/checkpoint.hpp"

namespace ttt {

/// Of the layout of state files.
inline constexpr const char* state_file_version = "1";

namespace detail {

/// A number as a state file holds it. Unsigned integers keep their bits.
template <class T>
using StoredNumber = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;

/// The shape that `tensor` takes from a file. A matrix has as many columns as its file says, since
/// the memory of attention grows with the stream; all else is given by the configuration.
template <class Tensor>
std::vector<Index> shape_to_load(const SafetensorsFile& file, const std::string& name,
                                 const Tensor& tensor, Index groups) {
  std::vector<Index> shape = file_shape(tensor, groups);
  if (Tensor::ColsAtCompileTime == Eigen::Dynamic && groups == 0 && file.contains(name)) {
    const auto& stored = file.shape(name);
    if (stored.size() == 2 && stored[1] == shape[1]) shape[0] = stored[0];
  }
  return shape;
}

inline void require_state_file(const SafetensorsFile& file, const std::string& fingerprint) {
  const auto value = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  if (value("kind") != "ttt_state")
    raise<std::runtime_error>(file.path() + " does not hold a saved state");
  if (value("version") != state_file_version)
    raise<std::runtime_error>(concat(file.path(), " holds a state of version ", value("version"),
                                     ", expected ", state_file_version));
  if (value("fingerprint") != fingerprint)
    raise<std::runtime_error>(concat(file.path(),
                                     " holds the state of another model: it was saved for ",
                                     value("fingerprint"), ", expected ", fingerprint));
}

}  // namespace detail

/// Writes tensors (empty ones too) and numbers of `state`, in one step.
template <class State>
void save_state(const std::filesystem::path& path, const State& state,
                const std::string& fingerprint) {
  std::vector<TensorView> views;
  std::list<std::variant<std::int64_t, double>> numbers;  // a list: its elements stay in place
  const auto add = [&](const std::string& name, FieldTraits traits, const auto& leaf) {
    using T = std::remove_cvref_t<decltype(leaf)>;
    if constexpr (detail::Tensor<T>) {
      using S = typename T::Scalar;
      const std::span<const S> values(leaf.data(), static_cast<std::size_t>(leaf.size()));
      views.push_back(tensor_view(name, detail::file_shape(leaf, traits.groups), values));
    } else {
      using Stored = detail::StoredNumber<T>;
      const auto& number = std::get<Stored>(numbers.emplace_back(static_cast<Stored>(leaf)));
      views.push_back(tensor_view(name, {}, std::span<const Stored>(&number, 1)));
    }
  };
  detail::visit(add, detail::Name(), FieldTraits(), state);
  write_safetensors(
      path, std::move(views),
      {{"kind", "ttt_state"}, {"version", state_file_version}, {"fingerprint", fingerprint}});
}

/// Reads what `save_state` wrote into a state of the same model, its initial state for instance.
/// Throws `std::runtime_error` where the file holds no state, one of another fingerprint, or other
/// tensors; `state` has then not changed.
template <class State>
void load_state(const std::filesystem::path& path, State& state, const std::string& fingerprint) {
  const SafetensorsFile file(path);
  detail::require_state_file(file, fingerprint);
  const LoadOptions options;
  detail::TensorList list(file, options);
  const auto expect = [&](const std::string& name, FieldTraits traits, const auto& leaf) {
    using T = std::remove_cvref_t<decltype(leaf)>;
    if constexpr (detail::Tensor<T>) {
      list.expect(name, detail::shape_to_load(file, name, leaf, traits.groups));
    } else {
      list.expect(name, {}, std::is_integral_v<T>);
    }
  };
  detail::visit(expect, detail::Name(), FieldTraits(), std::as_const(state));
  list.check("state");

  State loaded = state;
  const auto read = [&](const std::string& name, FieldTraits traits, auto& leaf) {
    using T = std::remove_cvref_t<decltype(leaf)>;
    if constexpr (detail::Tensor<T>) {
      if constexpr (T::ColsAtCompileTime == Eigen::Dynamic)
        if (traits.groups == 0) leaf.resize(leaf.rows(), file.shape(name)[0]);
      detail::read_tensor(file, name, leaf);
    } else {
      using Stored = detail::StoredNumber<T>;
      const auto stored = file.read<Stored>(name).front();
      leaf = static_cast<T>(stored);
      if (std::is_integral_v<T> && static_cast<Stored>(leaf) != stored)
        raise<std::runtime_error>(concat(path.string(), ": ", name, " is out of range: ", stored));
    }
  };
  detail::visit(read, detail::Name(), FieldTraits(), loaded);
  state = std::move(loaded);
}

}  // namespace ttt
