/// @file
/// One visitor over tensors. A plain struct lists its members once,
///
///     struct Parameters {
///       Matrix<S> weight;  // [in, out]
///       Vector<S> bias;    // [out]
///       static auto fields(auto& self) {
///         return std::tuple(field("weight", self.weight), field("bias", self.bias));
///       }
///     };
///
/// and `for_each_tensor` walks any number of such structs in lockstep: optimiser, checkpoints,
/// gradient checks, saving and comparing states need no code of their own. A member left out of
/// `fields` does not compile. Nested structs, arrays, vectors, optionals and variants are walked;
/// empty tensors (switched off by a configuration) and plain numbers are passed over
/// (`for_each_number` walks these).
#pragma once

#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "ttt/core/check.hpp"
#include "ttt/core/types.hpp"
#include "ttt/core/visit_index.hpp"

namespace ttt {

/// What a tensor is, beside its values. `groups` counts the matrices that stand side by side in it:
/// with G groups an `r x (G c)` matrix is the file's `[G, c, r]`, otherwise `[cols, rows]`.
struct FieldTraits {
  Index groups = 0;
  bool decays = true;     ///< weight decay is for it
  bool streamed = false;  ///< decoding reads it whole for every token
};

/// A member with its name in files.
template <class T>
struct Field {
  std::string_view name;
  T& member;
  FieldTraits traits;
};

template <class T>
constexpr Field<T> field(std::string_view name, T& member, Index groups = 0) {
  return {name, member, {.groups = groups}};
}

/// A member that weight decay leaves alone.
template <class T>
constexpr Field<T> without_decay(Field<T> field) {
  field.traits.decays = false;
  return field;
}

/// A weight that decoding multiplies whole with every token, if `whole`: see nn/decode_weights.hpp.
template <class T>
constexpr Field<T> streamed(Field<T> field, bool whole = true) {
  field.traits.streamed = whole;
  return field;
}

/// What a visitor is told of a tensor: its full name, its shape as row-major files give it,
/// whether weight decay is for it, and whether decoding reads it whole for every token.
struct TensorInfo {
  std::string name;
  std::vector<Index> shape;
  bool decays = true;
  bool streamed = false;
};

namespace detail {

/// Converts to anything, in expressions that are never evaluated. (It has a body because compilers
/// warn of one that is missing where T is local.)
struct AnyMember {
  template <class T>
  operator T() const {
    std::abort();
  }
};

template <class T, std::size_t... I>
consteval bool takes_members(std::index_sequence<I...>) {
  return requires { T{((void)I, AnyMember{})...}; };
}

/// Members of an aggregate: the largest number of initializers that it takes. (Fewer may not do:
/// a member without a default constructor must have one.)
template <class T, std::size_t N = 32>
consteval std::size_t member_count() {
  if constexpr (N == 0 || takes_members<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    return member_count<T, N - 1>();
  }
}

template <class T>
inline constexpr bool is_std_vector = false;
template <class T, class A>
inline constexpr bool is_std_vector<std::vector<T, A>> = true;
template <class T>
inline constexpr bool is_std_array = false;
template <class T, std::size_t N>
inline constexpr bool is_std_array<std::array<T, N>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_variant = false;
template <class... T>
inline constexpr bool is_variant<std::variant<T...>> = true;

template <class T>
concept Tensor = std::derived_from<T, Eigen::MatrixBase<T>>;

/// A member's name with those of what it is a member of. They are joined only when somebody asks:
/// most walks do not, and strings at every step would be much code.
struct Name {
  const Name* outer = nullptr;
  std::string_view part = {};
  Index element = -1;  // of a vector: its place; of an array: its place counted from 1, not dotted
  bool dotted = true;

  operator std::string() const {  // NOLINT(google-explicit-constructor): visitors take strings
    std::string text = outer ? std::string(*outer) : std::string();
    const std::string own = element < 0 ? std::string(part) : std::to_string(element);
    if (dotted && !text.empty() && !own.empty()) text += '.';
    return text += own;
  }
};

[[noreturn]] inline void raise_difference(const Name& name, const char* how) {
  raise<std::invalid_argument>(concat("for_each_tensor: ", std::string(name), how));
}

template <class T>
std::vector<Index> file_shape(const T& tensor, Index groups) {
  if (groups > 0) return {groups, tensor.cols() / groups, tensor.rows()};
  if (T::ColsAtCompileTime == 1) return {tensor.rows()};
  return {tensor.cols(), tensor.rows()};
}

}  // namespace detail

/// A struct that lists its members in `fields`.
template <class T>
concept HasFields = requires(T& value) {
  std::remove_const_t<T>::fields(value);
};

namespace detail {

template <class Fn, class First, class... Rest>
void visit(Fn& fn, const Name& name, FieldTraits traits, First& first, Rest&... rest);

/// Visits the members that the `fields` of several structs list.
template <class Fn, std::size_t... I, class... Fields>
void visit_members(Fn& fn, const Name& name, FieldTraits traits, std::index_sequence<I...>,
                   const Fields&... fields) {
  const auto visit_member = [&](const auto& first, const auto&... rest) {
    const FieldTraits inner{first.traits.groups, first.traits.decays && traits.decays,
                            first.traits.streamed};
    visit(fn, Name{&name, first.name}, inner, first.member, rest.member...);
  };
  const auto visit_place = [&]<std::size_t Place>(std::integral_constant<std::size_t, Place>) {
    visit_member(std::get<Place>(fields)...);
  };
  (visit_place(std::integral_constant<std::size_t, I>{}), ...);
}

template <class Fn, class First, class... Rest>
void visit(Fn& fn, const Name& name, FieldTraits traits, First& first, Rest&... rest) {
  using T = std::remove_const_t<First>;
  if constexpr (Tensor<T> || std::is_arithmetic_v<T>) {
    fn(name, traits, first, rest...);
  } else if constexpr (is_std_vector<T>) {
    if (!((first.size() == rest.size()) && ...))
      raise_difference(name, " has different lengths in the structs compared");
    for (std::size_t i = 0; i < first.size(); ++i)
      visit(fn, Name{&name, {}, static_cast<Index>(i)}, traits, first[i], rest[i]...);
  } else if constexpr (is_std_array<T>) {
    for (std::size_t i = 0; i < first.size(); ++i)
      visit(fn, Name{&name, {}, static_cast<Index>(i + 1), false}, traits, first[i], rest[i]...);
  } else if constexpr (is_optional<T>) {
    if (!((first.has_value() == rest.has_value()) && ...))
      raise_difference(name, " is absent in some of the structs compared");
    if (first) visit(fn, name, traits, *first, *rest...);
  } else if constexpr (is_variant<T>) {
    if (!((first.index() == rest.index()) && ...))
      raise_difference(name, " is of different kinds in the structs compared");
    visit_index(first, [&]([[maybe_unused]] auto index, auto& alternative) {
      visit(fn, name, traits, alternative, std::get<index>(rest)...);
    });
  } else {
    static_assert(HasFields<T>, "a member is neither a tensor nor a struct with fields()");
    constexpr std::size_t listed = std::tuple_size_v<decltype(T::fields(first))>;
    if constexpr (std::is_aggregate_v<T>)  // a layer among a model's members is a class
      static_assert(member_count<T, listed + 1>() == listed,
                    "fields() must list every member of the struct, in any order");
    visit_members(fn, name, traits, std::make_index_sequence<listed>{}, T::fields(first),
                  std::remove_const_t<Rest>::fields(rest)...);
  }
}

/// Calls `fn(name, traits, tensor_of_first, ...)` for every tensor that is not empty.
template <class Fn, class First, class... Rest>
void visit_tensors(Fn&& fn, First& first, Rest&... rest) {
  const auto visit_leaf = [&fn](const Name& name, const FieldTraits& traits, auto& leaf,
                                auto&... others) {
    if constexpr (Tensor<std::remove_cvref_t<decltype(leaf)>>) {
      if (leaf.size() > 0) fn(name, traits, leaf, others...);
    }
  };
  visit(visit_leaf, Name(), FieldTraits(), first, rest...);
}

}  // namespace detail

/// Calls `fn(info, tensor_of_first, tensor_of_rest...)` for every non-empty tensor of `first`, with
/// the tensors at the same place in `rest`, which must be structs of the same kind.
template <class Fn, class First, class... Rest>
void for_each_tensor(Fn&& fn, First& first, Rest&... rest) {
  detail::visit_tensors(
      [&fn](const detail::Name& name, const FieldTraits& traits, auto& tensor, auto&... others) {
        fn(TensorInfo{name, detail::file_shape(tensor, traits.groups), traits.decays,
                      traits.streamed},
           tensor, others...);
      },
      first, rest...);
}

/// Calls `fn(name, number_of_first, number_of_rest...)` for every plain number: the positions and
/// counters of a state, which `for_each_tensor` passes over.
template <class Fn, class First, class... Rest>
void for_each_number(Fn&& fn, First& first, Rest&... rest) {
  const auto visit_leaf = [&fn](const detail::Name& name, FieldTraits, auto& leaf,
                                auto&... others) {
    if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(leaf)>>) {
      fn(name, leaf, others...);
    }
  };
  detail::visit(visit_leaf, detail::Name(), FieldTraits(), first, rest...);
}

template <class T>
void set_zero(T& value) {
  detail::visit_tensors([](const auto&, const auto&, auto& tensor) { tensor.setZero(); }, value);
}

/// A copy with the same shapes and every tensor zero: room for a gradient, or for an adjoint.
template <class T>
T zeros_like(const T& value) {
  T result = value;
  set_zero(result);
  return result;
}

/// Numbers in all tensors together.
template <class T>
Index count_elements(const T& value) {
  Index count = 0;
  detail::visit_tensors(
      [&](const auto&, const auto&, const auto& tensor) { count += tensor.size(); }, value);
  return count;
}

/// The first tensor that holds a value that is not finite, if there is one.
template <class T>
std::optional<std::string> first_non_finite(const T& value) {
  std::optional<std::string> name;
  detail::visit_tensors(
      [&](const detail::Name& full_name, const auto&, const auto& tensor) {
        if (!name && !tensor.allFinite()) name = full_name;
      },
      value);
  return name;
}

}  // namespace ttt
